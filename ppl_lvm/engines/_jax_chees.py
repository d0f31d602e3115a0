"""ChEES-HMC on a :class:`Density`: all chains in one compiled loop, with one step size and trajectory length.

In warm-up BlackJAX's rule moves the length up the gradient of the ChEES criterion, and the step size to an
acceptance rate, by averages over the chains; in its second half the variances of the chains' places become
the mass matrix. After warm-up all of these are held, so that the draws are those of a fixed kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from blackjax.adaptation.chees_adaptation import base
from blackjax.adaptation.metric_buffers import MomentBlock, cgl_update_batch
from blackjax.mcmc import hmc
from blackjax.mcmc.dynamic_hmc import halton_sequence
from jax import lax
from jax.sharding import Mesh

from ppl_lvm.backends._numpyro import cached, density_of, signature
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._jax_devices import all_split, chain_mesh, copied, placed, shaped, split
from ppl_lvm.engines._jax_kernels import WHERE
from ppl_lvm.engines._jax_metric import starting_metric
from ppl_lvm.engines._jax_nuts import _constrain
from ppl_lvm.engines._jax_nuts_parts import DRAWS, WARMUP, Chain, ChainPart
from ppl_lvm.engines._jax_start import start_points
from ppl_lvm.engines._nuts_run import Arrays, Drawn, blocks

if TYPE_CHECKING:
    from ppl_lvm.engines.chees import ChEES

_FIRST_STEP = 0.1  # in coordinates scaled by the curvature at a start
_LEARNING_RATE = 0.5  # of the logarithm of the length; the rule weighs moves by t**-_DECAY
_DECAY = 0.5  # of the weight of a warm-up iteration in the averages that are held


class Ensemble(NamedTuple):
    """``hmc`` has a leading axis of chains, the rest is theirs together."""

    hmc: hmc.HMCState
    rule: Any
    moments: MomentBlock
    size: Any
    length: Any
    inverse_mass: Any


def sample(engine: ChEES, problem: Problem, run: Run, params: Arrays) -> Drawn:
    """Draws by site and statistics, each (chain, draw, ...)."""
    with jax_session(problem.dtype):
        density, data = density_of(problem)
        held: Any = {k: jnp.asarray(v) for k, v in params.items()}
        num_starts = engine.num_starts or engine.num_chains
        points = start_points(problem, run, density, data, held, num_starts)
        scales = starting_metric(problem, run, density, data, held, points[0], False)[0]
        points = jnp.tile(points, (engine.num_chains // num_starts, 1)) / scales  # as NUTS starts its chains
        keys = jax.random.split(jax.random.key(run.word(23)), engine.num_chains)
        given = (data, (held, scales))
        mesh = chain_mesh(engine.num_chains)
        if mesh is not None:
            points, keys = placed((points, keys), split(mesh))
            given = placed(given, copied(mesh))
        start, advance = _compiled(engine, density, given, points, keys, mesh)
        total = engine.num_warmup + engine.num_samples
        with blocks(engine, problem, run, params, total, "ChEES") as plan:
            part = ChainPart((start, advance, WHERE["blackjax"]), points, keys, given, many=True)
            done = plan.drive(part, plan.checkpoint("chains"))
            _, length, stopped = plan.longest([done] * engine.num_chains)
        kept = part.kept(length)
        values = _constrain(density, jnp.asarray(kept.pop(DRAWS)) * scales, data, held)
        return Drawn(values, kept, kept.pop(WARMUP), stopped)


def _compiled(
    engine: ChEES, density: Density, given: Any, points: Any, keys: Any, mesh: Mesh | None
) -> tuple[Callable, Callable]:
    """(start, advance), the second compiled for the layout of chains over devices."""
    settings = (engine.num_warmup, engine.num_samples, engine.target_accept, engine.max_steps)
    key = ("chees", density.key, settings, mesh, signature((points, given)))

    def build() -> tuple[Callable, Callable]:
        start, advance = _program(engine, density)
        chain = jax.eval_shape(start, points, keys, *given)
        layout = None if mesh is None else _layout(chain, mesh)
        begin = jax.jit(start, out_shardings=layout).lower(points, keys, *given).compile()
        if mesh is not None:
            chain = shaped(chain, layout)
        step = np.int32(0)
        go = jax.jit(advance, donate_argnums=(0,), out_shardings=layout)
        return begin, go.lower(chain, step, step, keys, *given).compile()

    return cached(key, build)


def _layout(chain: Chain, mesh: Mesh) -> Chain:
    """Chains are cut over the devices; what they adapt together is on each of them."""
    together = jax.tree_util.tree_map(lambda _: copied(mesh), chain.state)
    state = together._replace(hmc=all_split(chain.state.hmc, mesh))
    return all_split(chain, mesh)._replace(state=state)


def _program(engine: ChEES, density: Density) -> tuple[Callable, Callable]:
    """``start`` and ``advance`` of all chains; ``params`` are (held params, scales)."""
    warmup, num_samples = engine.num_warmup, engine.num_samples
    bits = max(1, math.ceil(math.log2(warmup + num_samples + 1)))
    move = hmc.build_kernel()

    def share(i: Any) -> Any:
        """Of a trajectory: quasi-random in (0, 1), the same for all chains, so that none waits."""
        return halton_sequence(jnp.asarray(i, jnp.int32), bits)

    rule_init, rule_update = base(
        share,
        lambda i: i + 1,
        optax.adam(_LEARNING_RATE, b1=0.0, b2=0.95),
        engine.target_accept,
        _DECAY,
        engine.max_steps,
    )

    def log_density_at(data: Any, params: Any) -> Callable[[Any], Any]:
        held, scales = params
        return lambda flat: density.total(density.unflatten(flat * scales), data, held)

    def start(points: Any, keys: Any, data: Any, params: Any) -> Chain:
        log_density = log_density_at(data, params)
        states = jax.vmap(lambda p: hmc.init(p, log_density))(points)
        (num, size), dtype = points.shape, points.dtype
        first = jnp.asarray(_FIRST_STEP, dtype)
        rule = jax.tree_util.tree_map(_as_array(dtype), rule_init(jnp.int32(0), first))
        moments = MomentBlock(jnp.zeros((), dtype), jnp.zeros(size, dtype), jnp.zeros(size, dtype))
        own = Ensemble(states, rule, moments, first, first, jnp.ones(size, dtype))
        stats = {k: jnp.zeros((num, num_samples), v) for k, v in _stats_like(dtype).items()}
        draws = jnp.zeros((num, num_samples, size), dtype)
        return Chain(own, draws, stats, jnp.zeros(num, jnp.int32))

    def step(i: Any, keys: Any, own: Ensemble, log_density: Any) -> tuple[Ensemble, dict[str, Any]]:
        steps = jnp.ceil(share(i) * own.length / own.size).astype(jnp.int32).clip(1, engine.max_steps)

        def one(key: Any, state: Any) -> Any:
            return move(key, state, log_density, own.size, own.inverse_mass, steps)

        moved, info = jax.vmap(one)(jax.vmap(jax.random.fold_in, (0, None))(keys, i), own.hmc)
        began = 0.5 * (own.inverse_mass * info.momentum**2).sum(1) - own.hmc.logdensity
        stats = {
            "lp": moved.logdensity,
            "energy": jnp.where(info.is_accepted, info.energy, began),
            "acceptance_rate": info.acceptance_rate,
            "step_size": jnp.full_like(moved.logdensity, own.size),
            "diverging": info.is_divergent,
            "n_steps": jnp.full(len(keys), steps, jnp.int32),
        }
        new = own._replace(hmc=moved)
        if warmup:
            new = lax.cond(i < warmup, lambda n: adapted(i, own, n, info), lambda n: n, new)
        return new, stats

    def adapted(i: Any, old: Ensemble, new: Ensemble, info: Any) -> Ensemble:
        """After iteration ``i`` of warm-up; the last one puts the averages in place."""
        proposal = info.proposal
        rule = rule_update(
            old.rule,
            proposal.position,
            proposal.momentum,
            old.hmc.position,
            info.acceptance_rate,
            info.is_divergent,
            old.inverse_mass,
        )
        rule = jax.tree_util.tree_map(lambda new, was: jnp.asarray(new, was.dtype), rule, old.rule)
        moments = lax.cond(
            i >= warmup // 2, lambda m: cgl_update_batch(m, new.hmc.position), lambda m: m, old.moments
        )
        variance = jnp.maximum(moments.m2 / jnp.maximum(moments.count - 1.0, 1.0), 1e-20)
        inverse = jnp.where(moments.count > 1, variance, old.inverse_mass)
        last = i == warmup - 1
        size = jnp.where(last, jnp.exp(rule.log_step_size_moving_average), rule.step_size)
        length = jnp.where(last, jnp.exp(rule.log_trajectory_length_moving_average), rule.trajectory_length)
        return new._replace(rule=rule, moments=moments, size=size, length=length, inverse_mass=inverse)

    def advance(chain: Chain, first: Any, last: Any, keys: Any, data: Any, params: Any) -> Chain:
        log_density = log_density_at(data, params)

        def body(i: Any, chain: Chain) -> Chain:
            state, stats = step(i, keys, chain.state, log_density)
            slot = jnp.maximum(i - warmup, 0)  # warm-up overwrites slot 0 until the first kept draw does
            draws = lax.dynamic_update_index_in_dim(chain.draws, state.hmc.position, slot, 1)
            kept = {
                k: lax.dynamic_update_index_in_dim(v, jnp.asarray(stats[k], v.dtype), slot, 1)
                for k, v in chain.stats.items()
            }
            spent = jnp.where(i < warmup, stats["n_steps"], 0)
            return Chain(state, draws, kept, chain.warmup_steps + spent)

        return lax.fori_loop(first, last, body, chain)

    return start, advance


def _stats_like(dtype: Any) -> dict[str, Any]:
    real = dict.fromkeys(("lp", "energy", "acceptance_rate", "step_size"), dtype)
    return real | {"diverging": bool, "n_steps": jnp.int32}


def _as_array(dtype: Any) -> Callable[[Any], Any]:
    """Python numbers and arrays of BlackJAX's state as arrays that a loop can carry."""

    def convert(leaf: Any) -> Any:
        whole = jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
        return jnp.asarray(leaf, jnp.int32 if whole else dtype)

    return convert
