"""Blocks of SVI's optimiser steps as one compiled loop on a :class:`Density`, particles by vmap."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from ppl_lvm.backends._jax_guide import Guide
from ppl_lvm.backends._jax_guides import guide_key
from ppl_lvm.backends._numpyro import cached
from ppl_lvm.backends.density import Density
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._adam import forgetting
from ppl_lvm.engines._batches import Batches
from ppl_lvm.engines._checkpoint import Arrays
from ppl_lvm.engines._interrupt import Interrupt
from ppl_lvm.engines._jax_adam import adam
from ppl_lvm.engines._jax_devices import ROW, copied, mesh_of, placed, rows_split, split
from ppl_lvm.engines._jax_weights import is_split, split_log_joint
from ppl_lvm.engines._sources import Source
from ppl_lvm.engines._steps import check_same_params

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI

_ONE, _ZERO = np.ones((), np.float32), np.zeros((), np.float32)
_MARKED = "[3]"  # where the marked params stand among a stepper's arrays
_AHEAD = 2**25  # bytes of batches that are read before they are used
_IN_USE: dict[str, Any] = {
    "checkpoint": None,
    "checkpoint_every": 1,
    "num_draws": 2,
    "early_stop": True,
    "tolerance": 1.0,
    "num_restarts": 1,
}


class Trained(NamedTuple):
    """What is optimised: the guide's params as the guide has them, the model's in unconstrained space."""

    guide: Any
    model: Any


def constrained(density: Density, free: Any) -> dict[str, Any]:
    return {name: density.params[name].constrain(value) for name, value in free.items()}


class JaxStepper:
    """See :class:`ppl_lvm.engines._steps.Stepper`; data stay on the device, params and state are donated."""

    def __init__(
        self,
        engine: SVI,
        problem: Problem,
        run: Run,
        density: Density,
        guides: Sequence[Guide],
        data: Any,
        source: Source | None = None,
    ) -> None:
        """``guides`` are the same but for their starts: one for each restart."""
        self.data, self.key, self.source = data, jax.random.key(run.word(22)), source
        self.mesh = mesh_of(engine.num_devices, ROW)
        self.num_restarts, guide = len(guides), guides[0]
        together = self.num_restarts > 1
        self.batched = problem.batched
        free = {name: param.unconstrain(jnp.asarray(param.start)) for name, param in density.params.items()}
        first = jax.random.key(run.word(21))
        starts = [
            Trained(g.init(jax.random.fold_in(first, i) if i else first), free) for i, g in enumerate(guides)
        ]
        optimiser = _optimiser(engine, engine.steps_for(problem))
        alone = jax.tree_util.tree_map(jnp.array, starts[0])  # they are donated
        self.params = jax.tree_util.tree_map(lambda *v: jnp.stack(v), *starts) if together else alone
        self.state = jax.vmap(optimiser.init)(self.params) if together else optimiser.init(self.params)
        self.mean = jax.tree_util.tree_map(jnp.array, self.params) if engine.average else None
        self.marked: Any = None
        if together:
            self.key = jax.random.split(self.key, self.num_restarts)
        self.longest, self.batches = engine.window, None
        if source is not None:
            row = sum(np.asarray(v).nbytes for k, v in source.batch(0).items() if k in problem.batched)
            self.longest = min(engine.window, max(1, _AHEAD // max(row, 1)))
        elif engine.batch_size is not None and problem.num_data is not None:
            self.batches = Batches(run.seed, problem.num_data, engine.batch_size)
        if self.mesh is not None:
            self._lay_out(self.mesh)
        settings = dataclasses.replace(engine, **_IN_USE)
        own = (
            together,
            self.longest,
            source is not None,
            settings,
            guide_key(problem, engine.guide),
            problem.batched,
            problem.num_data,
        )
        self.block = cached(
            ("svi", density.key, *own),
            lambda: jax.jit(
                _together(
                    _block(engine, problem, density, guide, optimiser, self.longest, source is not None),
                    together,
                ),
                donate_argnums=(0, 1, 2),
                out_shardings=None if self.mesh is None else copied(self.mesh),
            ),
        )

    def _lay_out(self, mesh: Mesh) -> None:
        """Params and state on every device; rows cut where each step takes all of them, else batches are."""
        self.params, self.state, self.mean, _ = placed(self._all(), copied(mesh))
        if self.source is None:
            rows = copied(mesh) if self.batches is not None else split(mesh)
            own = {k: placed(v, rows) for k, v in self.data.items() if k in self.batched}
            self.data = {k: own[k] if k in own else placed(v, copied(mesh)) for k, v in self.data.items()}

    def steps(self, first: int, count: int, begin: int | None, stop: Interrupt) -> np.ndarray:
        del stop  # a compiled block is not interrupted; what was asked meanwhile is seen after it
        never = np.iinfo(np.int32).max
        out = [
            self._steps(i, min(self.longest, first + count - i), never if begin is None else begin)
            for i in range(first, first + count, self.longest)
        ]
        return np.concatenate(out, axis=1)

    def finish(self, best: int, averaged: bool) -> None:
        kept = self.mean if averaged else self.params
        kept = jax.tree_util.tree_map(lambda v: v[best], kept) if self.num_restarts > 1 else kept
        self.params = kept if self.mesh is None else jax.tree_util.tree_map(jnp.asarray, jax.device_get(kept))

    def _steps(self, first: int, count: int, begin: int) -> np.ndarray:
        batches = self._batches(first, count)
        self.params, self.state, self.mean, losses = self.block(
            self.params, self.state, self.mean, self.key, *batches, begin, _ONE
        )
        return np.atleast_2d(np.asarray(losses))[:, :count]

    def _batches(self, first: int, count: int) -> tuple[Any, int, int, Any]:
        """The data of some steps, their numbers, and the rows of each."""
        data, order = self.data, None
        if self.source is not None:
            ahead = [self.source.batch(step) for step in range(first, first + count)]
            ahead += ahead[-1:] * (self.longest - count)
            data = {**data, **{k: jnp.asarray(np.stack([b[k] for b in ahead])) for k in self.batched}}
        elif self.batches is not None:
            rows = self.batches.rows(first, count)
            order = jnp.asarray(np.pad(rows, ((0, self.longest - count), (0, 0))))
        return data, first, count, order

    def place(self) -> np.ndarray:
        leaves = [np.asarray(v) for v in jax.tree_util.tree_leaves(self.params)]
        return np.concatenate([v.reshape(self.num_restarts, -1) for v in leaves], axis=1, dtype=float)

    def mark(self) -> None:
        self.marked = jax.tree_util.tree_map(jnp.array, self._current())

    def _current(self) -> Any:
        return self.params if self.mean is None else self.mean

    def gains(self, first: int, count: int) -> np.ndarray:
        parts = []
        for i in range(first, first + count, self.longest):
            batches = self._batches(i, min(self.longest, first + count - i))
            before, now = (self._losses(params, batches) for params in (self.marked, self._current()))
            parts.append(before - now)
        return np.concatenate(parts, axis=1)

    def _losses(self, params: Any, batches: Any) -> np.ndarray:
        """Losses of steps that are not taken; what goes in is donated, so copies do."""
        copies = jax.tree_util.tree_map(jnp.array, (params, self.state, self.mean))
        never = np.iinfo(np.int32).max
        losses = self.block(*copies, self.key, *batches, never, _ZERO)[3]
        return np.atleast_2d(np.asarray(losses))[:, : batches[2]]

    def arrays(self) -> Arrays:
        return {name: np.asarray(leaf) for name, leaf in _named(self._all()).items()}

    def _all(self) -> Any:
        return self.params, self.state, self.mean, self.marked

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        if any(name.startswith(_MARKED) for name in arrays):
            self.mark()  # to be filled
        own = self._all()
        names = _named(own)
        check_same_params(arrays, names, "")
        leaves = [jax.device_put(arrays[name], leaf.sharding) for name, leaf in names.items()]
        structure = jax.tree_util.tree_structure(own)
        self.params, self.state, self.mean, self.marked = jax.tree_util.tree_unflatten(structure, leaves)


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _optimiser(engine: SVI, steps: int) -> Any:
    rate = optax.exponential_decay(engine.learning_rate, steps, engine.learning_rate_decay)
    return adam(rate, engine.clip_norm, forgetting(engine))


def _block(
    engine: SVI, problem: Problem, density: Density, guide: Guide, optimiser: Any, longest: int, stacked: bool
) -> Callable[..., Any]:
    """``stacked`` says that the data of each step come as a row of arrays, instead of by ``order``."""
    loss = loss_of(engine, problem, density, guide)
    batched, mesh = problem.batched, mesh_of(engine.num_devices, ROW)

    def block(
        params: Any,
        state: Any,
        mean: Any,
        key: Any,
        data: Any,
        first: Any,
        count: Any,
        order: Any,
        begin: Any,
        pace: Any,
    ) -> Any:
        """One program for blocks of any length up to ``longest``; ``mean`` is over steps from ``begin``.

        ``pace`` multiplies the steps: 1, or 0 for the losses at params that stay as they are."""

        def step(i: Any, carry: Any) -> Any:
            params, state, mean, losses = carry
            batch = data
            if stacked:
                batch = {k: v[i] if k in batched else v for k, v in data.items()}
            elif order is not None:
                batch = {k: v[order[i]] if k in batched else v for k, v in data.items()}
            batch = rows_split(batch, batched, mesh)
            value, slope = jax.value_and_grad(loss)(params, jax.random.fold_in(key, first + i), batch)
            updates, state = optimiser.update(slope, state, params)
            params = jax.tree_util.tree_map(lambda p, u: p + pace.astype(p.dtype) * u, params, updates)
            if mean is not None:
                since = first + i - begin
                share = jnp.where(since >= 0, 1.0 / (1.0 + jnp.maximum(since, 0)), 0.0)
                mean = jax.tree_util.tree_map(lambda m, p: m + share.astype(p.dtype) * (p - m), mean, params)
            return params, state, mean, losses.at[i].set(value)

        losses = jnp.zeros(longest, jnp.dtype(problem.dtype))
        return lax.fori_loop(0, count, step, (params, state, mean, losses))

    return block


def _together(block: Callable[..., Any], together: bool) -> Callable[..., Any]:
    """The block of all restarts: params, state, means and keys have a leading axis, data are shared."""
    return jax.vmap(block, in_axes=(0, 0, 0, 0, *[None] * 6)) if together else block


def loss_of(engine: SVI, problem: Problem, density: Density, guide: Guide) -> Callable[..., Any]:
    """(params, key, batch) -> the negative bound; of all data, from a batch of them."""
    from ppl_lvm.engines.svi import ELBO, Renyi

    objective = engine.objective
    scale = 1.0 if engine.batch_size is None else problem.num_data / engine.batch_size  # type: ignore[operator]  # set with the plate
    power: Any = 1.0 - objective.alpha if isinstance(objective, Renyi) else None
    all_local = is_split(problem, density, guide)
    split = split_log_joint(density) if engine.batch_size is not None else density.log_joint

    mirrored = isinstance(objective, ELBO) and objective.mirrored
    draw = _pair(guide) if mirrored else guide.draw

    def terms(params: Any, key: Any, data: Any) -> tuple[Any, Any]:
        z, log_q = draw(params.guide, key, data)
        held = constrained(density, params.model)
        if not mirrored:
            return weighed(split(z, data, held), log_q)
        both = jax.vmap(lambda z, log_q: weighed(split(z, data, held), log_q))(z, log_q)
        return jax.tree_util.tree_map(lambda v: v.mean(0), both)

    def weighed(log_p: Any, log_q: Any) -> tuple[Any, Any]:
        (rest, per_datum), (q_rest, q_local) = log_p, log_q
        if per_datum is None:  # the density does not split, and then neither do the weights
            return rest - q_rest - (0.0 if q_local is None else q_local.sum()), jnp.zeros(0)
        return rest - q_rest, per_datum if q_local is None else per_datum - q_local

    def spread(weights: Any) -> Any:
        count = weights.shape[0]
        return (jax.scipy.special.logsumexp(power * weights, axis=0) - jnp.log(count)) / power

    def loss(params: Any, key: Any, data: Any) -> Any:
        keys = jax.random.split(key, objective.num_particles)
        rest, local = jax.vmap(lambda k: terms(params, k, data))(keys)
        if power is None:
            return -(rest + scale * local.sum(-1)).mean()
        if all_local and local.shape[-1]:
            # each datum has a bound of its own, and the batch's scale lies outside the logarithm
            return -(rest[0] + scale * spread(local).sum())
        return -spread(rest + local.sum(-1))

    return loss


def _pair(guide: Guide) -> Callable[..., Any]:
    """A draw and its image, along a first axis; the settings refuse guides without an image."""

    def draw(params: Any, key: Any, data: Any) -> Any:
        two = guide.draw(params, key, data), guide.image(params, key, data)  # type: ignore[misc]  # not None
        return jax.tree_util.tree_map(lambda *v: jnp.stack(v), *two)

    return draw
