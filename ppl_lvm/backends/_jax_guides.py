"""Guides of the JAX side: the named families on unconstrained space, and NumPyro guide programs.

Each offers ``init(key)``, ``draw(params, key, data)`` -> (z, log q) in unconstrained space and
``log_prob(params, z, data)``; all are pure, so that they can be vmapped over particles. ``log q`` is a
pair as in ``Density.log_joint``: what lies outside the data plate, and (n,) inside it or None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to

from ppl_lvm.backends._jax_flows import flow_parts
from ppl_lvm.backends._numpyro import split_arguments
from ppl_lvm.backends.density import Density, Tree
from ppl_lvm.core import Problem
from ppl_lvm.families import Flow, LowRank, family_of

_START_SCALE = 0.1


class Guide(NamedTuple):
    """A family of densities on unconstrained space; ``constrain`` maps params for storing.

    ``splits`` says that log q comes split over the data plate."""

    init: Callable[[Any], Tree]
    draw: Callable[[Tree, Any, Tree], tuple[Tree, tuple[Any, Any | None]]]
    log_prob: Callable[[Tree, Tree, Tree], Any]
    constrain: Callable[[Tree], Tree]
    unconstrain: Callable[[Tree], Tree]
    splits: bool = False


def build_guide(
    problem: Problem, density: Density, spec: Any, start: Mapping[str, np.ndarray], point: Any
) -> Guide:
    """The guide that a setting asks for; ``point`` (size,) is where a family starts.

    ``"mode"`` is a point that seeks the mode of the unconstrained density (the first part of ``"laplace"``).
    """
    twin = problem.model.numpyro
    own = (twin.guide if twin is not None else None) if spec is None else spec
    if callable(own):
        return _program_guide(problem, density, own, start)
    family = family_of(own)
    if isinstance(family, Flow):
        return _flow(density, point, family)
    if family in ("delta", "mode"):
        return _point(density, point, jacobian=family == "mode")
    if family == "mean_field":
        return _mean_field(density, point)
    if family == "pathfinder":
        return _mixture(density)
    rank = family.rank_for(density.size) if isinstance(family, LowRank) else None
    return _gaussian(density, point, rank)  # a Laplace approximation is a full-rank one, found otherwise


def guide_key(problem: Problem, spec: Any) -> Any:
    """What identifies a guide's structure among those of one density, for reuse of compiled functions."""
    return spec if spec is not None else ("own", problem.model.cache_key)


def _standard_log_prob(noise: Any) -> Any:
    return -0.5 * (noise**2 + jnp.log(2 * jnp.pi)).sum()


def _identity(tree: Tree) -> Tree:
    return tree


def _mean_field(density: Density, point: Any) -> Guide:
    def init(key: Any) -> Tree:
        del key
        return {"loc": point, "log_scale": jnp.full_like(point, np.log(_START_SCALE))}

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        noise = jax.random.normal(key, params["loc"].shape, params["loc"].dtype)
        flat = params["loc"] + jnp.exp(params["log_scale"]) * noise
        return density.unflatten(flat), (_standard_log_prob(noise) - params["log_scale"].sum(), None)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        noise = (density.flatten(z) - params["loc"]) / jnp.exp(params["log_scale"])
        return _standard_log_prob(noise) - params["log_scale"].sum()

    return Guide(init, draw, log_prob, _identity, _identity)


