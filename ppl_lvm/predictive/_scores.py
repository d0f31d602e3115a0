"""Log predictive densities of rows, with what their draws are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ppl_lvm.core import Problem
from ppl_lvm.diagnostics import moments, quantities
from ppl_lvm.predictive._inputs import global_values, params_of, problem_at
from ppl_lvm.result import Fit


@dataclass(frozen=True)
class LogPredictive:
    """Pointwise log predictive densities, nats.

    ``pointwise`` (n,) is the log of the mean density over draws, ``std_error`` (n,) its Monte Carlo
    error by the delta method. ``kind``: "estimate" (draws), "plug_in" (a point's density) or "lower_bound"
    (an IWAE bound of a model with networks).
    ``total_std_error`` accounts for the draws that all rows share.
    """

    pointwise: np.ndarray
    std_error: np.ndarray
    total: float
    total_std_error: float
    kind: Literal["estimate", "plug_in", "lower_bound"]


def log_predictive(fit: Fit, data: Any = None, *, num_particles: int = 5000) -> LogPredictive:
    """log p(x_i | training data) for each row of ``data`` (the training rows if None).

    ``num_particles`` are those of the IWAE bound of an amortised model.
    """
    from scipy.special import logsumexp

    from ppl_lvm import amortised

    if amortised.is_amortised(fit):
        return amortised.log_predictive(fit, data, num_particles)
    problem = problem_at(fit, data)
    terms, _ = pointwise_terms(fit, problem)
    s = len(terms)
    values = logsumexp(terms, axis=0) - math.log(s)
    if fit.is_point:
        zero = np.zeros_like(values)
        return LogPredictive(values, zero, float(values.sum()), 0.0, "plug_in")
    ratio = np.exp(terms - values)  # (s, n), mean 1
    size = effective_size(fit, s)
    error = ratio.std(0, ddof=1) / math.sqrt(size)
    total_error = float((ratio - 1).sum(1).std(ddof=1) / math.sqrt(size))
    return LogPredictive(values, error, float(values.sum()), total_error, "estimate")


def effective_size(fit: Fit, s: int) -> float:
    """Number of independent draws that a fit's s draws are worth (by log density, or the weights)."""
    kind = fit.draws.attrs.get("draws") if fit.draws is not None else None
    if kind == "resampled" and fit.sample_stats is not None and "run" in fit.sample_stats:
        return min(float(s), _runs_worth(fit))
    if kind == "resampled" and fit.sample_stats is not None:
        return 1.0 / float(np.exp(2 * fit.sample_stats["log_weight"].values).sum())
    if kind == "chain" and fit.sample_stats is not None and "lp" in fit.sample_stats:
        from arviz_stats.base import array_stats

        ess = float(array_stats.ess(fit.sample_stats["lp"].values, chain_axis=0, draw_axis=1, method="mean"))
        return min(float(s), max(ess, 1.0)) if math.isfinite(ess) else float(s)
    return float(s)


def _runs_worth(fit: Fit) -> float:
    """The smallest effective size of a quantity, where errors come from between independent runs."""
    found = moments(fit, quantities(fit, invariants=False))
    sizes = np.concatenate([np.ravel(f["ess_bulk"]) for f in found.values()])
    sizes = sizes[np.isfinite(sizes)]
    return max(float(sizes.min()), 1.0) if sizes.size else 1.0


def pointwise_terms(fit: Fit, problem: Problem) -> tuple[np.ndarray, str]:
    """log p(x_i | globals) for each draw and row, (s, n), local latents marginalised; and how.

    "exact" where the model has a closed form or only discrete local latents; else "estimate": the
    local continuous latents are integrated by importance sampling (:mod:`ppl_lvm.marginal`).
    """
    exact = getattr(problem.model.exact, "log_likelihood", None)
    values = global_values(fit)
    if exact is not None:
        return np.asarray(exact(values, problem.arguments)), "exact"
    if problem.data_plate is None:
        raise ValueError(
            f"{fit.model.describe()} has no plate over data, so there is no density per datum; put the "
            "observed sites in a pyro.plate, or name it in Model(data_plate=...)."
        )
    from ppl_lvm.backends._pyro_marginal import per_datum_terms
    from ppl_lvm.backends.session import torch_session

    if problem is not fit.problem:  # other rows have local latents of their own
        values = {k: v for k, v in values.items() if k in problem.sites and not problem.sites[k].local}
    with torch_session(int(fit.meta.get("seed", 0)), problem.dtype):
        return per_datum_terms(problem, values, params_of(fit))
