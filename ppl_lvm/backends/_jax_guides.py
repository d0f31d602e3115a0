"""Guides of the JAX side by name: densities on unconstrained space (see :mod:`._jax_guide`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._dependences import dependences
from ppl_lvm.backends._jax_datum_guides import datum_guide
from ppl_lvm.backends._jax_flows import flow_parts
from ppl_lvm.backends._jax_guide import Guide, identity, standard_log_prob, symmetric
from ppl_lvm.backends._jax_program_guide import program_guide
from ppl_lvm.backends.density import Density, Tree
from ppl_lvm.core import Problem
from ppl_lvm.families import Flow, LowRank, by_datum, family_of

_START_SCALE = 0.1


def build_guide(
    problem: Problem,
    density: Density,
    spec: Any,
    start: Mapping[str, np.ndarray],
    point: Any,
    data: Tree | None = None,
) -> Guide:
    """The guide that a setting asks for; ``point`` (size,) is where a family starts.

    ``data`` are the problem's arrays where they are on the device already, so that they are not copied again.
    ``"mode"`` is a point that seeks the mode of the unconstrained density (the first part of ``"laplace"``).
    """
    twin = problem.model.numpyro
    own = (twin.guide if twin is not None else None) if spec is None else spec
    if callable(own):
        return program_guide(problem, density, own, guide_key(problem, spec), start, data)
    family = family_of(own)
    if isinstance(family, Flow):
        return _flow(density, point, family)
    if by_datum(family):
        return datum_guide(problem, density, family, point, _START_SCALE)
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
    if by_datum(spec):
        return spec, dependences(problem)
    return spec if spec is not None else ("own", problem.model.cache_key)


def _mean_field(density: Density, point: Any) -> Guide:
    def init(key: Any) -> Tree:
        del key
        return {"loc": point, "log_scale": jnp.full_like(point, np.log(_START_SCALE))}

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        noise = jax.random.normal(key, params["loc"].shape, params["loc"].dtype)
        flat = params["loc"] + jnp.exp(params["log_scale"]) * noise
        return density.unflatten(flat), (standard_log_prob(noise) - params["log_scale"].sum(), None)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        noise = (density.flatten(z) - params["loc"]) / jnp.exp(params["log_scale"])
        return standard_log_prob(noise) - params["log_scale"].sum()

    return Guide(init, draw, log_prob, identity, identity, image=symmetric(draw, _loc(density)))


def _loc(density: Density) -> Callable[[Tree, Tree], Tree]:
    return lambda params, data: density.unflatten(params["loc"])


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
        return density.unflatten(params["loc"] + root @ noise), (standard_log_prob(noise) - log_det, None)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        root = tril(params)
        gap = density.flatten(z) - params["loc"]
        noise = jax.scipy.linalg.solve_triangular(root, gap, lower=True)
        return standard_log_prob(noise) - jnp.log(jnp.diag(root)).sum()

    return Guide(init, draw, log_prob, identity, identity, image=symmetric(draw, _loc(density)))


def _flow(density: Density, point: Any, settings: Flow) -> Guide:
    flow = flow_parts(density.size, settings, point, _START_SCALE)

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        noise = jax.random.normal(key, (density.size,), point.dtype)
        flat, log_det = flow.forward(params, noise)
        return density.unflatten(flat), (standard_log_prob(noise) - log_det, None)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        noise, log_det = flow.inverse(params, density.flatten(z))
        return standard_log_prob(noise) + log_det

    return Guide(flow.init, draw, log_prob, identity, identity)


def _mixture(density: Density) -> Guide:
    """Equal parts of Gaussians with ``loc`` (k, size) and Cholesky factors ``tril`` (k, size, size)."""

    def init(key: Any) -> Tree:
        raise ValueError("guide: a mixture of Gaussians is made by Pathfinder, and not trained.")

    def at(params: Tree, flat: Any) -> Any:
        def one(loc: Any, tril: Any) -> Any:
            noise = jax.scipy.linalg.solve_triangular(tril, flat - loc, lower=True)
            return standard_log_prob(noise) - jnp.log(jnp.diag(tril)).sum()

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

    return Guide(init, draw, log_prob, identity, identity)


def _point(density: Density, point: Any, *, jacobian: bool) -> Guide:
    """A point, whose bound is the log density there: of the unconstrained values, or of the constrained ones.

    Without ``jacobian`` log q is the Jacobian, which takes it out of the bound."""

    def init(key: Any) -> Tree:
        del key
        return {"loc": point}

    # supports do not hang on the model's params: any values of these do
    start = {name: jnp.asarray(param.start) for name, param in density.params.items()}

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        z = density.unflatten(params["loc"])
        return z, (jnp.zeros((), point.dtype) if jacobian else density.log_jacobian(z, data, start), None)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        raise ValueError("guide: a point ('delta') has no density; use a family that has a spread.")

    return Guide(init, draw, log_prob, identity, identity)