def _gaussian(density: Density, point: Any, rank: int | None) -> Guide:
    """Full-rank (by its Cholesky factor) or low-rank plus diagonal Gaussian."""
    size = density.size

    def init(key: Any) -> Tree:
        base = {"loc": point, "log_scale": jnp.full_like(point, np.log(_START_SCALE))}
        if rank is None:
            return base | {"lower": jnp.zeros((size, size), point.dtype)}
        small = jax.random.normal(key, (size, rank), point.dtype)
        return base | {"factor": 0.1 * _START_SCALE * small}

    def tril(params: Tree) -> Any:
        if rank is None:
            return jnp.tril(params["lower"], -1) + jnp.diag(jnp.exp(params["log_scale"]))
        factor = params["factor"]
        covariance = factor @ factor.T + jnp.diag(jnp.exp(2 * params["log_scale"]))
        return jnp.linalg.cholesky(covariance)

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        noise = jax.random.normal(key, params["loc"].shape, params["loc"].dtype)
        root = tril(params)
        log_det = jnp.log(jnp.diag(root)).sum()
        return density.unflatten(params["loc"] + root @ noise), (_standard_log_prob(noise) - log_det, None)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        root = tril(params)
        gap = density.flatten(z) - params["loc"]
        noise = jax.scipy.linalg.solve_triangular(root, gap, lower=True)
        return _standard_log_prob(noise) - jnp.log(jnp.diag(root)).sum()

    return Guide(init, draw, log_prob, _identity, _identity)


def _flow(density: Density, point: Any, settings: Flow) -> Guide:
    flow = flow_parts(density.size, settings, point, _START_SCALE)

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        noise = jax.random.normal(key, (density.size,), point.dtype)
        flat, log_det = flow.forward(params, noise)
        return density.unflatten(flat), (_standard_log_prob(noise) - log_det, None)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        noise, log_det = flow.inverse(params, density.flatten(z))
        return _standard_log_prob(noise) + log_det

    return Guide(flow.init, draw, log_prob, _identity, _identity)


def _mixture(density: Density) -> Guide:
    """Equal parts of Gaussians with ``loc`` (k, size) and Cholesky factors ``tril`` (k, size, size)."""

    def init(key: Any) -> Tree:
        raise ValueError("guide: a mixture of Gaussians is made by Pathfinder, and not trained.")

    def at(params: Tree, flat: Any) -> Any:
        def one(loc: Any, tril: Any) -> Any:
            noise = jax.scipy.linalg.solve_triangular(tril, flat - loc, lower=True)
            return _standard_log_prob(noise) - jnp.log(jnp.diag(tril)).sum()

        each = jax.vmap(one)(params["loc"], params["tril"])
        return jax.scipy.special.logsumexp(each) - np.log(len(each))

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        which, noisy = jax.random.split(key)
        part = jax.random.randint(which, (), 0, len(params["loc"]))
        noise = jax.random.normal(noisy, params["loc"].shape[1:], params["loc"].dtype)
        flat = params["loc"][part] + params["tril"][part] @ noise
        return density.unflatten(flat), (at(params, flat), None)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        return at(params, density.flatten(z))

    return Guide(init, draw, log_prob, _identity, _identity)


def _point(density: Density, point: Any, *, jacobian: bool) -> Guide:
    """A point, whose bound is the log density there: of the unconstrained values, or of the constrained ones.

    Without ``jacobian`` log q is the Jacobian, which takes it out of the bound."""

    def init(key: Any) -> Tree:
        del key
        return {"loc": point}

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        z = density.unflatten(params["loc"])
        return z, (jnp.zeros((), point.dtype) if jacobian else density.log_jacobian(z, data, {}), None)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        raise ValueError("guide: a point ('delta') has no density; use a family that has a spread.")

    return Guide(init, draw, log_prob, _identity, _identity)


def _program_guide(
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

    first = run({}, jax.random.key(0), arrays)
    sites = [n for n, s in first.items() if s["type"] == "sample"]
    missing = sorted(set(density.shapes) - set(sites))
    if missing:
        raise ValueError(
            f"guide: lacks sites {missing}; it must declare the model's latents {sorted(density.shapes)}."
        )
    maps = {
        n: biject_to(s["kwargs"].pop("constraint", _real())) for n, s in first.items() if s["type"] == "param"
    }
    initial = {n: first[n]["value"] for n in maps}

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
        return unconstrain(initial)

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
