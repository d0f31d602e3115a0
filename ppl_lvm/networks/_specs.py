"""Descriptions of networks: settings, the shapes of their weights, and where these start."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ACTIVATIONS = ("relu", "tanh", "gelu", "silu", "softplus", "elu", "leaky_relu")
Shape = tuple[int, ...]
Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Network(ABC):
    """A network between a vector and an image (or an array of any shape, flattened)."""

    @property
    @abstractmethod
    def activation_name(self) -> str: ...

    @abstractmethod
    def check(self, image: Shape) -> None:
        """Raise ``ValueError`` if the network does not suit images of this shape."""

    @abstractmethod
    def encoder_shapes(self, image: Shape, num_out: int) -> dict[str, Shape]:
        """Shapes of the weights of the network from ``image`` to ``num_out`` numbers, by name."""

    @abstractmethod
    def decoder_shapes(self, num_in: int, image: Shape) -> dict[str, Shape]:
        """Shapes of the weights of the network from ``num_in`` numbers to ``image``, by name."""

    def to_settings(self) -> dict[str, Any]:
        return {"network": type(self).__name__, **asdict(self)}


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    try:
        found = tuple(value)
    except TypeError:
        found = (value,)
    if any(isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < 1 for v in found):
        raise ValueError(f"{name}: expected positive integers such as (200, 200), got {value!r}.")
    return tuple(int(v) for v in found)


def _check_activation(name: Any) -> None:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {ACTIVATIONS}, got {name!r}.")


def _dense(widths: list[int]) -> dict[str, Shape]:
    out: dict[str, Shape] = {}
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        out[f"layers.{i}.weight"] = (after, before)
        out[f"layers.{i}.bias"] = (after,)
    return out


@dataclass(frozen=True)
class MLP(Network):
    """Dense layers of the widths ``hidden``, each followed by ``activation``; the last layer is linear.

    ``hidden=()`` is a linear map.
    """

    hidden: tuple[int, ...] = (400, 400)
    activation: str = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", _sizes("hidden", self.hidden))
        _check_activation(self.activation)

    @property
    def activation_name(self) -> str:
        return self.activation

    def check(self, image: Shape) -> None:
        del image

    def encoder_shapes(self, image: Shape, num_out: int) -> dict[str, Shape]:
        return _dense([math.prod(image), *self.hidden, num_out])

    def decoder_shapes(self, num_in: int, image: Shape) -> dict[str, Shape]:
        return _dense([num_in, *reversed(self.hidden), math.prod(image)])


@dataclass(frozen=True)
class Conv(Network):
    """Convolutions for images (height, width) or (channels, height, width).

    The encoder halves height and width at each of ``channels`` (stride 2), then has dense layers ``hidden``;
    the decoder is its mirror image, enlarging by repeated pixels.
    """

    channels: tuple[int, ...] = (32, 64)
    hidden: tuple[int, ...] = (256,)
    kernel_size: int = 3
    activation: str = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", _sizes("channels", self.channels))
        object.__setattr__(self, "hidden", _sizes("hidden", self.hidden))
        if not self.channels:
            raise ValueError("channels: expected at least one convolution; use MLP for none.")
        odd = isinstance(self.kernel_size, int) and self.kernel_size % 2 == 1 and self.kernel_size > 0
        if not odd:
            raise ValueError(f"kernel_size: expected an odd positive integer, got {self.kernel_size!r}.")
        _check_activation(self.activation)

    @property
    def activation_name(self) -> str:
        return self.activation

    def check(self, image: Shape) -> None:
        if len(image) not in (2, 3):
            raise ValueError(
                f"Conv: expected images (height, width) or (channels, height, width), got rows of shape "
                f"{image}; reshape the data, or use MLP."
            )
        smallest = 2 ** len(self.channels)
        if min(image[-2:]) < smallest:
            raise ValueError(
                f"Conv: images of {image[-2]} x {image[-1]} are too small to be halved {len(self.channels)} "
                f"times (at least {smallest}); give fewer channels."
            )

    def sizes(self, image: Shape) -> list[tuple[int, int]]:
        """(height, width) of the image and after each halving."""
        out = [(image[-2], image[-1])]
        for _ in self.channels:
            out.append(((out[-1][0] + 1) // 2, (out[-1][1] + 1) // 2))
        return out

    def encoder_shapes(self, image: Shape, num_out: int) -> dict[str, Shape]:
        depth = [_depth(image), *self.channels]
        last = self.sizes(image)[-1]
        return {
            **self._convolutions(depth),
            **_dense([depth[-1] * last[0] * last[1], *self.hidden, num_out]),
        }

    def decoder_shapes(self, num_in: int, image: Shape) -> dict[str, Shape]:
        depth = [*reversed(self.channels), _depth(image)]
        first = self.sizes(image)[-1]
        return {
            **_dense([num_in, *reversed(self.hidden), depth[0] * first[0] * first[1]]),
            **self._convolutions(depth),
        }

    def _convolutions(self, depth: list[int]) -> dict[str, Shape]:
        out: dict[str, Shape] = {}
        k = self.kernel_size
        for i, (before, after) in enumerate(itertools.pairwise(depth)):
            out[f"convs.{i}.weight"] = (after, before, k, k)
            out[f"convs.{i}.bias"] = (after,)
        return out


def _depth(image: Shape) -> int:
    return 1 if len(image) == 2 else image[0]


def initial_weights(
    shapes: Mapping[str, Shape], activation: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Where weights start: uniform, biases zero.

    Bounds are sqrt(6 / fan_in) before a rectifier (He et al. 2015) and sqrt(6 / (fan_in + fan_out))
    otherwise, the last layer included (Glorot and Bengio 2010).
    """
    names = [n for n in shapes if n.endswith("weight")]
    out = {n: np.zeros(s) for n, s in shapes.items()}
    for name in names:
        shape = shapes[name]
        area = math.prod(shape[2:])
        fan_in, fan_out = shape[1] * area, shape[0] * area
        rectified = activation not in ("tanh", "softplus") and name != names[-1]
        limit = math.sqrt(6.0 / fan_in if rectified else 6.0 / (fan_in + fan_out))
        out[name] = rng.uniform(-limit, limit, shape)
    return out
