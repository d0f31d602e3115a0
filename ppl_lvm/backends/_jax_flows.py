"""Normalizing flows on JAX as guides: inverse autoregressive and spline coupling layers.

z = loc + L f(noise), with noise standard normal, f the layers in turn and L triangular. Layers start close to
the identity. Their parameters are flat, by name, so that they can be stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import stax
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.nn import AutoregressiveNN

from ppl_lvm.backends import _jax_splines as splines
from ppl_lvm.families import SPLINE_BOUND, Flow

_SMALL = 0.01  # of the last layer of a network at the start, beside its usual size
# A step of Adam that suits a location in sds of the posterior is too long for a network's weights: these are
# stored divided by this, so that they move by a tenth of it.
_PACE = 0.1


class Layer(NamedTuple):
    """A bijection of vectors (size,): ``init(key)`` -> parameters; both maps give (value, log det)."""

    init: Callable[[Any], Any]
    forward: Callable[[Any, Any], tuple[Any, Any]]
    inverse: Callable[[Any, Any], tuple[Any, Any]]


class Transport(NamedTuple):
    """A flow from noise (size,) to coordinates (size,), with flat parameters by name."""

    init: Callable[[Any], dict[str, Any]]
    forward: Callable[[Any, Any], tuple[Any, Any]]
    inverse: Callable[[Any, Any], tuple[Any, Any]]


def transport(size: int, settings: Flow, dtype: Any) -> Transport:
    """The layers of ``settings`` in turn, the coordinates reversed between two of them."""
    if settings.kind == "spline":
        layers = [_spline(size, settings, dtype) for _ in range(settings.num_layers)]
    else:  # on one coordinate an autoregressive layer is an affine map, which comes after the layers anyway
        layers = [_autoregressive(size, settings) for _ in range(settings.num_layers if size > 1 else 0)]
    shapes = jax.eval_shape(lambda key: [layer.init(key) for layer in layers], jax.random.key(0))
    names = [f"flow{jax.tree_util.keystr(path)}" for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    structure = jax.tree_util.tree_structure(shapes)

    def init(key: Any) -> dict[str, Any]:
        keys = jax.random.split(key, len(layers) + 1)
        made = [layer.init(k) for layer, k in zip(layers, keys, strict=False)]
        leaves = jax.tree_util.tree_leaves(made)
        return {n: jnp.asarray(v / _PACE, dtype) for n, v in zip(names, leaves, strict=True)}

    def own(params: Any) -> Any:
        return jax.tree_util.tree_unflatten(structure, [_PACE * params[n] for n in names])

    def forward(params: Any, x: Any) -> tuple[Any, Any]:
        total = jnp.zeros((), x.dtype)
        for layer, its in zip(layers, own(params), strict=True):
            x, log_det = layer.forward(its, x)
            x, total = x[::-1], total + log_det
        return x, total

    def inverse(params: Any, y: Any) -> tuple[Any, Any]:
        total = jnp.zeros((), y.dtype)
        for layer, its in reversed(list(zip(layers, own(params), strict=True))):
            y, log_det = layer.inverse(its, y[::-1])
            total = total + log_det
        return y, total

    return Transport(init, forward, inverse)


def _autoregressive(size: int, settings: Flow) -> Layer:
    width = settings.width_for(size)
    net_init, net = AutoregressiveNN(size, [width, width], nonlinearity=stax.Elu)

    def init(key: Any) -> Any:
        return _small_last(net_init(key, (size,))[1])

    def transform(params: Any) -> Any:
        return InverseAutoregressiveTransform(lambda x: net(params, x))

    def forward(params: Any, x: Any) -> tuple[Any, Any]:
        layer = transform(params)
        y, log_scale = layer.call_with_intermediates(x)
        return y, layer.log_abs_det_jacobian(x, y, log_scale)

    def inverse(params: Any, y: Any) -> tuple[Any, Any]:
        layer = transform(params)
        x = layer._inverse(y)
        return x, -layer.log_abs_det_jacobian(x, y)

    return Layer(init, forward, inverse)


def _small_last(params: Any) -> Any:
    """A network's parameters with those of its last layer with weights made small."""
    return [*params[:-1], jax.tree_util.tree_map(lambda v: _SMALL * v, params[-1])]


def _spline(size: int, settings: Flow, dtype: Any) -> Layer:
    """The first half by splines of its own, the second by splines that a network makes of the first."""
    head, width = size // 2, settings.width_for(size)
    free = splines.num_free(settings.num_bins)
    dense = (stax.Dense(width), stax.Elu, stax.Dense(width), stax.Elu, stax.Dense((size - head) * free))
    net_init, net = stax.serial(*dense)

    def init(key: Any) -> Any:
        if not head:  # nothing to make splines of
            return {"tail": jnp.zeros((size, free), dtype)}
        made = _small_last(net_init(key, (head,))[1])
        return {"head": jnp.zeros((head, free), dtype), "net": made}

    def tail_of(params: Any, first: Any) -> Any:
        return net(params["net"], first).reshape(size - head, free) if head else params["tail"]

    def pieces(params: Any, first: Any) -> Any:
        free_numbers = tail_of(params, first)
        if head:
            free_numbers = jnp.concatenate([params["head"], free_numbers])
        return splines.knots(free_numbers, SPLINE_BOUND)

    def forward(params: Any, x: Any) -> tuple[Any, Any]:
        y, log_slope = splines.forward(pieces(params, x[:head]), x)
        return y, log_slope.sum()

    def inverse(params: Any, y: Any) -> tuple[Any, Any]:
        first = y[:0]
        if head:
            first = splines.inverse(splines.knots(params["head"], SPLINE_BOUND), y[:head])[0]
        x, log_slope = splines.inverse(pieces(params, first), y)
        return x, log_slope.sum()

    return Layer(init, forward, inverse)


def flow_parts(size: int, settings: Flow, point: Any, start_scale: float) -> Transport:
    """The whole flow, the last affine map included; ``point`` (size,) is where it starts."""
    layers = transport(size, settings, point.dtype)
    dense = 1 < size <= settings.max_dense

    def init(key: Any) -> dict[str, Any]:
        base = {"loc": point, "log_scale": jnp.full_like(point, np.log(start_scale))}
        if dense:
            base["lower"] = jnp.zeros((size, size), point.dtype)
        return base | layers.init(key)

    def root(params: Any) -> Any:
        return jnp.tril(params["lower"], -1) + jnp.diag(jnp.exp(params["log_scale"]))

    def forward(params: Any, noise: Any) -> tuple[Any, Any]:
        bent, log_det = layers.forward(params, noise)
        moved = root(params) @ bent if dense else jnp.exp(params["log_scale"]) * bent
        return params["loc"] + moved, log_det + params["log_scale"].sum()

    def inverse(params: Any, flat: Any) -> tuple[Any, Any]:
        gap = flat - params["loc"]
        if dense:
            bent = jax.scipy.linalg.solve_triangular(root(params), gap, lower=True)
        else:
            bent = gap * jnp.exp(-params["log_scale"])
        noise, log_det = layers.inverse(params, bent)
        return noise, log_det - params["log_scale"].sum()

    return Transport(init, forward, inverse)
