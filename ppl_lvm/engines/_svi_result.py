"""From a fitted guide's draws and weights to a Fit: the same on both backends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ppl_lvm.core import Engine, Evidence, Problem, Status
from ppl_lvm.engines._convergence import LogQ, bound, symmetrised_log_q
from ppl_lvm.result import Fit, chain_dataset


class Trained(NamedTuple):
    """An optimisation that has ended; ``params`` as they are stored."""

    engine: Engine
    problem: Problem
    backend: str
    params: Mapping[str, np.ndarray]
    status: Status
    losses: list[float]


class Drawn(NamedTuple):
    """Values by site (s, ...) with log q (s,), and log p of the first of them (m <= s,)."""

    values: Mapping[str, np.ndarray]
    log_p: np.ndarray
    log_q: np.ndarray
    log_q_at: LogQ


def svi_fit_in_blocks(
    trained: Trained,
    drawn: Drawn,
) -> Fit:
    """The fit whose draws were weighed in blocks of rows.

    Where that was done for some of the draws only, the fit has no weights, and its evidence is the mean over
    those draws at all data, with its error.
    """
    problem, m, num = trained.problem, len(drawn.log_p), len(drawn.log_q)
    some = drawn._replace(values={k: v[:m] for k, v in drawn.values.items()}, log_q=drawn.log_q[:m])
    fit = svi_fit(trained, some.log_p - some.log_q, some)
    if m == num or fit.evidence is None:
        return fit
    notes = [fit.evidence.note, f"from {m} of {num} draws, at all {problem.num_data} data"]
    evidence = dataclasses.replace(fit.evidence, note="; ".join(n for n in notes if n))
    draws = chain_dataset(problem, {k: v[None] for k, v in drawn.values.items()}, kind="independent")
    return dataclasses.replace(fit, draws=draws, sample_stats=None, evidence=evidence)


def svi_fit_in_passes(
    trained: Trained,
    bounds: np.ndarray,
    values: Mapping[str, np.ndarray],
) -> Fit:
    """The fit whose evidence is the mean of ``bounds``, each the objective over all data in batches.

    ``values`` are draws of the latents outside the data plate, (s, ...) by site; those inside it, a value per
    datum and draw, are left out.
    """
    problem = trained.problem
    alpha = getattr(getattr(trained.engine, "objective", None), "alpha", None)
    found = bound(bounds, problem, alpha=None, particles=1)
    if alpha is not None and not 0 <= alpha < 1:
        found = dataclasses.replace(found, kind="estimate")
    draws = chain_dataset(problem, {k: v[None] for k, v in values.items()}, kind="independent")
    return _assembled(trained, found, draws if values else None, None)


def run_passes(
    problem: Problem, num: int, batches: Callable[[], Iterable[Any]], loss: Callable[[int, int, Any], float]
) -> np.ndarray:
    """The objective over all data, ``num`` times; ``loss(i, rows, batch)``: the negative bound from a batch.

    Each datum is in one batch of a pass, so that the sum of the batches' shares is unbiased.
    """
    totals, number = np.zeros(num), 0
    for i in range(num):
        for batch in batches():
            rows = len(batch[problem.batched[0]])
            totals[i] -= loss(number, rows, batch) * rows / (problem.num_data or 0)
            number += 1
    return totals


def svi_fit(
    trained: Trained,
    weights: np.ndarray,
    drawn: Drawn | None = None,
) -> Fit:
    """``weights`` are log p - log q of the draws, (s,) or (s, n) where every latent is local."""
    from ppl_lvm.engines.svi import ELBO, Renyi

    problem = trained.problem
    objective = getattr(trained.engine, "objective", ELBO())  # an engine that fits no bound reports the ELBO
    alpha = objective.alpha if isinstance(objective, Renyi) else None
    note = ""
    draws = stats = None
    if drawn is not None and drawn.values:
        symmetric, note = symmetrised_log_q(problem, drawn.values, drawn.log_q, drawn.log_q_at)
        if weights.ndim == 1:
            weights = drawn.log_p - symmetric
        draws = chain_dataset(problem, {k: v[None] for k, v in drawn.values.items()}, kind="independent")
        per_draw = {"log_p": drawn.log_p[None], "log_q": symmetric[None]}
        stats = chain_dataset(None, per_draw, kind="independent")
    found = bound(weights, problem, alpha=alpha, particles=objective.num_particles)
    evidence = Evidence(found.kind, found.nats, found.std_error, found.conditional_on, note)
    return _assembled(trained, evidence, draws, stats)


def _assembled(
    trained: Trained,
    evidence: Evidence,
    draws: Any,
    stats: Any,
) -> Fit:
    history = {"loss": np.asarray(trained.losses)[None]}
    groups: dict[str, Any] = {
        "optimization": chain_dataset(None, history, kind="optimisation").rename(draw="step")
    }
    return Fit(
        model=trained.problem.model,
        engine=trained.engine,
        backend=trained.backend,
        problem=trained.problem,
        draws=draws,
        params=dict(trained.params),
        evidence=evidence,
        sample_stats=stats,
        groups=groups,
        status=trained.status,
    )
