"""An epoch as one compiled scan: optimiser steps of an amortised NumPyro model and guide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from ppl_lvm.backends._numpyro import arrays_of, cached, signature
from ppl_lvm.backends._numpyro_amortised import AmortisedPrograms, programs_of
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._epochs import Arrays, starting_params
from ppl_lvm.engines._interrupt import Interrupt
from ppl_lvm.engines._jax_devices import ROW, copied, mesh_of, placed, rows_split
from ppl_lvm.engines._jax_objectives import objective_of, parts_of

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI


class JaxTrainer:
    """See :class:`ppl_lvm.engines._epochs.Trainer`."""

    def __init__(self, engine: SVI, problem: Problem, run: Run) -> None:
        self.engine, self.programs = engine, programs_of(problem)
        self.data = arrays_of(problem.arguments)
        self.grey = {
            k: jnp.asarray(v, problem.dtype) for k, v in problem.model.resampled(problem.data).items()
        }
        self.fixed = {k: jnp.asarray(v) for k, v in problem.model.fixed_params.items()}
        specs = {n: p for n, p in self.programs.params.items() if n not in self.fixed}
        start = starting_params(problem, run, {n: p.start for n, p in specs.items()})
        dtype = jnp.dtype(problem.dtype)
        self.free = {n: specs[n].unconstrain(jnp.asarray(v, dtype)) for n, v in start.items()}
        self.state = optax.scale_by_adam().init(self.free)
        self.batched = problem.batched
        self.mesh = mesh_of(engine.num_devices, ROW)
        self.data, self.grey, self.fixed = self._on_each((self.data, self.grey, self.fixed))
        self.free, self.state = self._on_each((self.free, self.state))

    def _on_each(self, tree: Any) -> Any:
        """The whole of it on every device that shares the rows of a step."""
        return tree if self.mesh is None else placed(tree, copied(self.mesh))

    def epoch(
        self, seed: int, order: np.ndarray, rates: np.ndarray, betas: np.ndarray, stop: Interrupt
    ) -> np.ndarray:
        del stop  # a compiled epoch is not interrupted; what was asked meanwhile is seen after it
        dtype = next(iter(self.free.values())).dtype
        plan = (jnp.asarray(order), jnp.asarray(rates, dtype), jnp.asarray(betas, dtype))
        run = self._compiled(plan)
        self.free, self.state, parts = run(
            self.free, self.state, jax.random.key(seed), self.data, self.grey, self.fixed, plan
        )
        return np.asarray(parts)

    def _compiled(self, plan: Any) -> Callable[..., Any]:
        e = self.engine
        settings = (e.objective, e.clip_norm, self.mesh)
        arguments = (self.free, self.data, self.grey, self.fixed, plan)
        key = ("epoch", self.programs.key, settings, self.batched, signature(arguments))
        layout = None if self.mesh is None else copied(self.mesh)
        epoch = _epoch(e, self.programs, self.batched, self.mesh)
        return cached(key, lambda: jax.jit(epoch, donate_argnums=(0, 1), out_shardings=layout))

    def validate(self, rows: np.ndarray, seed: int) -> np.ndarray:
        size = min(int(self.engine.batch_size or len(rows)), len(rows))
        blocks = -(-len(rows) // size)
        padded = np.resize(rows, blocks * size).reshape(blocks, size)
        key = (
            "validate",
            self.programs.key,
            self.engine.objective,
            self.batched,
            signature((self.data, padded)),
        )
        run = cached(key, lambda: jax.jit(_validate(self.engine, self.programs, self.batched)))
        found = run(self.free, jax.random.key(seed), self.data, self.fixed, jnp.asarray(padded))
        return np.asarray(found).reshape(-1)[: len(rows)]

    def arrays(self) -> Arrays:
        state = {f"mu/{n}": v for n, v in self.state.mu.items()}
        state |= {f"nu/{n}": v for n, v in self.state.nu.items()}
        return {
            **{f"free/{n}": np.asarray(v) for n, v in self.free.items()},
            **{n: np.asarray(v) for n, v in state.items()},
            "count": np.asarray(self.state.count),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        def part(prefix: str) -> dict[str, Any]:
            return {n: jnp.asarray(arrays[f"{prefix}/{n}"]) for n in self.free}

        state = self.state._replace(count=jnp.asarray(arrays["count"]), mu=part("mu"), nu=part("nu"))
        self.free, self.state = self._on_each((part("free"), state))

    def params(self) -> Arrays:
        return {n: np.asarray(v) for n, v in constrained(self.programs, self.free).items()}


def constrained(programs: AmortisedPrograms, free: Mapping[str, Any]) -> dict[str, Any]:
    return {n: programs.params[n].constrain(v) for n, v in free.items()}


def _rows(data: Any, batched: tuple[str, ...], rows: Any) -> dict[str, Any]:
    return {k: v[rows] if k in batched else v for k, v in data.items()}


def _epoch(
    engine: SVI, programs: AmortisedPrograms, batched: tuple[str, ...], mesh: Mesh | None
) -> Callable[..., Any]:
    adam = optax.scale_by_adam()
    objective = objective_of(engine.objective, programs)

    def epoch(free: Any, state: Any, key: Any, data: Any, grey: Any, fixed: Any, plan: Any) -> Any:
        # bits for many pixels: the hardware's own generator is several times as fast as the default one
        pixels = jax.random.wrap_key_data(jnp.tile(jax.random.key_data(key), 2), impl="rbg")

        def step(carry: Any, inputs: Any) -> Any:
            free, state = carry
            i, rows, rate, beta = inputs
            batch = _rows(data, batched, rows)
            for j, (name, probability) in enumerate(sorted(grey.items())):
                drawn = jax.random.fold_in(jax.random.fold_in(pixels, i), j)
                batch[name] = jax.random.bernoulli(drawn, probability[rows]).astype(probability.dtype)
            batch = rows_split(batch, batched, mesh)
            (_, parts), slope = objective(free, fixed, jax.random.fold_in(key, i), batch, beta)
            if engine.clip_norm is not None:
                norm = optax.global_norm(slope)
                factor = jnp.minimum(1.0, engine.clip_norm / jnp.maximum(norm, 1e-12))
                slope = jax.tree_util.tree_map(lambda g: g * factor, slope)
            updates, state = adam.update(slope, state)
            free = jax.tree_util.tree_map(lambda p, u: p - rate * u, free, updates)
            return (free, state), parts

        order, rates, betas = plan
        inputs = (jnp.arange(len(order)), order, rates, betas)
        (free, state), parts = lax.scan(step, (free, state), inputs)
        return free, state, parts

    return epoch


def _validate(engine: SVI, programs: AmortisedPrograms, batched: tuple[str, ...]) -> Callable[..., Any]:
    objective = engine.objective

    def validate(free: Any, key: Any, data: Any, fixed: Any, blocks: Any) -> Any:
        params = {**constrained(programs, free), **fixed}

        def one(inputs: Any) -> Any:
            i, rows = inputs
            batch = _rows(data, batched, rows)
            terms = programs.terms(params, jax.random.fold_in(key, i), batch, objective.num_particles)
            return parts_of(objective, terms)[0]

        return lax.map(one, (jnp.arange(len(blocks)), blocks))

    return validate
