"""Layers of neural networks: activations, convolutions, normalisation, embeddings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import each
from ppl_lvm.backends.translate.rules.reduction import vector_norm


@rule("aten.relu")
def relu(x: Any) -> Any:
    return jnp.where(x > 0, x, jnp.zeros_like(x))


@rule("aten.leaky_relu")
def leaky_relu(x: Any, slope: Any = 0.01) -> Any:
    return jnp.where(x > 0, x, slope * x)


@rule("aten.elu")
def elu(x: Any, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Any:
    below = alpha * jnp.expm1(jnp.where(x > 0, 0.0, x) * input_scale)
    return scale * jnp.where(x > 0, x, below)


@rule("aten.gelu")
def gelu(x: Any, *, approximate: str = "none") -> Any:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


@rule("aten.silu")
def silu(x: Any) -> Any:
    return x * jax.nn.sigmoid(x)


@rule("aten.mish")
def mish(x: Any) -> Any:
    return x * jnp.tanh(jax.nn.softplus(x))


@rule("aten.hardtanh")
def hardtanh(x: Any, low: Any = -1, high: Any = 1) -> Any:
    """The derivative at a bound is 0, unlike that of clamp."""
    return jnp.where(x <= low, low, jnp.where(x >= high, high, x))


@rule("aten.hardsigmoid")
def hardsigmoid(x: Any) -> Any:
    return hardtanh(x, -3, 3) / 6 + 0.5


@rule("aten.hardswish")
def hardswish(x: Any) -> Any:
    return jnp.where(x <= -3, 0.0, jnp.where(x < 3, x * (x + 3) / 6, x))


@rule("aten._prelu_kernel")
def prelu(x: Any, weight: Any) -> Any:
    return jnp.where(x > 0, x, weight * x)


@rule("aten.glu")
def glu(x: Any, dim: int = -1) -> Any:
    a, b = jnp.split(x, 2, dim)
    return a * jax.nn.sigmoid(b)


@rule("aten.threshold")
def threshold(x: Any, limit: Any, value: Any) -> Any:
    return jnp.where(x > limit, x, value)


@rule("aten.embedding")
def embedding(weight: Any, indices: Any, padding: int = -1, *args: Any) -> Any:
    """The row at ``padding`` has no derivative."""
    found = jnp.asarray(weight)[indices]
    if padding < 0:
        return found
    return jnp.where((indices == padding)[..., None], lax.stop_gradient(found), found)


@rule("aten.convolution")
def convolution(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    n = x.ndim - 2
    stride, padding, dilation = each(stride, n), each(padding, n), each(dilation, n)
    spatial = "DHW"[-n:]
    layout = ("NC" + spatial, "OI" + spatial, "NC" + spatial)
    if not transposed:
        out = lax.conv_general_dilated(
            x, weight, tuple(stride), [(p, p) for p in padding], rhs_dilation=tuple(dilation),
            dimension_numbers=layout, feature_group_count=groups,
        )  # fmt: skip
    else:
        out = _transposed(x, weight, stride, padding, dilation, each(output_padding, n), groups, layout)
    return out if bias is None else out + bias.reshape((1, -1) + (1,) * (x.ndim - 2))


def _transposed(
    x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, extra: Any, groups: int, layout: Any
) -> Any:
    """The adjoint of a convolution: input dilated by the stride, kernel turned round, (in, out/g) swapped."""
    size = weight.shape[2:]
    turned = jnp.flip(weight, tuple(range(2, weight.ndim)))
    turned = turned.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).swapaxes(1, 2)
    turned = turned.reshape(groups * weight.shape[1], weight.shape[0] // groups, *size)
    reach = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
    pads = [(r - p, r - p + e) for r, p, e in zip(reach, padding, extra, strict=True)]
    return lax.conv_general_dilated(
        x, turned, (1,) * len(size), pads, lhs_dilation=tuple(stride), rhs_dilation=tuple(dilation),
        dimension_numbers=layout, feature_group_count=groups,
    )  # fmt: skip


@rule("aten.constant_pad_nd")
def constant_pad(x: Any, pad: Any, value: Any = 0) -> Any:
    """Torch lists pads from the last axis; negative ones cut."""
    pairs = [(int(pad[i]), int(pad[i + 1])) for i in range(0, len(pad), 2)]
    widths = [(0, 0, 0)] * (jnp.ndim(x) - len(pairs)) + [(a, b, 0) for a, b in reversed(pairs)]
    return lax.pad(jnp.asarray(x), jnp.asarray(value, jnp.asarray(x).dtype), widths)


@rule("aten._weight_norm_interface")
def weight_norm(v: Any, g: Any, dim: int = 0) -> Any:
    """Weights of given norms g along one axis (-1: of all together) in the directions of v."""
    rest = tuple(a for a in range(v.ndim) if dim == -1 or a != dim)
    norms = vector_norm(v, 2, rest, True)
    return v * (g / norms), norms


@rule("aten.native_layer_norm")
def native_layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    along = tuple(range(-len(shape), 0))
    mean = jnp.mean(x, along, keepdims=True)
    scale = lax.rsqrt(jnp.var(x, along, keepdims=True) + eps)
    out = (x - mean) * scale
    out = out if weight is None else out * weight
    return (out if bias is None else out + bias), mean, scale


@rule("aten.native_group_norm")
def native_group_norm(
    x: Any, weight: Any, bias: Any, n: int, channels: int, size: int, groups: int, eps: float
) -> Any:
    shape = jnp.shape(x)
    parts = jnp.reshape(x, (n, groups, -1))
    mean, var = jnp.mean(parts, -1, keepdims=True), jnp.var(parts, -1, keepdims=True)
    out = jnp.reshape((parts - mean) * lax.rsqrt(var + eps), shape)
    along = (1, channels) + (1,) * (len(shape) - 2)
    out = out if weight is None else out * weight.reshape(along)
    out = out if bias is None else out + bias.reshape(along)
    return out, mean[..., 0], lax.rsqrt(var + eps)[..., 0]


@rule("aten.native_batch_norm")
def batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Any:
    """With running statistics (evaluation mode), or those of the batch; running ones do not move."""
    along = tuple(a for a in range(x.ndim) if a != 1)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var = (jnp.mean(x, along), jnp.var(x, along)) if training else (mean, var)
    scale = lax.rsqrt(var + eps)
    out = (x - mean.reshape(shape)) * scale.reshape(shape)
    out = out if weight is None else out * weight.reshape(shape)
    return (out if bias is None else out + bias.reshape(shape)), mean, scale


@rule("aten._trilinear")
def trilinear(
    a: Any, b: Any, c: Any, expand_a: Any, expand_b: Any, expand_c: Any, summed: Any, unroll: int = 1
) -> Any:
    """The product of three tensors with axes of length 1 put in, summed along axes: a bilinear layer."""
    pairs = ((a, expand_a), (b, expand_b), (c, expand_c))
    x, y, z = (jnp.expand_dims(value, tuple(axes)) for value, axes in pairs)
    return jnp.sum(x * y * z, tuple(summed))
