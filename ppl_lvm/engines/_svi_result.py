"""From a fitted guide's draws and weights to a Fit: the same on both backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.core import Engine, Evidence, Problem, Status
from ppl_lvm.engines._convergence import LogQ, bound, symmetrised_log_q
from ppl_lvm.result import Fit, chain_dataset


def svi_fit(
    engine: Engine,
    problem: Problem,
    backend: str,
    params: Mapping[str, np.ndarray],
    status: Status,
    losses: list[float],
    weights: np.ndarray,
    *,
    values: Mapping[str, np.ndarray] | None = None,
    log_p: np.ndarray | None = None,
    log_q: np.ndarray | None = None,
    log_q_at: LogQ | None = None,
) -> Fit:
    """``weights`` are log p - log q of the draws, (s,) or (s, n) where every latent is local."""
    from ppl_lvm.engines.svi import ELBO, Renyi

    objective = getattr(engine, "objective", ELBO())  # an engine that fits no bound reports the ELBO
    alpha = objective.alpha if isinstance(objective, Renyi) else None
    note = ""
    draws = stats = None
    if values and log_p is not None and log_q is not None and log_q_at is not None:
        symmetric, note = symmetrised_log_q(problem, values, log_q, log_q_at)
        if weights.ndim == 1:
            weights = log_p - symmetric
        draws = chain_dataset(problem, {k: v[None] for k, v in values.items()}, kind="independent")
        per_draw = {"log_p": log_p[None], "log_q": symmetric[None]}
        stats = chain_dataset(None, per_draw, kind="independent")
    found = bound(weights, problem, alpha=alpha, particles=objective.num_particles)
    evidence = Evidence(found.kind, found.nats, found.std_error, found.conditional_on, note)
    history = {"loss": np.asarray(losses)[None]}
    groups: dict[str, Any] = {
        "optimization": chain_dataset(None, history, kind="optimisation").rename(draw="step")
    }
    return Fit(
        model=problem.model,
        engine=engine,
        backend=backend,
        problem=problem,
        draws=draws,
        params=dict(params),
        evidence=evidence,
        sample_stats=stats,
        groups=groups,
        status=status,
    )
