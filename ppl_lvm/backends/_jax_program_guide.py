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

from ppl_lvm.backends._base_noise import noise_of, value_at
from ppl_lvm.backends._jax_guide import Guide
from ppl_lvm.backends._numpyro import arrays_of, cached, signature, statics_of
from ppl_lvm.backends.density import Density, Tree
from ppl_lvm.core import Problem


class _Seen:
    """What a first run of a guide program says: sites, supports of params, and where these start.

    One compiled program instead of one for each operation, and the same for each fit of the same shapes.
    """

    def __init__(self, run: Callable[..., dict]) -> None:
        self.run = run
        self.sites: list[str] = []
        self.supports: dict[str, Any] = {}
        self._look = jax.jit(self._traced)

    def _traced(self, data: Tree, begin: Tree | None) -> Tree:
        trace = self.run({}, jax.random.key(0), data, begin=begin)
        self.sites = [n for n, s in trace.items() if s["type"] == "sample"]
        self.supports = _supports(trace)
        return {n: biject_to(support).inv(trace[n]["value"]) for n, support in self.supports.items()}

    def at(self, data: Tree, begin: Tree | None) -> tuple[Tree, dict[str, Any]]:
        """Unconstrained params at the start, and the maps to their supports."""
        initial = self._look(data, begin)
        supports = self.supports
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(supports)):
            # limits that the guide computes are needed as numbers
            supports = _supports(self.run({}, jax.random.key(0), data, begin=begin))
        return initial, {n: biject_to(support) for n, support in supports.items()}


def _supports(trace: Mapping[str, Any]) -> dict[str, Any]:
    from numpyro.distributions import constraints

    params = {n: s["kwargs"] for n, s in trace.items() if s["type"] == "param"}
    return {n: kwargs.get("constraint", constraints.real) for n, kwargs in params.items()}


def program_guide(
    problem: Problem,
    density: Density,
    program: Callable[..., Any],
    key: Any,
    start: Mapping[str, np.ndarray],
    data: Tree | None,
) -> Guide:
    """A NumPyro guide program: its sites are constrained, and mapped here. ``key`` is the guide's own."""
    arrays = arrays_of(problem.arguments) if data is None else data
    extra: dict[str, Any] = dict(statics_of(problem.arguments))
    wanted = "init" in inspect.signature(program).parameters and bool(start)
    begin = {k: jnp.asarray(v) for k, v in start.items()} if wanted else None

    def run(
        params: Tree,
        key: Any,
        data: Tree,
        values: Tree | None = None,
        turned: Any = None,
        begin: Tree | None = begin,
    ) -> dict:
        """``turned`` are sites whose noise is given, which goes in with the other sign."""
        held = handlers.substitute(program, data={**params, **(values or {})})
        if turned:
            held = handlers.substitute(held, substitute_fn=lambda site: _image(site, turned))
        more = extra if begin is None else {**extra, "init": begin}
        return handlers.trace(handlers.seed(held, key)).get_trace(**data, **more)

    own = ("guide program", density.key, key, signature(arrays), signature(begin))
    try:
        seen = cached(own, lambda: _Seen(run))
        initial, maps = seen.at(arrays, begin)
    except Exception as error:  # the user's own code: anything can come out of it
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"guide: it failed when run once on the data, with the twin's arguments ({reason})."
        ) from error
    sites = seen.sites
    missing = sorted(set(density.shapes) - set(sites))
    if missing:
        raise ValueError(
            f"guide: lacks sites {missing}; it must declare the model's latents {sorted(density.shapes)}."
        )

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
        return initial

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        return log_q(run(constrain(params), key, data), data)

    def image(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        held = constrain(params)
        first = run(held, key, data)
        noise = {n: noise_of(first[n]["fn"], first[n]["value"], _solve) for n in sites}
        turned = {n: jax.lax.stop_gradient(v) for n, v in noise.items() if v is not None}
        others = jax.random.fold_in(key, 1)  # for sites of other noise
        return log_q(run(held, others, data, turned=turned), data)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        values = density.constrain(z, data, {})
        rest, local = log_q(run(constrain(params), jax.random.key(0), data, values), data)[1]
        return rest if local is None else rest + local.sum()

    return Guide(init, draw, log_prob, constrain, unconstrain, splits=True, image=image)


def _image(site: Any, turned: Mapping[str, Any]) -> Any | None:
    if site["type"] != "sample" or site["name"] not in turned:
        return None
    return value_at(site["fn"], -turned[site["name"]])


def _solve(lower: Any, value: Any) -> Any:
    many = jnp.broadcast_to(lower, (*value.shape[:-1], *lower.shape[-2:]))
    return jax.scipy.linalg.solve_triangular(many, value[..., None], lower=True)[..., 0]
