"""NUTS on many data sets of one shape in one compiled, vmapped program: what an accelerator needs to be busy.

On a CPU, data sets one after another in threads are faster: a vmapped program makes every chain wait for the
longest trajectory of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._numpyro import cached, density_of, signature
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._checks import params_without_values
from ppl_lvm.engines._jax_metric import starting_metric
from ppl_lvm.engines._jax_nuts import _program
from ppl_lvm.engines._jax_start import start_points

if TYPE_CHECKING:
    from ppl_lvm.engines.nuts import NUTS

Arrays = dict[str, np.ndarray]


def together(engine: NUTS, problem: Problem) -> bool:
    """Whether data sets like this one should run in one program: on accelerators, or where asked for."""
    if problem.model.numpyro is None or engine.backend_for(problem) != "numpyro":
        return False
    if engine.checkpoint is not None or engine.transport:  # of one run; said where runs are one by one
        return False
    method = engine.chain_method
    return method == "vectorized" or (method == "auto" and jax.default_backend() != "cpu")


def sample_many(
    engine: NUTS, problems: Sequence[Problem], runs: Sequence[Run]
) -> list[tuple[Arrays, Arrays]]:
    """Draws by site and statistics, each (chain, draw, ...), for every problem: its own, up to rounding.

    Raises
    ------
    ValueError
        If the problems differ in structure or shapes, or one has no finite starting point.
    """
    with jax_session(problems[0].dtype):
        found = [_prepared(engine, p, r) for p, r in zip(problems, runs, strict=True)]
        density = found[0][0]
        shapes = {(f[0].key, signature(f[1:])) for f in found}
        if len(shapes) > 1:
            raise ValueError("data: expected data sets of one shape and model, to run in one program.")
        data, held, metric, points, keys = (
            jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *[f[i] for f in found])
            for i in range(1, 6)
        )
        start, advance, constrain = _compiled(engine, density, data, (held, *metric), points, keys)
        chains = start(points, keys, data, (held, *metric))
        total = engine.num_warmup + engine.num_samples
        chains = advance(chains, np.int32(0), np.int32(total), keys, data, (held, *metric))
        values = constrain(chains.draws * metric[0][:, None, None, :], data, held)
        values, stats = jax.tree_util.tree_map(np.asarray, (dict(values), dict(chains.stats)))
    return [
        ({k: v[i] for k, v in values.items()}, {k: v[i] for k, v in stats.items()})
        for i in range(len(problems))
    ]


def _prepared(engine: NUTS, problem: Problem, run: Run) -> tuple[Density, Any, Any, Any, Any, Any]:
    """Density, data, params, metric, scaled starting points (chain, size) and keys (chain,)."""
    density, data = density_of(problem)
    held = {k: jnp.asarray(v) for k, v in params_without_values("NUTS", problem, run).items()}
    points = start_points(problem, run, density, data, held, engine.num_chains)
    metric = starting_metric(problem, run, density, data, held, points[0], engine.dense_mass)
    keys = jax.random.split(jax.random.key(run.word(23)), engine.num_chains)
    return density, data, held, metric, points / metric[0], keys


def _compiled(
    engine: NUTS, density: Density, data: Any, params: Any, points: Any, keys: Any
) -> tuple[Callable, Callable, Callable]:
    """(start, advance, constrain) over (data set, chain)."""
    steps = (engine.num_warmup, engine.num_samples, engine.target_accept, engine.max_tree_depth)
    settings = (*steps, engine.dense_mass, engine.kernel)
    key = ("nuts many", density.key, settings, signature((data, params, points)))

    def build() -> tuple[Callable, Callable, Callable]:
        start, advance = _program(engine, density, informed=len(params) > 2)
        start = jax.vmap(jax.vmap(start, in_axes=(0, 0, None, None)))
        advance = jax.vmap(advance, in_axes=(0, None, None, 0, None, None))
        advance = jax.vmap(advance, in_axes=(0, None, None, 0, 0, 0))

        def one(point: Any, data: Any, held: Any) -> Any:
            return density.constrain(density.unflatten(point), data, held)

        inner = jax.vmap(jax.vmap(one, in_axes=(0, None, None)), in_axes=(0, None, None))
        return jax.jit(start), jax.jit(advance, donate_argnums=(0,)), jax.jit(jax.vmap(inner))

    return cached(key, build)
