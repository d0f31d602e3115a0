"""Every way to the log evidence of one model and data set, side by side."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.core import Engine, Evidence, Problem
from ppl_lvm.engines.importance import ImportanceSampling
from ppl_lvm.engines.nuts import NUTS
from ppl_lvm.engines.smc import AIS, SMC
from ppl_lvm.engines.svi import SVI
from ppl_lvm.evidence._bridge import bridge
from ppl_lvm.evidence._iwae import IWAE, iwae_bound, log_weights
from ppl_lvm.fitting import fit_to_the_end, prepare
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

RUNGS = ("prior IS", "ELBO", "IWAE_5", "IWAE_50", "IWAE_500", "AIS", "SMC", "bridge", "exact")
_DRAWS = 10_000


@dataclass(frozen=True)
class EvidenceLadder:
    """What :func:`evidence_ladder` found.

    ``table`` has a row per rung: nats, std_error, kind, seconds, note (nats are NaN where the note says why a
    rung is missing). ``evidence`` has the :class:`Evidence` of each rung, ``fits`` the fits behind them.
    """

    model: str
    table: pd.DataFrame
    evidence: Mapping[str, Evidence]
    fits: Mapping[str, Fit]

    def plot(self) -> Any:
        """Bounds and estimates with two standard errors, as a matplotlib Figure."""
        from ppl_lvm.plots import plot_ladder

        return plot_ladder(self)

    def __repr__(self) -> str:
        lines = [f"Log evidence of {self.model} (nats)"]
        width = max(len(n) for n in self.table.index)
        for name, row in self.table.iterrows():
            found = self.evidence.get(str(name))
            note = f"  {row['note']}" if row["note"] else ""
            value = f"{_sign(found)} {found.nats:10.2f} +- {found.std_error:.2f}" if found else "  -"
            lines.append(f"  {name:<{width}}  {value}{note}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from ppl_lvm.notebook import ladder_html

        return ladder_html(self)


def evidence_ladder(
    model: Any,
    data: Any,
    *,
    exact: float | None = None,
    svi: SVI | None = None,
    nuts: NUTS | None = None,
    ais: AIS | None = None,
    smc: SMC | None = None,
    num_prior: int = _DRAWS,
    init: Any = None,
    dtype: str | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> EvidenceLadder:
    r"""The log evidence by prior importance sampling, bounds, annealing and bridge sampling, in one table.

    - ``prior IS``: log mean likelihood over draws of the prior (an estimate; poor where data say much).
    - ``ELBO``, ``IWAE_5``, ``IWAE_50``, ``IWAE_500``: lower bounds from the draws of one SVI fit, means of
      :math:`\log \frac1m \sum_{i \le m} p(x, z_i) / q(z_i)` over groups of m weights (Burda, Grosse and
      Salakhutdinov 2016, ICLR; equation 8). They rise with m.
    - ``AIS``, ``SMC``: estimates by annealing from the prior.
    - ``bridge``: an estimate from a NUTS fit (:func:`ppl_lvm.bridge`).
    - ``exact``: the value given, for models where it is known.

    A rung that a model cannot take stays in the table with the reason. Estimates that agree with each other
    and lie above the bounds are what to hope for; a bound above them is a sign of an error that is too small.

    Parameters
    ----------
    model, data
        As for :func:`ppl_lvm.fit`.
    exact
        The log evidence in nats, where it is known.
    svi, nuts, ais, smc
        Settings of the engines; None: defaults, SVI compiled where it can be, with 10,000 draws.
    num_prior
        Draws of the prior.
    init
        A fit whose params are held, where the model has some; None: those that the SVI fit finds.
    dtype, seed, progress
        As for :func:`ppl_lvm.fit`.

    Raises
    ------
    TypeError, ValueError
        For settings of the wrong kind, or data that the model cannot take.
    """
    _check(exact, svi=(svi, SVI), nuts=(nuts, NUTS), ais=(ais, AIS), smc=(smc, SMC))
    problem = prepare(model, data, dtype=dtype)
    options: dict[str, Any] = {"seed": seed, "dtype": dtype, "progress": progress}
    climb = _Climb(problem.model, data, options, init)
    guide = climb.fit("ELBO", svi or _compiled_svi(problem))
    if guide is not None:
        _bounds(climb, guide)
        if init is None and set(problem.params) - set(problem.model.fixed_params):
            climb.init = guide  # what the others hold is what the guide was trained with
    climb.fit("prior IS", ImportanceSampling(num_samples=num_prior))
    climb.fit("AIS", ais or AIS())
    climb.fit("SMC", smc or SMC())
    chains = climb.fit("bridge", nuts or NUTS())
    if chains is not None:
        climb.add("bridge", lambda: bridge(chains, seed=seed))
    if exact is not None:
        climb.evidence["exact"] = Evidence("exact", float(exact), 0.0)
        climb.seconds["exact"] = math.nan
    return EvidenceLadder(problem.model.describe(), climb.table(), climb.evidence, climb.fits)


class _Climb:
    """The rungs found so far; what refuses leaves its reason."""

    def __init__(self, model: Any, data: Any, options: dict[str, Any], init: Any) -> None:
        self.model, self.data, self.options, self.init = model, data, options, init
        self.evidence: dict[str, Evidence] = {}
        self.fits: dict[str, Fit] = {}
        self.seconds: dict[str, float] = {}
        self.reasons: dict[str, str] = {}

    def fit(self, rung: str, engine: Engine) -> Fit | None:
        """The engine's fit, and its evidence (where it has one) under the rung's name."""
        try:
            found = fit_to_the_end(self.model, self.data, engine, init=self.init, **self.options)
        except ValueError as error:  # in words: the engine's refusal, or a density that is not finite
            self.reasons[rung] = str(error)
            return None
        self.fits[rung] = found
        self.seconds[rung] = float(found.meta["wall_seconds"])
        if found.evidence is not None:
            note = found.evidence.note or ("" if found.status.ok else str(found.status.outcome.value))
            self.evidence[rung] = dataclasses.replace(found.evidence, note=note)
        return found

    def add(self, rung: str, make: Callable[[], Evidence]) -> None:
        """An evidence computed from a fit of the rung; its time comes on top of the fit's."""
        began = time.perf_counter()
        try:
            self.evidence[rung] = make()
        except ValueError as error:
            self.reasons[rung] = str(error)
        self.seconds[rung] = self.seconds.get(rung, 0.0) + time.perf_counter() - began

    def table(self) -> pd.DataFrame:
        import pandas as pd

        rows = {}
        for rung in RUNGS:
            found = self.evidence.get(rung)
            if found is None and rung not in self.reasons:
                continue
            rows[rung] = {
                "nats": found.nats if found else math.nan,
                "std_error": found.std_error if found else math.nan,
                "kind": found.kind if found else "",
                "seconds": self.seconds.get(rung, math.nan),
                "note": note_of(found) if found else self.reasons[rung],
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def _bounds(climb: _Climb, guide: Fit) -> None:
    """ELBO and IWAE bounds from the guide's weights, by groups of them."""
    stats = guide.sample_stats
    own = guide.evidence
    if stats is None or own is None or "log_q" not in stats:
        climb.reasons |= dict.fromkeys(
            ("ELBO", *(f"IWAE_{m}" for m in IWAE)), "the guide has no draws to weigh"
        )
        climb.evidence.pop("ELBO", None)
        return
    own = dataclasses.replace(own, note=climb.evidence["ELBO"].note)
    for m in (1, *IWAE):
        rung = "ELBO" if m == 1 else f"IWAE_{m}"
        climb.seconds[rung] = climb.seconds["ELBO"]
        found = iwae_bound(log_weights(stats), m, own)
        if found is None:
            climb.reasons[rung] = (
                f"{stats['log_q'].size} draws are fewer than two groups of {m}; raise num_draws of svi"
            )
        else:
            climb.evidence[rung] = found


def _compiled_svi(problem: Problem) -> SVI:
    """SVI on JAX where it takes the model, else on Pyro."""
    compiled = SVI(backend="numpyro", num_draws=_DRAWS)
    return compiled if compiled.check(problem) is None else SVI(num_draws=_DRAWS)


def note_of(found: Evidence) -> str:
    given = f"given {', '.join(found.conditional_on)}" if found.conditional_on else ""
    return "; ".join(t for t in (given, found.note) if t)


def _sign(found: Evidence) -> str:
    return {"exact": "= ", "lower_bound": ">=", "upper_bound": "<=", "estimate": "~ "}[found.kind]


def _check(exact: Any, **engines: tuple[Any, type]) -> None:
    if exact is not None and not (isinstance(exact, (int, float, np.number)) and math.isfinite(exact)):
        raise ValueError(f"exact: expected the log evidence in nats or None, got {exact!r}.")
    for name, (given, kind) in engines.items():
        if given is not None and not isinstance(given, kind):
            raise TypeError(f"{name}: expected {kind.__name__}(...) or None, got {given!r}.")


__all__ = ["RUNGS", "EvidenceLadder", "evidence_ladder"]
