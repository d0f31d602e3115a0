"""From a NumPyro program to a :class:`Density`, and the cache of compiled functions."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.primitives import Messenger

from ppl_lvm.backends._numpyro_sites import Sites, check_supports, frame_of, trace_of
from ppl_lvm.backends.density import Density, Param, Tree
from ppl_lvm.core import Problem

_CACHE: OrderedDict[Any, Any] = OrderedDict()
_CACHE_SIZE = 128


class WithoutData(Messenger):
    """Leave the densities of observed sites out."""

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "sample" and msg["is_observed"]:
            msg["fn"] = msg["fn"].mask(False)


class HoldSites(Messenger):
    """Hold latent sites at given values; their own density is left out (all is conditional on them)."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = values

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "sample" and msg["name"] in self.values:
            msg["value"] = jnp.asarray(self.values[msg["name"]])
            msg["is_observed"] = True
            msg["fn"] = msg["fn"].mask(False)


def cached(key: Any, build: Callable[[], Any]) -> Any:
    """The value under ``key``, built on first use; the least recently used go when it is full."""
    if key in _CACHE:
        _CACHE.move_to_end(key)
        return _CACHE[key]
    value = _CACHE[key] = build()
    while len(_CACHE) > _CACHE_SIZE:
        _CACHE.popitem(last=False)
    return value


def signature(tree: Any) -> tuple:
    """Shapes and dtypes of a tree's leaves, hashable."""
    leaves, structure = jax.tree_util.tree_flatten(tree)
    return structure, tuple((np.shape(leaf), jnp.result_type(leaf).name) for leaf in leaves)


def split_arguments(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple]:
    """Array arguments (a tree of jnp arrays) and static ones (a hashable)."""
    return arrays_of(arguments), statics_of(arguments)


