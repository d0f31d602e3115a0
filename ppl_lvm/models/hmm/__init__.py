r"""Hidden Markov model: sequences whose observations depend on a chain of hidden states.

Generative story, for sequences s of length :math:`T_s` in d columns and k states:

.. math::

    \pi &\sim \mathrm{Dirichlet}(a, \dots, a) \quad (\texttt{initial="free"}) \\
    A_{j \cdot} &\sim \mathrm{Dirichlet}(c + \kappa e_j) \\
    \theta_j &\sim \text{the emission's prior} \\
    z_{s1} &\sim \mathrm{Categorical}(\pi), \qquad z_{st} \sim \mathrm{Categorical}(A_{z_{s,t-1} \cdot}) \\
    x_{st} &\sim \text{emission}(\theta_{z_{st}})

With ``initial="uniform"`` :math:`\pi = 1/k`, with ``initial="stationary"`` :math:`\pi = \pi A`; then there is
no site ``initial``. Missing observations are left out of the product, the chain goes on.

========== ============== =================== ==========================================
site       symbol         shape               support
========== ============== =================== ==========================================
initial    :math:`\pi`    (k,)                simplex; only with ``initial="free"``
transition :math:`A`      (k, k)              rows on the simplex, A[i, j] = p(i -> j)
(emission) :math:`\theta` see the emission    see the emission
states     :math:`z`      (S, T), summed out  0..k-1
obs        :math:`x`      (S, T, d)           the emission's
========== ============== =================== ==========================================

Sources: Rabiner (1989), *Proceedings of the IEEE* 77; Zucchini, MacDonald and Langrock, *Hidden Markov Models
for Time Series* (2016), for counts and the stationary start; Fox, Sudderth, Jordan and Willsky (2011),
*Annals of Applied Statistics* 5, for the sticky prior.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.core import AbstractModel, Array, Program, Values
from ppl_lvm.data import Data
from ppl_lvm.emissions import Emission, Poisson, as_emission
from ppl_lvm.models.hmm import _checks, _data, _em_estep, _invariants
from ppl_lvm.models.hmm._em_estep import EStep
from ppl_lvm.models.hmm._exact import HMMExact
from ppl_lvm.models.hmm._layout import INITIAL, Rows, site_table

_LARGE = 200_000  # rows times states
_COMPILATION = 1.0  # seconds


@dataclass(frozen=True)
class HMM(AbstractModel):
    """A hidden Markov model with ``num_states`` states; the module's page has the generative story.

    Data are one sequence, an array (T, d) or (T,) or a DataFrame; several of one length, (S, T, d); several
    of different lengths, a list of arrays, or a mapping ``{"x": ..., "lengths": ...}`` where x is their
    concatenation (sum of lengths, d) or padded (S, T, d). NaN stands for missing entries, whole steps too.

    Parameters
    ----------
    num_states
        k, at least 1.
    emission
        The distribution of an observation given its state, one of :mod:`ppl_lvm.emissions`.
    initial
        Distribution of a sequence's first state: ``"free"`` (a site), ``"uniform"``, or ``"stationary"``
        under the transition matrix.
    initial_concentration
        Dirichlet concentration a of the start distribution: a positive number, or one per state
        (the states then differ in the prior, and draws are not relabelled).
    transition_concentration
        Dirichlet concentration c of the rows of the transition matrix: a positive number, or k rows of k.
    sticky
        What is added to the concentration of staying, kappa, at least 0.
    markov
        Whether the Pyro program has a statement for each step and enumerated states, to be read and checked,
        instead of one for each sequence, to be worked with. The density is the same.
    keep_latents
        Whether ``Fit.posterior`` also holds draws of the states (-1 beyond a sequence's end).
    num_columns
        d. None: that of the data; data to predict at must have as many.

    Raises
    ------
    TypeError, ValueError
        Naming the field, for settings outside their range.
    """

    num_states: int
    emission: Emission = dataclasses.field(default_factory=Poisson)
    initial: str = "free"
    initial_concentration: float | tuple[float, ...] = 1.5
    transition_concentration: float | tuple[tuple[float, ...], ...] = 1.5
    sticky: float = 0.0
    markov: bool = False
    keep_latents: bool = False
    num_columns: int | None = None

    def __post_init__(self) -> None:
        k = _checks.positive_integer("num_states", self.num_states)
        object.__setattr__(self, "emission", as_emission(self.emission))
        if self.initial not in INITIAL:
            raise ValueError(f"initial: expected one of {INITIAL}, got {self.initial!r}.")
        for name, shape in (("initial_concentration", (k,)), ("transition_concentration", (k, k))):
            object.__setattr__(self, name, _checks.concentration(name, getattr(self, name), shape))
        object.__setattr__(self, "sticky", _checks.at_least_zero("sticky", self.sticky))

    def describe(self) -> str:
        start = "" if self.initial == "free" else f", initial={self.initial!r}"
        return f"HMM(num_states={self.num_states}, emission={type(self.emission).__name__}{start})"

    # ---- programs --------------------------------------------------------------------------------

    @property
    def _static(self) -> dict[str, Any]:
        return {"num_states": self.num_states, "emission": self.emission, "initial": self.initial}

    @property
    def pyro(self) -> Program:
        from ppl_lvm.models.hmm import _pyro

        written = _pyro.markov_model if self.markov else _pyro.model
        return Program(functools.partial(written, **self._static))

    @property
    def numpyro(self) -> Program:
        from ppl_lvm.models.hmm import _numpyro

        return Program(functools.partial(_numpyro.model, **self._static))

    @property
    def exact(self) -> HMMExact:
        compiled = functools.partial(_e_step, self.num_states)
        return HMMExact(self.num_states, self.emission, self.initial, compiled)

    @property
    def cache_key(self) -> Any:
        return ("hmm", self.num_states, self.initial, self.markov, self.emission.structure)

    @property
    def data_plate(self) -> str:
        return "sequence"

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        table = self._table
        return {
            **{name: site.dims for name, site in table.items()},
            "obs": ("sequence", "time", "feature"),
            "states": ("sequence", "time"),
            "stationary_mean": ("feature",),
            "stationary_sd": ("feature",),
            "sorted_stationary": ("rank",),
        }

    @property
    def _table(self) -> Mapping[str, Any]:
        return site_table(self.num_states, self.num_columns or 2, self.emission, self.initial)

    # ---- symmetry --------------------------------------------------------------------------------

    @property
    def label_axes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Event axes indexed by the state, by site; None where the prior tells states apart."""
        alike = _checks.exchangeable(self.initial_concentration, self.transition_concentration)
        if self.num_states == 1 or not alike:
            return None
        axes = {name: (0,) for name, site in self._table.items() if site.per_state}
        return axes | {"transition": (0, 1)}

    @property
    def label_note(self) -> str:
        """Unequal concentrations shift the masses of the k! orders of the states, and remove none."""
        if self.num_states == 1 or self.label_axes is not None:
            return ""
        return f"of one order of the states: up to log {self.num_states}! nats may lie in the others"

    def label_features(self, values: Values) -> Array:
        """Coordinates (..., k, f) that recognise states: the emission's and the log odds of staying."""
        return _invariants.features(self.emission, values)

    def invariants(self, values: Values) -> dict[str, Array]:
        """Quantities that relabelling leaves alone, of the stationary process; see :mod:`._invariants`."""
        return _invariants.invariants(self.emission, values)

    # ---- data ------------------------------------------------------------------------------------

    def bind(self, raw: Any, *, fitting: bool = True) -> Data:
        """Sequences padded to ``x`` (S, T, d), NaN where missing and beyond the end, and ``lengths`` (S,).

        Raises
        ------
        TypeError, ValueError
            If the data have no form of the class's, or values outside the emission's support; when fitting,
            also if there are fewer steps than states or a column without values.
        """
        if isinstance(raw, Data):
            return raw
        found = _data.read_sequences(raw)
        d = found.x.shape[2]
        if self.num_columns is not None and d != self.num_columns:
            raise ValueError(f"x: expected {self.num_columns} columns as in the fit, got {d}.")
        names = found.columns or [str(f) for f in range(d)]
        emission = self.emission.with_columns(names)
        rows = _observed_rows(found.x, found.lengths)
        if fitting:
            _checks.enough(rows, self.num_states, names)
        emission.check(rows, names)
        coords = {"time": found.times} if found.times is not None else {}
        if found.columns is not None:
            coords |= {"feature": found.columns, **emission.coords(names)}
        return Data({"x": found.x, "lengths": found.lengths}, coords)

    def resolve(self, data: Any) -> HMM:
        """The model with the emission's data-dependent numbers filled in from all steps of all sequences.

        Raises
        ------
        ValueError
            If a rule needs a spread and a column is constant, or a number of columns disagrees.
        """
        bound = self.bind(data)
        rows = _observed_rows(bound.values["x"], bound.values["lengths"])
        d = rows.shape[1]
        names = list(bound.coords.get("feature", [str(f) for f in range(d)]))
        emission = self.emission.with_columns(names).resolve(rows, self.num_states)
        emission.prior(self.num_states, d)  # numbers by column must be as many as columns
        return dataclasses.replace(self, emission=emission, num_columns=d)

    def arguments(self, data: Data) -> dict[str, Any]:
        """x (S, T, d) filled, lengths (S,), seen (S, T, d) where an entry is missing, the prior's numbers."""
        arguments = _data.filled(data, self.emission.fill)
        k, d = self.num_states, arguments["x"].shape[2]
        rows = np.broadcast_to(np.asarray(self.transition_concentration, dtype=float), (k, k))
        prior = {"transition_concentration": rows + self.sticky * np.eye(k), **self.emission.prior(k, d)}
        if self.initial == "free":
            start = np.broadcast_to(np.asarray(self.initial_concentration, dtype=float), (k,))
            prior["initial_concentration"] = start.copy()
        return {**arguments, "prior": prior}

    def observations(self, data: Data) -> dict[str, Array]:
        """``obs`` (S, T, d), NaN where missing and beyond a sequence's end."""
        return {"obs": data.values["x"]}

    def to_settings(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"model": "HMM", "settings": {**plain, "emission": self.emission.to_settings()}}


def _observed_rows(x: Array, lengths: Array) -> Array:
    """All steps before the sequences' ends, (n, d)."""
    return x[np.arange(x.shape[1]) < lengths[:, None]]


def _e_step(num_states: int, emission: Emission, initial: str, rows: Rows, num_steps: int) -> EStep:
    """Baum-Welch's E-step: compiled where the data are large, or NumPy would take longer than to compile.

    NumPy's time was measured as 7 microseconds a time step and 12 nanoseconds a row and state; the rule does
    not measure anew, so that the same call always computes the same numbers.
    """
    size = rows.valid.size * num_states
    seconds = num_steps * (7e-6 * len(rows.valid) + 12e-9 * size)
    if size < _LARGE and seconds < _COMPILATION:
        return _em_estep.e_step(emission, initial, rows)
    from ppl_lvm.models.hmm import _jax_estep

    return _jax_estep.e_step(emission, initial, rows)
