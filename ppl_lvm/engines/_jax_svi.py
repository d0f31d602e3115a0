"""SVI on a :class:`Density`: compiled blocks of optimiser steps, particles by vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ppl_lvm.backends._jax_guide import Guide
from ppl_lvm.backends._jax_guides import build_guide, guide_key
from ppl_lvm.backends._jax_surface import JaxSurface
from ppl_lvm.backends._numpyro import cached, density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run, Status
from ppl_lvm.engines._convergence import Watch
from ppl_lvm.engines._jax_start import start_points
from ppl_lvm.engines._jax_weights import guide_functions, is_split
from ppl_lvm.engines._laplace import fit_at
from ppl_lvm.engines._start import starting_values
from ppl_lvm.engines._svi_result import svi_fit
from ppl_lvm.progress import bar
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI


def run_svi(engine: SVI, problem: Problem, run: Run) -> Fit:
    """Optimise, then draw from the guide and weigh the draws."""
    from ppl_lvm.engines.svi import Renyi

    with jax_session(problem.dtype):
        density, data = density_of(problem)
        start = starting_values(problem, run)[0]
        begin = {name: jnp.asarray(param.start) for name, param in density.params.items()}
        point = start_points(problem, run, density, data, begin, 1)[0]
        spec = "mode" if engine.guide == "laplace" else engine.guide
        guide = build_guide(problem, density, spec, start, point)
        params, status, losses = _optimise(engine, problem, run, density, guide, data)
        held = _constrained(density, params.model)
        if engine.guide in ("delta", "laplace"):
            ours = {k: np.asarray(v) for k, v in held.items()}
            surface = JaxSurface(problem, ours, jacobian=engine.guide == "laplace")
            found = np.asarray(params.guide["loc"], dtype=float)
            return fit_at(engine, problem, run, "numpyro", surface, found, ours, status, losses)
        functions = guide_functions(guide_key(problem, engine.guide), density, guide, data, held)
        values, log_p, log_q, local = functions.draw(params.guide, run.word(24), engine.num_draws)
        split = is_split(problem, density, guide) and isinstance(engine.objective, Renyi)
        stored = {k: np.asarray(v) for k, v in {**guide.constrain(params.guide), **held}.items()}
        return svi_fit(
            engine,
            problem,
            "numpyro",
            stored,
            status,
            losses,
            local if split else log_p - log_q,
            values=values,
            log_p=log_p,
            log_q=log_q,
            log_q_at=lambda v: functions.log_q_at(params.guide, v),
        )


class _Trained(NamedTuple):
    """What is optimised: the guide's params as the guide has them, the model's in unconstrained space."""

    guide: Any
    model: Any


def _constrained(density: Density, free: Any) -> dict[str, Any]:
    return {name: density.params[name].constrain(value) for name, value in free.items()}


def _optimise(
    engine: SVI, problem: Problem, run: Run, density: Density, guide: Guide, data: Any
) -> tuple[_Trained, Status, list[float]]:
    steps = engine.steps_for(problem)
    optimiser = optax.chain(
        optax.clip_by_global_norm(engine.clip_norm),
        optax.adam(optax.exponential_decay(engine.learning_rate, steps, engine.learning_rate_decay)),
    )
    free = {name: param.unconstrain(jnp.asarray(param.start)) for name, param in density.params.items()}
    params = _Trained(guide.init(jax.random.key(run.word(21))), free)
    state = optimiser.init(params)
    key = ("svi", density.key, engine, guide_key(problem, engine.guide), problem.batched, problem.num_data)
    block = cached(
        key, lambda: jax.jit(_block(engine, problem, density, guide, optimiser), static_argnums=(4,))
    )
    watch = Watch(engine.window, engine.tolerance)
    converged, random_key = False, jax.random.key(run.word(22))
    with bar(steps, "SVI (NumPyro)", run.progress) as tick:
        done = 0
        while done < steps:
            count = min(engine.window, steps - done)
            before = params
            params, state, losses = block(params, state, jax.random.fold_in(random_key, done), data, count)
            losses = np.asarray(losses)
            if not np.isfinite(losses).all():
                params = before
                step = done + int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
                raise ValueError(
                    f"SVI: the objective became NaN or infinite at step {step}; lower learning_rate (now "
                    f"{engine.learning_rate:g}), pass init=, or check the data's scale."
                )
            watch.add(losses)
            done += count
            converged = watch.check()
            tick(count, f"bound {-losses.mean():.2f} nats")
            if converged and engine.early_stop:
                break
    return params, watch.status(), watch.losses


def _block(
    engine: SVI, problem: Problem, density: Density, guide: Guide, optimiser: Any
) -> Callable[..., Any]:
    loss = _loss(engine, problem, density, guide)

    def block(params: Any, state: Any, key: Any, data: Any, count: int) -> Any:
        def step(carry: Any, key: Any) -> Any:
            params, state = carry
            key_rows, key_draw = jax.random.split(key)
            value, slope = jax.value_and_grad(loss)(params, key_draw, _rows(engine, problem, key_rows, data))
            updates, state = optimiser.update(slope, state, params)
            return (optax.apply_updates(params, updates), state), value

        (params, state), losses = lax.scan(step, (params, state), jax.random.split(key, count))
        return params, state, losses

    return block


def _rows(engine: SVI, problem: Problem, key: Any, data: Any) -> Any:
    """The data of one step: all, or rows drawn without replacement."""
    if engine.batch_size is None:
        return data
    rows = jax.random.choice(key, problem.num_data or 0, (engine.batch_size,), replace=False)
    return {k: v[rows] if k in problem.batched else v for k, v in data.items()}


def _loss(engine: SVI, problem: Problem, density: Density, guide: Guide) -> Callable[..., Any]:
    from ppl_lvm.engines.svi import Renyi

    objective = engine.objective
    scale = 1.0 if engine.batch_size is None else problem.num_data / engine.batch_size  # type: ignore[operator]
    power: Any = 1.0 - objective.alpha if isinstance(objective, Renyi) else None
    all_local = is_split(problem, density, guide)

    def terms(params: Any, key: Any, data: Any) -> tuple[Any, Any]:
        z, (q_rest, q_local) = guide.draw(params.guide, key, data)
        rest, per_datum = density.log_joint(z, data, _constrained(density, params.model))
        return rest - q_rest, _difference(per_datum, q_local)

    def spread(weights: Any) -> Any:
        count = weights.shape[0]
        return (jax.scipy.special.logsumexp(power * weights, axis=0) - jnp.log(count)) / power

    def loss(params: Any, key: Any, data: Any) -> Any:
        keys = jax.random.split(key, objective.num_particles)
        rest, local = jax.vmap(lambda k: terms(params, k, data))(keys)
        if power is None:
            return -(rest + scale * local.sum(-1)).mean()
        if all_local:  # each datum has a bound of its own, and the batch's scale lies outside the logarithm
            return -(rest[0] + scale * spread(local).sum())
        return -spread(rest + local.sum(-1))

    return loss


def _difference(per_datum: Any, q_local: Any) -> Any:
    """Per-datum log weights; (1,) of zero where the density cannot split."""
    if per_datum is None:
        return jnp.zeros(1)
    return per_datum if q_local is None else per_datum - q_local
