"""A NumPyro guide program as a guide of the JAX side."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to

from ppl_lvm.backends._jax_guide import Guide
from ppl_lvm.backends._numpyro import split_arguments
from ppl_lvm.backends.density import Density, Tree
from ppl_lvm.core import Problem


def program_guide(
    problem: Problem, density: Density, program: Callable[..., Any], start: Mapping[str, np.ndarray]
) -> Guide:
    """A NumPyro guide program: its sites are constrained, and mapped here."""
    arrays, statics = split_arguments(problem.arguments)
    extra: dict[str, Any] = dict(statics)
    if "init" in inspect.signature(program).parameters and start:
        extra["init"] = {k: jnp.asarray(v) for k, v in start.items()}

    def run(params: Tree, key: Any, data: Tree, values: Tree | None = None) -> dict:
        seeded = handlers.seed(handlers.substitute(program, data={**params, **(values or {})}), key)
        return handlers.trace(seeded).get_trace(**data, **extra)

    first: dict[str, Any] = {}

    def look(data: Tree) -> Tree:
        first.update(run({}, jax.random.key(0), data))
        return {n: s["value"] for n, s in first.items() if s["type"] == "param"}

    try:
        initial = jax.jit(look)(arrays)  # one program instead of one for each operation
    except Exception as error:  # the user's own code: anything can come out of it
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"guide: it failed when run once on the data, with the twin's arguments ({reason})."
        ) from error
    sites = [n for n, s in first.items() if s["type"] == "sample"]
    missing = sorted(set(density.shapes) - set(sites))
    if missing:
        raise ValueError(
            f"guide: lacks sites {missing}; it must declare the model's latents {sorted(density.shapes)}."
        )
    supports = {n: first[n]["kwargs"].get("constraint", _real()) for n in initial}
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(supports)):
        first = run({}, jax.random.key(0), arrays)  # limits that the guide computes are needed as numbers
        supports = {n: first[n]["kwargs"].get("constraint", _real()) for n in initial}
    maps = {n: biject_to(support) for n, support in supports.items()}

    def constrain(params: Tree) -> Tree:
        return {n: maps[n](v) for n, v in params.items()}

    def unconstrain(params: Tree) -> Tree:
        return {n: maps[n].inv(v) for n, v in params.items()}

    def log_q(trace: dict, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        values = {n: trace[n]["value"] for n in density.shapes}
        z = density.unconstrain(values, data, {})
        jacobians = density.site_jacobians(z, data, {})
        rest: Any = 0.0
        local: Any | None = None
        for n in sites:
            term = trace[n]["fn"].log_prob(trace[n]["value"]) + jacobians.get(n, 0.0)
            frame = next((f for f in trace[n]["cond_indep_stack"] if f.name == problem.data_plate), None)
            if frame is None:
                rest = rest + jnp.sum(term)
                continue
            ours = jnp.moveaxis(jnp.broadcast_to(term, trace[n]["fn"].batch_shape), frame.dim, -1)
            ours = ours.reshape((-1, ours.shape[-1])).sum(0)
            local = ours if local is None else local + ours
        return z, (rest, local)

    def init(key: Any) -> Tree:
        del key
        return jax.jit(unconstrain)(initial)

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        return log_q(run(constrain(params), key, data), data)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        values = density.constrain(z, data, {})
        rest, local = log_q(run(constrain(params), jax.random.key(0), data, values), data)[1]
        return rest if local is None else rest + local.sum()

    return Guide(init, draw, log_prob, constrain, unconstrain, splits=True)


def _real() -> Any:
    from numpyro.distributions import constraints

    return constraints.real
