"""Pathfinder: paths of SciPy's L-BFGS, the Gaussians along them, and draws of the mixture of the best ones.

SciPy searches, since a line search compiled with the density (BlackJAX's, by optax) may take a thousand
evaluations at every step where the density is not finite ahead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.optimizers.lbfgs import bfgs_sample, lbfgs_inverse_hessian_factors, lbfgs_recover_alpha
from jax import lax

from ppl_lvm.backends._jax_guides import build_guide
from ppl_lvm.backends._jax_surface import JaxSurface
from ppl_lvm.backends._numpyro import cached
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._convergence import symmetrised_log_q
from ppl_lvm.engines._jax_start import start_points
from ppl_lvm.engines._jax_weights import guide_functions
from ppl_lvm.engines._units import Units
from ppl_lvm.engines.importance import weighted_fit
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    from ppl_lvm.engines.pathfinder import Pathfinder


Slope = Callable[[np.ndarray], tuple[float, np.ndarray]]


class Path(NamedTuple):
    """Points (L + 1, d) of a search, gradients of the log density there, and the number of steps taken.

    Beyond the steps that were taken, the last point is repeated."""

    points: np.ndarray
    slopes: np.ndarray
    steps: int


def paths_and_draws(
    engine: Pathfinder, problem: Problem, run: Run, params: dict[str, np.ndarray], units: Units
) -> Fit:
    """The whole run; ``fit.params`` hold the Gaussians of the paths that ended well."""
    with jax_session(problem.dtype):
        surface = JaxSurface(problem, params, jacobian=True)
        density, data, held = surface.density, surface.data, surface.held
        points = start_points(problem, run, density, data, held, engine.num_paths)
        keys = jax.random.split(jax.random.key(run.word(31)), engine.num_paths)
        settings = (engine.max_iter, engine.history, engine.num_elbo_draws)
        along = cached(("pathfinder", density.key, settings), lambda: _compile(engine, density))

        def one_path(i: int) -> dict[str, Any]:
            start = np.asarray(points[i], float)
            path = follow(surface.value_and_gradient, start, engine.max_iter, engine.history)
            searched = (jnp.asarray(v, points.dtype) for v in path[:2])
            ends = along(*searched, path.steps, keys[i], data, held)
            return {**dict(zip(("loc", "tril", "elbo"), ends, strict=True)), "steps": path.steps}

        found = units.each("path", engine.num_paths, one_path)
        steps = sum(int(f["steps"]) for f in found)
        gaussians, elbo = _usable(*(np.stack([f[k] for f in found]) for k in ("loc", "tril", "elbo")))
        guide = build_guide(problem, density, "pathfinder", {}, points[0])
        functions = guide_functions("pathfinder", density, guide, data, held)
        own = {k: jnp.asarray(v, points.dtype) for k, v in gaussians.items()}
        values, log_p, log_q, _ = functions.draw(own, run.word(24), engine.num_samples)
        log_q, note = symmetrised_log_q(problem, values, log_q, lambda v: functions.log_q_at(own, v))
    fit = weighted_fit(engine, problem, run, params, values, log_p, log_q, note)
    paths = {"paths": float(len(elbo)), "path_steps": float(steps), "best_elbo": float(elbo.max())}
    stored = {**{k: np.asarray(v) for k, v in own.items()}, **params}
    status = dataclasses.replace(fit.status, details={**fit.status.details, **paths})
    return dataclasses.replace(fit, params=stored, status=units.status(status))


def follow(value_and_gradient: Slope, start: np.ndarray, max_iter: int, history: int) -> Path:
    """L-BFGS (Byrd et al. 1995, by SciPy) uphill from a point (d,)."""
    from scipy.optimize import minimize

    seen: dict[bytes, np.ndarray] = {}

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = value_and_gradient(flat)
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return np.inf, np.zeros_like(flat)  # the line search steps back
        seen[flat.tobytes()] = slope
        return -value, -slope

    def keep(flat: np.ndarray) -> None:
        slope = seen.get(flat.tobytes())
        slopes.append(value_and_gradient(flat)[1] if slope is None else slope)
        points.append(flat.copy())
        seen.clear()

    points, slopes = [start], [value_and_gradient(start)[1]]
    minimize(
        loss, start, jac=True, method="L-BFGS-B", callback=keep,
        options={"maxiter": max_iter, "maxcor": history, "ftol": 1e-9, "gtol": 1e-6, "maxfun": 20 * max_iter},
    )  # fmt: skip
    steps, more = len(points) - 1, max_iter + 1 - len(points)
    return Path(np.stack(points + points[-1:] * more), np.stack(slopes + slopes[-1:] * more), steps)


def _compile(engine: Pathfinder, density: Density) -> Callable[..., Any]:
    """A path's points and slopes -> (mean (d,), Cholesky factor (d, d), ELBO) of its best Gaussian."""

    def along(points: Any, slopes: Any, steps: Any, key: Any, data: Any, held: Any) -> Any:
        def log_p(flat: Any) -> Any:
            return density.total(density.unflatten(flat), data, held)

        diagonals, moves, turns = _history(points, slopes, engine.history)

        def gaussian(i: Any) -> tuple[Any, ...]:
            window = i + jnp.arange(engine.history)
            factors = lbfgs_inverse_hessian_factors(moves[window].T, turns[window].T, diagonals[i])
            return points[i], slopes[i], diagonals[i], *factors

        def elbo(i: Any) -> Any:
            draws, log_q = bfgs_sample(jax.random.fold_in(key, i), engine.num_elbo_draws, *gaussian(i))
            return (jax.vmap(log_p)(draws) - log_q).mean()

        index = jnp.arange(len(points))
        elbos = lax.map(elbo, index)
        elbos = jnp.where(jnp.isfinite(elbos) & (index <= steps), elbos, -jnp.inf)
        point, slope, diagonal, beta, gamma = gaussian(jnp.argmax(elbos))
        inverse = jnp.diag(diagonal) + beta @ gamma @ beta.T
        return point + inverse @ slope, jnp.linalg.cholesky((inverse + inverse.T) / 2), elbos.max()

    return jax.jit(along)


def _history(points: Any, slopes: Any, length: int) -> tuple[Any, Any, Any]:
    """Diagonals (L + 1, d) of the inverse Hessians along a path, and its moves and turns of the gradient with
    ``length`` rows of zeros before them; those without positive curvature are zeros (algorithm 3)."""
    moves, turns = jnp.diff(points, axis=0), -jnp.diff(slopes, axis=0)

    def step(diagonal: Any, both: Any) -> tuple[Any, Any]:
        diagonal, used = lbfgs_recover_alpha(diagonal, *both)
        return diagonal, (diagonal, used)

    first = jnp.ones_like(points[0])
    _, (diagonals, used) = lax.scan(step, first, (moves, turns))
    moves, turns = (jnp.pad(jnp.where(used, v, 0), ((length, 0), (0, 0))) for v in (moves, turns))
    return jnp.concatenate([first[None], diagonals]), moves, turns


def _usable(loc: np.ndarray, tril: np.ndarray, elbo: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The Gaussians of paths that ended with finite numbers.

    Raises
    ------
    ValueError
        If there are none.
    """
    fine = np.isfinite(loc).all(-1) & np.isfinite(tril).all((-1, -2)) & np.isfinite(elbo)
    if not fine.any():
        raise ValueError(
            "Pathfinder: no path ended at a finite ELBO; pass init= with values that the data allow, raise "
            "max_iter or num_paths, or use SVI or NUTS."
        )
    return {"loc": loc[fine], "tril": tril[fine]}, elbo[fine]
