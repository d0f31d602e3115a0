"""Bridge sampling: the evidence from draws of the posterior (Meng and Wong 1996, *Statistica Sinica* 6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ppl_lvm.core import Evidence, Problem
from ppl_lvm.engines._checks import check_count
from ppl_lvm.evidence._copies import Copy, copies
from ppl_lvm.evidence._optimal import solve
from ppl_lvm.result import Fit, flat_draws

_AGREE = 1.05  # R-hat beyond which chains disagree


def bridge(fit: Fit, *, num_proposals: int | None = None, seed: int = 0) -> Evidence:
    r"""Estimate the log evidence from a fit's chains by bridge sampling.

    A normal is fitted, in unconstrained space, to the first half of every chain; the second halves and
    independent draws of the normal give the estimate. The relative error is that of Fruehwirth-Schnatter
    (2004, *Econometrics Journal* 7),

    .. math:: \mathrm{RE}^2 = \frac{\mathrm{Var}_q f_1}{N_2\, (E_q f_1)^2}
              + \frac{\mathrm{Var}_{post} f_2}{N_{eff}\, (E_{post} f_2)^2},

    f_1 = p / (s_1 p + s_2 q), f_2 = q / (s_1 p + s_2 q), with the effective number of draws N_eff of the
    sequence f_2 along the chains (arviz-stats); it is the standard error of the log.

    Where the model's labels are exchangeable, or its factors may change signs and order, the posterior has
    as many equal modes as there are copies of a point, and chains may have seen one of them. The fit's draws
    are settled into one copy; the normal is averaged over all copies, and by symmetry draws from all of them
    would give the same terms. Factor models whose sampled coordinates admit no turn (triangular loadings)
    need none of this.

    Parameters
    ----------
    fit
        A NUTS fit, with its data.
    num_proposals
        Draws of the normal; None: as many as are taken of the posterior, at least 2000.
    seed
        Of the normal's draws.

    Returns
    -------
    Evidence
        Of kind "estimate", conditional on params and sites that are held; the note says where chains
        disagree.

    Raises
    ------
    TypeError, ValueError
        For a fit without chains or data, too few draws, improper priors, more than 120 equal modes, or
        rotations that no finite average covers, or a program that cannot be translated.
    """
    from ppl_lvm.backends.session import jax_session
    from ppl_lvm.evidence._jax_density import Points

    problem = _checked(fit)
    if num_proposals is not None:
        check_count("num_proposals", num_proposals, least=100)
    values = _latent_values(fit, problem)
    around = copies(problem, values)
    params = {n: np.asarray(fit.params[n]) for n in problem.params if n in fit.params}
    with jax_session(problem.dtype):
        points = Points(problem, {**params, **problem.model.fixed_params})
        first, second = _halves(fit, points.free(values))
        normal = _Normal(first.reshape(-1, first.shape[-1]))
        rest = second.reshape(-1, second.shape[-1])
        size = num_proposals or max(len(rest), 2000)
        drawn = normal.draw(size, np.random.default_rng([seed, 51]))
        log_q = _averaged(points, around, normal)
        ratio_post = (points.log_p(rest) - log_q(rest)).reshape(second.shape[:2])
        ratio_drawn = points.log_p(drawn) - log_q(drawn)
    found = solve(ratio_post, np.where(np.isnan(ratio_drawn), -np.inf, ratio_drawn))
    given = (*problem.params, *problem.model.held_sites)
    return Evidence("estimate", found.log_r, found.std_error, given, _note(fit, problem, second))


class _Normal:
    """The normal with the mean and covariance of points (s, size)."""

    def __init__(self, points: np.ndarray) -> None:
        self.mean = points.mean(0)
        centred = points - self.mean
        cov = centred.T @ centred / (len(points) - 1)
        try:
            self.tril = np.linalg.cholesky(cov)
        except np.linalg.LinAlgError:
            raise ValueError(
                "fit: the draws do not vary in some direction of unconstrained space, so that no normal can "
                "be fitted to them; look at fit.diagnose(), and raise num_samples."
            ) from None

    def draw(self, num: int, rng: np.random.Generator) -> np.ndarray:
        return self.mean + rng.standard_normal((num, len(self.mean))) @ self.tril.T

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        from scipy.linalg import solve_triangular

        scaled = solve_triangular(self.tril, (points - self.mean).T, lower=True)
        constant = np.log(np.diag(self.tril)).sum() + 0.5 * len(self.mean) * math.log(2 * math.pi)
        out: np.ndarray = -0.5 * (scaled**2).sum(0) - constant
        return out


def _averaged(points: Any, around: list[Copy], normal: _Normal) -> Callable[[np.ndarray], np.ndarray]:
    """log of the normal's density averaged over all copies of a point.

    Copies preserve volume among the constrained values, so that the densities are averaged there. The
    average, like p, is the same at all copies of a point: draws of one copy give the terms of draws of all.
    """

    def log_q(free: np.ndarray) -> np.ndarray:
        if len(around) == 1:
            return normal.log_prob(free)
        values, jacobian = points.values(free), points.log_jacobian(free)
        terms = [normal.log_prob(free) - jacobian]
        for copy in around[1:]:
            other = points.free(copy(values))
            terms.append(normal.log_prob(other) - points.log_jacobian(other))
        stacked = np.stack(terms)
        out: np.ndarray = np.logaddexp.reduce(stacked, axis=0) - math.log(len(terms)) + jacobian
        return out

    return log_q


def _checked(fit: Any) -> Problem:
    """The fit's problem, or why it has no bridge."""
    if not isinstance(fit, Fit):
        raise TypeError(f"fit: expected a NUTS fit, got {type(fit).__name__}.")
    engine = type(fit.engine).__name__
    kind = fit.posterior.attrs.get("draws")  # raises for a point
    if kind != "chain":
        raise ValueError(
            f"fit: a bridge starts from chains, and {engine}'s draws are {kind}; fit.evidence has its own "
            "value. Fit with NUTS for a bridge."
        )
    if fit.problem is None:
        raise ValueError(
            "fit: it was loaded without its data, so that its density cannot be evaluated; save it with "
            "fit.save(path, data=True), or fit again."
        )
    improper = [s.name for s in fit.problem.latents() if not s.proper]
    if improper:
        raise ValueError(
            f"fit: the prior of {improper} is improper, so that there is no evidence; give it a proper prior."
        )
    return fit.problem


