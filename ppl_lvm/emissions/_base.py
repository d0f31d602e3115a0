"""What an emission is: the distribution of one row of data given the state (component) it came from.

An emission is a frozen dataclass of hyperparameters. Mixtures and HMMs ask it for everything that they need
about observations, so that a new one works in both.

Shapes: n rows, d columns, k states; ``params`` maps site names to arrays (..., *site) with any draw
dimensions in front; ``x`` (n, d) holds the data with missing entries filled by a legal value, and ``seen``
(n, d) is 1 where an entry was observed and 0 where it is missing (None: all were observed).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from ppl_lvm.emissions._priors import Array, Prior

Values = Mapping[str, Any]


class Library(NamedTuple):
    """An array library: ``xp`` (numpy or jax.numpy) and its ``special`` functions (scipy's names)."""

    xp: Any
    special: Any


def numpy_library() -> Library:
    """NumPy and scipy.special."""
    import scipy.special

    return Library(np, scipy.special)


def jax_library() -> Library:
    """jax.numpy and jax.scipy.special."""
    import jax.numpy as jnp
    import jax.scipy.special

    return Library(jnp, jax.scipy.special)


class Emission(ABC):
    """The distribution of a row given its state; see the module's page for shapes."""

    # ---- data ------------------------------------------------------------------------------------

    @abstractmethod
    def check(self, x: Array, columns: Sequence[str]) -> None:
        """Raise ValueError, naming the column, where observed entries (not NaN) lie outside the support."""

    @abstractmethod
    def resolve(self, x: Array, num_states: int) -> Emission:
        """The emission with hyperparameters that were None filled in from x (n, d), NaN where missing."""

    def with_columns(self, columns: Sequence[str]) -> Emission:
        """The emission with columns that were given by name found among ``columns``; before ``resolve``.

        Only products of emissions have such names. Raises ValueError where a name is unknown.
        """
        return self

    def coords(self, columns: Sequence[str]) -> dict[str, list[str]]:
        """Labels of the sites' dimensions over columns, by dimension."""
        return {"feature": list(columns)}

    @property
    def fill(self) -> float:
        """A value of the support, put where an entry is missing."""
        return 0.0

    @property
    def structure(self) -> Hashable:
        """What shapes the compiled programs: the class and its settings that are not hyperparameters.

        Hyperparameters (floats, tuples of floats and None) are arguments of the programs. Emissions that
        are equal here share compiled functions.
        """
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]  # subclasses are
        fixed = tuple((k, v) for k, v in named.items() if isinstance(v, (bool, int, str)))
        return type(self).__name__, fixed

    # ---- parameters ------------------------------------------------------------------------------

    @abstractmethod
    def sites(self, num_states: int, num_columns: int) -> dict[str, Prior]:
        """The parameter sites in the order of the program."""

    @abstractmethod
    def prior(self, num_states: int, num_columns: int) -> dict[str, Array]:
        """The hyperparameters that the sites' priors name, as arrays; the emission must be resolved."""

    @abstractmethod
    def num_parameters(self, num_states: int, num_columns: int) -> int:
        """Free parameters, for AIC and BIC."""

    # ---- densities -------------------------------------------------------------------------------

    @abstractmethod
    def log_prob(self, lib: Library, params: Values, x: Any, seen: Any | None) -> Any:
        """log p(x_i | state j) over the observed entries, (..., k, n), in nats."""

    @abstractmethod
    def row(self, dist: Any, params: Values, seen: Any | None) -> Any:
        """The Pyro distribution of one row, event shape (d,), at the parameters of its state.

        ``params`` have lost their axis of states (those that are not per state never had one); their batch
        dimensions, and those of ``seen`` (..., d), broadcast.
        """

    def log_prior(self, params: Values, prior: Values, num_states: int, num_columns: int) -> Array:
        """Log density (...) of the parameters, nats."""
        table = self.sites(num_states, num_columns)
        return sum(
            (site.log_density(np.asarray(params[n]), prior) for n, site in table.items()), start=np.zeros(())
        )

    # ---- point estimates, draws, summaries ---------------------------------------------------------

    @abstractmethod
    def m_step(
        self, x: Array, seen: Array | None, weights: Array, prior: Values | None, current: Values | None
    ) -> dict[str, Array]:
        """Parameters that maximise the weighted log likelihood plus, with a prior, its log density.

        ``weights`` (k, n) are responsibilities. ``current`` are the parameters before the step (None at the
        start), for emissions whose step is iterative; the objective never falls. The log density is that
        in the constrained space of the sites, as the model's joint density has it.
        """

    @abstractmethod
    def sample(self, params: Values, states: Array, rng: np.random.Generator) -> Array:
        """Rows (..., m, d) for states (..., m), at parameters with the same draw dimensions."""

    @abstractmethod
    def features(self, params: Values) -> Array:
        """Real coordinates (..., k, f) by which states are recognised when draws are relabelled."""

    @abstractmethod
    def moments(self, params: Values) -> tuple[Array, Array]:
        """Mean and variance of a row given each state, (..., k, d); infinite where they do not exist."""

    @property
    def finite_variance(self) -> bool:
        """Whether the variance in ``moments`` is finite at all parameters."""
        return True

    def collapsed(self, params: Values, x: Array, seen: Array | None) -> Array:
        """States (k,) of a maximum likelihood estimate whose spread lies at its lower bound."""
        table = self.sites(1, x.shape[1])
        first = next(name for name, site in table.items() if site.per_state)
        return np.zeros(len(params[first]), dtype=bool)

    # ---- settings --------------------------------------------------------------------------------

    def to_settings(self) -> dict[str, Any]:
        """The class's name and its fields as plain values, from which a saved fit rebuilds it."""
        return {"emission": type(self).__name__, "settings": dataclasses.asdict(self)}  # type: ignore[call-overload]  # as above

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The emission from the ``settings`` that ``to_settings`` gave, also after a trip through JSON."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def own_states(param: Array, states: Array, event_dim: int = 1) -> Array:
    """The entries (..., m, *event) of a parameter (..., k, *event) that belong to states (..., m)."""
    index = states.reshape(*states.shape, *(1,) * event_dim)
    return np.take_along_axis(param, index, axis=-1 - event_dim)


def as_emission(value: Any) -> Emission:
    """An emission as it is, or one rebuilt from what ``to_settings`` gave.

    Raises
    ------
    TypeError, ValueError
        If the value is neither.
    """
    from ppl_lvm import emissions

    if isinstance(value, Emission):
        return value
    known = sorted(set(emissions.__all__) - {"Emission", "as_emission"})
    if isinstance(value, Mapping):
        name = value.get("emission")
        if name not in known or not isinstance(value.get("settings"), Mapping):
            raise ValueError(f"emission: expected saved settings of one of {known}, got {dict(value)!r}.")
        built: Emission = getattr(emissions, name).from_settings(value["settings"])
        return built
    what = f"the class {value.__name__}; call it" if isinstance(value, type) else repr(value)
    raise TypeError(f"emission: expected one such as emissions.Poisson() (there are {known}), got {what}.")