def arrays_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Array arguments, copied to the device."""
    return {
        name: jax.tree_util.tree_map(jnp.asarray, dict(value) if isinstance(value, Mapping) else value)
        for name, value in arguments.items()
        if isinstance(value, (np.ndarray, Mapping))
    }


def statics_of(arguments: Mapping[str, Any]) -> tuple:
    """The other arguments; what only closed forms look into is not kept alive by the cache of compiled
    functions."""
    return tuple(
        (name, value.blank() if hasattr(value, "blank") else value)
        for name, value in arguments.items()
        if not isinstance(value, (np.ndarray, Mapping))
    )


def density_of(problem: Problem) -> tuple[Density, dict[str, Any]]:
    """The density of a problem's twin, or of its translated Pyro program, and the data to evaluate it at.

    Raises
    ------
    ValueError
        If the twin's continuous sites or their shapes differ from the Pyro program's, or a program without a
        twin cannot be translated.
    """
    data, statics = split_arguments(problem.arguments)
    if problem.model.numpyro is None:
        from ppl_lvm.backends.translate import translated_density

        return translated_density(problem), data
    held = tuple((k, np.asarray(v).tobytes()) for k, v in sorted(problem.model.fixed_params.items()))
    key = (
        "density",
        problem.model.cache_key,
        statics,
        problem.data_plate,
        problem.dtype,
        held,
        signature(data),
    )
    return cached(key, lambda: _build(problem, data, statics, key)), data


def _build(problem: Problem, data: dict, statics: tuple, key: Any) -> Density:
    twin = problem.model.numpyro
    if twin is None:
        raise ValueError(f"{problem.model.describe()} has no NumPyro twin.")
    model = _with_statics(twin.model, dict(statics))
    if problem.model.fixed_params:
        fixed = {k: jnp.asarray(v) for k, v in problem.model.fixed_params.items()}
        model = handlers.substitute(model, data=fixed)
    sites = Sites(problem, model)
    # One compiled program: run by single operations, the prior's draws and the supports of a mixture with
    # full covariances are some 200 compilations.
    points = jax.jit(sites.look)(data)
    check_supports(problem, sites.supports, points)
    functions = _Functions(model, sites.shapes, problem.data_plate, sites.enumerable)
    return Density(
        key=key,
        log_joint=functions.log_joint,
        log_prior=functions.log_prior,
        sample_prior=None if sites.improper else functions.sample_prior,
        constrain=functions.constrain,
        unconstrain=functions.unconstrain,
        log_jacobian=functions.log_jacobian,
        site_jacobians=functions.site_jacobians,
        shapes=sites.shapes,
        local=sites.local,
        params=_free_params(model, data) if sites.has_params else {},
    )


def _free_params(model: Callable, data: Tree) -> dict[str, Param]:
    """Params with a single array each (those of networks are trees) that nothing holds."""
    found = {}
    trace = trace_of(model, data)
    for name, site in trace.items():
        if site["type"] == "param" and isinstance(site["value"], jax.Array):
            transform = biject_to(site["kwargs"].get("constraint", constraints.real))
            found[name] = Param(np.asarray(site["value"]), transform, transform.inv)
    return found


class _Functions:
    """The closures of one NumPyro model; every method is pure."""

    def __init__(self, model: Callable, shapes: dict, plate: str | None, enumerable: bool) -> None:
        self.model, self.shapes, self.plate, self.enumerable = model, shapes, plate, enumerable

    def _run(self, z: Tree, data: Tree, params: Tree) -> tuple[dict, dict]:
        """Trace with z mapped into the supports; log-Jacobians by site, event dimensions summed."""
        jacobians: dict[str, Any] = {}

        def substitute(site: dict) -> Any:
            if site["type"] == "param":
                return params.get(site["name"])
            if site["type"] != "sample" or site["name"] not in z:
                return None
            transform = biject_to(site["fn"].support)
            free = z[site["name"]]
            value = transform(free)
            jacobian = transform.log_abs_det_jacobian(free, value)
            extra = jnp.ndim(jacobian) - len(site["fn"].batch_shape)
            jacobians[site["name"]] = jacobian.sum(tuple(range(-extra, 0))) if extra > 0 else jacobian
            return value

        seeded = handlers.seed(handlers.substitute(self.model, substitute_fn=substitute), jax.random.key(0))
        return handlers.trace(seeded).get_trace(**data), jacobians

    def log_joint(self, z: Tree, data: Tree, params: Tree) -> tuple[Any, Any | None]:
        if self.enumerable:
            return self._log_joint_enumerated(z, data, params), None
        trace, jacobians = self._run(z, data, params)
        rest: Any = 0.0
        per_datum: Any | None = None
        for name, site in trace.items():
            if site["type"] != "sample":
                continue
            term = _log_prob(site)
            if name in jacobians:
                term = term + jacobians[name]
            frame = frame_of(site, self.plate)
            if frame is None:
                rest = rest + jnp.sum(term)
                continue
            term = jnp.broadcast_to(term, site["fn"].batch_shape)
            ours = jnp.moveaxis(term, frame.dim, -1)
            ours = ours.reshape((-1, ours.shape[-1])).sum(0)
            per_datum = ours if per_datum is None else per_datum + ours
        return rest, per_datum

    def _log_joint_enumerated(self, z: Tree, data: Tree, params: Tree) -> Any:
        from numpyro.contrib.funsor import config_enumerate, enum
        from numpyro.contrib.funsor import log_density as enumerated_log_density

        values = self.constrain(z, data, params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # funsor warns about plates that it sums exactly
            model = enum(config_enumerate(self.model), -1 - self._nesting(data))
            total, _ = enumerated_log_density(model, (), dict(data), {**params, **values})
        return total + self.log_jacobian(z, data, params)

    def _nesting(self, data: Tree) -> int:
        trace = handlers.trace(handlers.seed(self.model, jax.random.key(0))).get_trace(**data)
        dims = [f.dim for s in trace.values() if s["type"] == "sample" for f in s["cond_indep_stack"]]
        return max([-d for d in dims], default=0)

    def log_prior(self, z: Tree, data: Tree, params: Tree) -> Any:
        if self.enumerable:  # a continuous site may depend on a discrete one, which is summed out here too
            alone = _Functions(
                lambda **kwargs: WithoutData()(self.model)(**kwargs), self.shapes, self.plate, True
            )
            return alone._log_joint_enumerated(z, data, params)
        trace, jacobians = self._run(z, data, params)
        return sum(jnp.sum(_log_prob(trace[n])) + jnp.sum(jacobians[n]) for n in self.shapes)

    def log_jacobian(self, z: Tree, data: Tree, params: Tree) -> Any:
        _, jacobians = self._run(z, data, params)
        return sum(jnp.sum(j) for j in jacobians.values())

    def site_jacobians(self, z: Tree, data: Tree, params: Tree) -> Tree:
        return self._run(z, data, params)[1]

    def constrain(self, z: Tree, data: Tree, params: Tree) -> Tree:
        trace, _ = self._run(z, data, params)
        return {n: trace[n]["value"] for n in self.shapes}

    def unconstrain(self, values: Tree, data: Tree, params: Tree) -> Tree:
        given = {**params, **{n: values[n] for n in self.shapes}}
        seeded = handlers.seed(handlers.substitute(self.model, data=given), jax.random.key(0))
        trace = handlers.trace(seeded).get_trace(**data)
        return {n: biject_to(trace[n]["fn"].support).inv(values[n]) for n in self.shapes}

    def sample_prior(self, key: Any, data: Tree, params: Tree) -> Tree:
        seeded = handlers.seed(handlers.substitute(self.model, data=dict(params)), key)
        trace = handlers.trace(seeded).get_trace(**data)
        return {n: biject_to(trace[n]["fn"].support).inv(trace[n]["value"]) for n in self.shapes}


def _with_statics(function: Callable, statics: dict[str, Any]) -> Callable:
    if not statics:
        return function

    def bound(**kwargs: Any) -> Any:
        return function(**kwargs, **statics)

    return bound


def _log_prob(site: Mapping[str, Any]) -> Any:
    fn, value = site["fn"], site["value"]
    if site["intermediates"]:
        term = fn.log_prob(value, site["intermediates"])
    else:
        term = fn.log_prob(value)
    return term if site["scale"] is None else site["scale"] * term


__all__ = ["Density", "arrays_of", "cached", "density_of", "signature", "split_arguments", "statics_of"]
