"""Pathfinder's paths by BlackJAX, in one compiled program, and draws of the mixture of their Gaussians."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.optimizers.lbfgs import bfgs_sample
from blackjax.vi import pathfinder

from ppl_lvm.backends._jax_guides import build_guide
from ppl_lvm.backends._numpyro import cached, density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._convergence import symmetrised_log_q
from ppl_lvm.engines._jax_start import start_points
from ppl_lvm.engines._jax_weights import guide_functions
from ppl_lvm.engines.importance import weighted_fit
from ppl_lvm.progress import bar
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    from ppl_lvm.engines.pathfinder import Pathfinder


def paths_and_draws(engine: Pathfinder, problem: Problem, run: Run, params: dict[str, np.ndarray]) -> Fit:
    """The whole run; ``fit.params`` hold the Gaussians of the paths that ended well."""
    with jax_session(problem.dtype):
        density, data = density_of(problem)
        held = {k: jnp.asarray(v) for k, v in params.items()}
        points = start_points(problem, run, density, data, held, engine.num_paths)
        keys = jax.random.split(jax.random.key(run.word(31)), engine.num_paths)
        settings = (engine.max_iter, engine.history, engine.num_elbo_draws)
        follow = cached(("pathfinder", density.key, settings), lambda: _compile(engine, density))
        with bar(engine.num_paths, "Pathfinder", run.progress) as tick:
            found = [np.asarray(v) for v in follow(points, keys, data, held)]
            tick(engine.num_paths)
        gaussians, elbo = _usable(*found)
        guide = build_guide(problem, density, "pathfinder", {}, points[0])
        functions = guide_functions("pathfinder", density, guide, data, held)
        own = {k: jnp.asarray(v, points.dtype) for k, v in gaussians.items()}
        values, log_p, log_q, _ = functions.draw(own, run.word(24), engine.num_samples)
        log_q, note = symmetrised_log_q(problem, values, log_q, lambda v: functions.log_q_at(own, v))
    fit = weighted_fit(engine, problem, run, params, values, log_p, log_q, note)
    details = {**fit.status.details, "paths": float(len(elbo)), "best_elbo": float(elbo.max())}
    stored = {**{k: np.asarray(v) for k, v in own.items()}, **params}
    return dataclasses.replace(fit, params=stored, status=dataclasses.replace(fit.status, details=details))


def _compile(engine: Pathfinder, density: Density) -> Callable[..., Any]:
    def follow(point: Any, key: Any, data: Any, held: Any) -> Any:
        def log_p(flat: Any) -> Any:
            return density.total(density.unflatten(flat), data, held)

        # BlackJAX centres its own draws at position + inverse @ grad_position, but the gradient is that of
        # minus the log density, so that a Newton step goes the other way: its ELBOs are not used.
        _, info = pathfinder.approximate(
            key, log_p, point, num_samples=1, maxiter=engine.max_iter, maxcor=engine.history
        )
        path = info.path

        def elbo(step: Any, key: Any) -> Any:
            draws, log_q = bfgs_sample(
                key,
                engine.num_elbo_draws,
                step.position,
                -step.grad_position,
                step.alpha,
                step.beta,
                step.gamma,
            )
            return (jax.vmap(log_p)(draws) - log_q).mean()

        elbos = jax.vmap(elbo)(path, jax.random.split(key, len(path.elbo)))
        elbos = jnp.where(jnp.isfinite(path.elbo) & jnp.isfinite(elbos), elbos, -jnp.inf)
        best = jax.tree_util.tree_map(lambda v: v[jnp.argmax(elbos)], path)
        inverse = jnp.diag(best.alpha) + best.beta @ best.gamma @ best.beta.T
        loc = best.position - inverse @ best.grad_position
        return loc, jnp.linalg.cholesky((inverse + inverse.T) / 2), elbos.max()

    return jax.jit(jax.vmap(follow, in_axes=(0, 0, None, None)))


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