def _latent_values(fit: Fit, problem: Problem) -> dict[str, np.ndarray]:
    names = [s.name for s in problem.latents(discrete=False)]
    lacks = [n for n in names if n not in fit.posterior]
    if lacks:
        raise ValueError(
            f"fit: the draws lack {lacks}, which the density needs; a model that sums or integrates them out "
            "(collapsed=True), or keep_latents=True, has a bridge."
        )
    flat = flat_draws(fit.posterior[names])
    return {n: flat[n] for n in names}


def _halves(fit: Fit, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (chain, draw, size) of the first and of the second halves of the chains."""
    shape = (fit.posterior.sizes["chain"], fit.posterior.sizes["draw"], free.shape[1])
    if not np.isfinite(free).all():
        raise ValueError(
            "fit: some draws lie on the boundary of a support after rounding, so that they have no place in "
            "unconstrained space; fit with dtype='float64', or a prior that keeps away from the boundary."
        )
    half = shape[1] // 2
    if half * shape[0] < 2 * shape[2] + 2 or half < 4:
        raise ValueError(
            f"fit: {shape[0] * shape[1]} draws are too few to fit a normal in {shape[2]} dimensions to "
            f"half of them; raise num_samples to at least {max(8, 4 * shape[2] // shape[0] + 5)}."
        )
    chains = free.reshape(shape)
    return chains[:, :half], chains[:, half:]


def _note(fit: Fit, problem: Problem, second: np.ndarray) -> str:
    """What may be wrong: chains that disagree, divergences, unequal modes."""
    from arviz_stats.base import array_stats

    notes = [problem.model.label_note] if problem.model.label_note else []
    if len(second) > 1:
        worst = float(np.nanmax(np.asarray(array_stats.rhat(second, chain_axis=0, draw_axis=1))))
        if worst > _AGREE:
            notes.append(f"chains disagree (R-hat {worst:.2f}): a mode may be missed or miscounted")
    divergences = int(fit.status.details.get("divergences", 0))
    if divergences:
        notes.append(f"{divergences} transitions diverged: a region may be missed")
    return "; ".join(notes)


__all__ = ["bridge"]
