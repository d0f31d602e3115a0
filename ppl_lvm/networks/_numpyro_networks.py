"""Networks as equinox modules; the paths of their arrays are the names of ``Network.encoder_shapes``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax

from ppl_lvm.networks._specs import MLP, Conv, Network, Shape

ACTIVATION: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
}


class Dense(eqx.Module):
    """(..., in) -> (..., out)."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        return x @ self.weight.T + self.bias


class Convolution(eqx.Module):
    """(b, in, height, width) -> (b, out, height', width'), zeros around the border."""

    weight: Array
    bias: Array
    stride: int = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        edge = self.weight.shape[-1] // 2
        out = lax.conv_general_dilated(
            x,
            self.weight,
            (self.stride, self.stride),
            [(edge, edge)] * 2,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )
        return out + self.bias[:, None, None]


class Layers(eqx.Module):
    """Dense layers with an activation between them."""

    layers: list[Dense]
    activation: str = eqx.field(static=True)

    def dense(self, x: Array) -> Array:
        act = ACTIVATION[self.activation]
        for layer in self.layers[:-1]:
            x = act(layer(x))
        return self.layers[-1](x)


class Encoder(Layers):
    """(b, *image) -> (b, num_out)."""

    def __call__(self, x: Array) -> Array:
        return self.dense(x.reshape(x.shape[0], -1))


class Decoder(Layers):
    """(..., num_in) -> (..., *image)."""

    image: Shape = eqx.field(static=True)

    def __call__(self, z: Array) -> Array:
        return self.dense(z).reshape(*z.shape[:-1], *self.image)


class ConvEncoder(Layers):
    """(b, [channels,] height, width) -> (b, num_out)."""

    convs: list[Convolution]
    depth: int = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        x = x[:, None] if self.depth == 2 else x
        for conv in self.convs:
            x = ACTIVATION[self.activation](conv(x))
        return self.dense(x.reshape(x.shape[0], -1))


class ConvDecoder(Layers):
    """(..., num_in) -> (..., [channels,] height, width)."""

    convs: list[Convolution]
    sizes: tuple[tuple[int, int], ...] = eqx.field(static=True)
    image: Shape = eqx.field(static=True)

    def __call__(self, z: Array) -> Array:
        act = ACTIVATION[self.activation]
        x = act(self.dense(z.reshape(-1, z.shape[-1])))
        x = x.reshape(x.shape[0], -1, *self.sizes[0])
        for i, (conv, (height, width)) in enumerate(zip(self.convs, self.sizes[1:], strict=True)):
            x = jnp.repeat(jnp.repeat(x, 2, -2)[..., :height, :], 2, -1)[..., :width]
            x = conv(x)
            x = x if i == len(self.convs) - 1 else act(x)
        return x.reshape(*z.shape[:-1], *self.image)


def _dense(weights: Mapping[str, Any]) -> list[Dense]:
    count = sum(n.startswith("layers.") and n.endswith("weight") for n in weights)
    return [Dense(weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]) for i in range(count)]


def _convolutions(weights: Mapping[str, Any], stride: int) -> list[Convolution]:
    count = sum(n.startswith("convs.") and n.endswith("weight") for n in weights)
    return [
        Convolution(weights[f"convs.{i}.weight"], weights[f"convs.{i}.bias"], stride) for i in range(count)
    ]


def build_encoder(spec: Network, image: Shape, weights: Mapping[str, Any]) -> Any:
    """The network with the given weights, by name."""
    if isinstance(spec, MLP):
        return Encoder(_dense(weights), spec.activation)
    if isinstance(spec, Conv):
        return ConvEncoder(_dense(weights), spec.activation, _convolutions(weights, 2), len(image))
    raise TypeError(f"encoder: expected MLP(...) or Conv(...), got {spec!r}.")


def build_decoder(spec: Network, image: Shape, weights: Mapping[str, Any]) -> Any:
    """The network with the given weights, by name."""
    if isinstance(spec, MLP):
        return Decoder(_dense(weights), spec.activation, image)
    if isinstance(spec, Conv):
        sizes = tuple(reversed(spec.sizes(image)))
        return ConvDecoder(_dense(weights), spec.activation, _convolutions(weights, 1), sizes, image)
    raise TypeError(f"decoder: expected MLP(...) or Conv(...), got {spec!r}.")


def named_arrays(module: Any) -> dict[str, Any]:
    """The floating-point arrays of an equinox module by path, as in ``layers.0.weight``."""
    arrays = eqx.filter(module, eqx.is_inexact_array)
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def with_arrays(module: Any, values: Mapping[str, Any]) -> Any:
    """The module with its floating-point arrays replaced, by the names of :func:`named_arrays`."""
    arrays, rest = eqx.partition(module, eqx.is_inexact_array)
    paths, structure = jax.tree_util.tree_flatten_with_path(arrays)
    leaves = [values[jax.tree_util.keystr(path, simple=True, separator=".")] for path, _ in paths]
    return eqx.combine(jax.tree_util.tree_unflatten(structure, leaves), rest)
