"""Self-normalised importance sampling with Pareto-smoothed weights (Vehtari et al. 2024, JMLR 25)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.core import Engine, Evidence, Outcome, Problem, Run, Status
from ppl_lvm.engines._checks import (
    backend_or_reason,
    check_choice,
    check_count,
    no_continuous_latents,
    no_observed,
    params_without_values,
    settle_folder,
    unsummable,
)
from ppl_lvm.engines._units import Arrays, Units, units_of
from ppl_lvm.result import Fit, chain_dataset

Array = np.ndarray


@dataclass(frozen=True)
class ImportanceSampling(Engine):
    """Weighted draws of a proposal, resampled to the posterior, and an estimate of the evidence.

    Parameters
    ----------
    num_samples
        Draws of the proposal, and resampled draws in ``fit.posterior``.
    proposal
        ``"prior"``, or a fit of the same model by SVI, Laplace or Pathfinder, whose guide is drawn from.
    backend
        ``"pyro"``, ``"numpyro"`` or ``"auto"``: the proposal's own; for the prior NumPyro where there
        is a twin.
    checkpoint
        A folder, written to after every block of 2000 draws. A run whose folder holds the checkpoint
        of the same settings, program, data and seed goes on from it, to the same bits.
    """

    num_samples: int = 2000
    proposal: Any = "prior"
    backend: str = "auto"
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        check_count("num_samples", self.num_samples, least=25)  # fewer have no tail to smooth
        check_choice("backend", self.backend, ("auto", "pyro", "numpyro"))
        if not (
            self.proposal == "prior" if isinstance(self.proposal, str) else isinstance(self.proposal, Fit)
        ):
            raise TypeError(
                f"proposal: expected 'prior' or a fit by SVI, Laplace or Pathfinder, got {self.proposal!r}."
            )
        settle_folder(self)

    def backend_for(self, problem: Problem) -> str:
        if isinstance(self.proposal, Fit):
            return self.proposal.backend
        if self.backend != "auto":
            return self.backend
        return "numpyro" if problem.model.numpyro is not None else "pyro"

    def check(self, problem: Problem) -> str | None:
        return (
            no_observed("ImportanceSampling", problem)
            or no_continuous_latents("ImportanceSampling", problem)
            or unsummable("ImportanceSampling", problem)
            or self._check_backend(problem)
            or self._check_proposal(problem)
        )

    def _check_backend(self, problem: Problem) -> str | None:
        own = getattr(self.proposal, "backend", self.backend)
        if self.backend not in ("auto", own):
            return f"the proposal was fitted on {own}; use backend='{own}' or 'auto'"
        return backend_or_reason(self.backend if own == "auto" else own, problem)

    def _check_proposal(self, problem: Problem) -> str | None:
        proposal = self.proposal
        if not isinstance(proposal, Fit):
            improper = [s.name for s in problem.latents() if not s.proper]
            return (
                f"the prior of {improper} cannot be drawn from; use a fit by SVI, Laplace or Pathfinder as "
                "proposal"
                if improper
                else None
            )
        has_guide = "log_q" in (proposal.sample_stats or {}) and hasattr(proposal.engine, "guide")
        if proposal.draws is None or not has_guide:
            return (
                f"a fit by {type(proposal.engine).__name__} has no guide whose density its draws could be "
                "weighed with; use one by SVI, Laplace or Pathfinder as proposal"
            )
        sites = {s.name for s in problem.latents(discrete=False)}
        if not sites <= set(proposal.draws.data_vars):
            lacks = sorted(sites - set(proposal.draws.data_vars))
            return f"the proposal is a fit of another model (it lacks {lacks})"
        return None

    def run(self, problem: Problem, run: Run) -> Fit:
        if run.init is None and isinstance(self.proposal, Fit):
            run = dataclasses.replace(run, init=self.proposal)
        params = params_without_values("ImportanceSampling", problem, run)
        if self.backend_for(problem) == "numpyro":
            from ppl_lvm.engines._jax_importance import weigh
        else:
            from ppl_lvm.engines._pyro_importance import weigh
        with units_of(self, problem, run, params) as units:
            values, log_p, log_q, note = weigh(self, problem, run, params, units)
        fit = weighted_fit(self, problem, run, params, values, log_p, log_q, note)
        return dataclasses.replace(fit, status=units.status(fit.status))


def weighted_fit(
    engine: Engine,
    problem: Problem,
    run: Run,
    params: dict[str, np.ndarray],
    values: dict[str, np.ndarray],
    log_p: np.ndarray,
    log_q: np.ndarray,
    note: str,
) -> Fit:
    """Draws of a proposal with their densities, resampled by Pareto-smoothed weights."""
    from ppl_lvm.diagnostics import psis

    log_w = log_p - log_q
    if not np.isfinite(log_w).any():
        raise ValueError(
            f"{type(engine).__name__}: every weight is zero (log density -inf at all draws); use an SVI fit "
            "as proposal."
        )
    log_w = np.where(np.isnan(log_w), -np.inf, log_w)
    smoothed, khat = psis(log_w)
    weights = np.exp(smoothed)
    ess = 1.0 / float((weights**2).sum())
    index = systematic(weights, run.rng(11))
    kept = {k: v[index][None] for k, v in values.items()}
    stats = {
        "log_p": log_p[None],
        "log_q": log_q[None],
        "log_weight": smoothed[None],
        "resampled_index": index[None].astype(np.int64),
    }
    proposal = chain_dataset(problem, {k: v[None] for k, v in values.items()}, kind="weighted")
    return Fit(
        model=problem.model,
        engine=engine,
        backend=engine.backend_for(problem),
        problem=problem,
        draws=chain_dataset(problem, kept, kind="resampled"),
        params=params,
        evidence=_evidence(log_w, problem, params, note),
        sample_stats=chain_dataset(None, stats, kind="resampled"),
        groups={"proposal": proposal},
        status=_status(khat, ess, len(log_w)),
    )


def _evidence(log_w: np.ndarray, problem: Problem, params: dict, note: str) -> Evidence:
    """log mean weight; standard error by the delta method, sd(w) / (mean(w) sqrt(s))."""
    top = log_w.max()
    w = np.exp(log_w - top)
    nats = float(top + math.log(w.mean()))
    error = float(w.std(ddof=1) / (w.mean() * math.sqrt(len(w))))
    return Evidence("estimate", nats, error, (*params, *problem.model.held_sites), note)


BLOCK = 2000  # draws


def draw_in_blocks(num: int, units: Units, draw: Callable[[int, int], tuple]) -> tuple[Arrays, Array, Array]:
    """``draw(block, size)`` -> (values by site, log p, log q), for all blocks of ``num`` draws, joined."""

    def one(i: int) -> dict[str, Any]:
        values, log_p, log_q = draw(i, min(BLOCK, num - i * BLOCK))
        return {**{f"value/{k}": v for k, v in values.items()}, "log_p": log_p, "log_q": log_q}

    found = units.each("block", -(-num // BLOCK), one)
    joined = {k: np.concatenate([f[k] for f in found]) for k in found[0]}
    log_p, log_q = joined.pop("log_p"), joined.pop("log_q")
    return {k.removeprefix("value/"): v for k, v in joined.items()}, log_p, log_q


def stream(first: int, block: int) -> int:
    """The stream of random numbers of a block of draws."""
    return first if block == 0 else 1000 * first + block


def systematic(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Systematic resampling, in random order so that any part of the draws is a fair one."""
    n = len(weights)
    points = (np.arange(n) + rng.uniform()) / n
    index = np.minimum(np.searchsorted(np.cumsum(weights), points), n - 1)
    return rng.permutation(index)


def _status(khat: float, ess: float, size: int) -> Status:
    details = {"khat": khat, "ess": ess}
    threshold = min(1 - 1 / math.log10(size), 0.7)
    good = khat < threshold
    return Status(Outcome.OK if good else Outcome.UNRELIABLE, details)
