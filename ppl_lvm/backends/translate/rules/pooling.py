"""Pooling: the largest or the mean of windows, whose positions are worked out while the graph is planned.

Windows are gathered with constant indices, so that dilation, ceil_mode and uneven windows need no cases of
their own, and the derivative of a maximum goes to its first place, as in torch.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import each

Axis = tuple[np.ndarray, np.ndarray]  # (out, window) positions and whether they lie in the input


def _regular(length: int, size: int, step: int, pad: int, spread: int, ceil: bool) -> Axis:
    reach = length + 2 * pad - spread * (size - 1) - 1
    count = reach // step + 1
    if ceil and reach % step and count * step < length + pad:  # a window may not begin beyond the input
        count += 1
    places = np.arange(count)[:, None] * step + np.arange(size) * spread - pad
    return places, (places >= 0) & (places < length)


def _adaptive(length: int, count: int) -> Axis:
    starts = np.arange(count) * length // count
    ends = -(-(np.arange(1, count + 1) * length) // count)
    places = starts[:, None] + np.arange(int((ends - starts).max(initial=0)))
    return places, places < ends[:, None]


def _windows(x: Any, axes: list[Axis]) -> tuple[Any, np.ndarray, np.ndarray]:
    """(..., *out, window), whether each entry lies in the input, and its place in the flattened input."""
    n, shape = len(axes), jnp.shape(x)[jnp.ndim(x) - len(axes) :]
    index: list[np.ndarray] = []
    inside, place = np.ones((), bool), np.zeros((), np.int64)
    for a, (places, valid) in enumerate(axes):
        form = [1] * (2 * n)
        form[a], form[n + a] = places.shape
        own = np.clip(places, 0, shape[a] - 1).reshape(form)
        index.append(own)
        inside, place = inside & valid.reshape(form), place * shape[a] + own
    out = tuple(len(places) for places, _ in axes)
    taken = jnp.asarray(x)[(..., *index)]
    flat = (*out, -1)
    taken = taken.reshape((*jnp.shape(x)[: jnp.ndim(x) - n], *flat))
    return taken, inside.reshape(flat), place.reshape(flat)


def _largest(x: Any, axes: list[Axis]) -> tuple[Any, Any]:
    windows, inside, place = _windows(x, axes)
    shown = jnp.where(inside, windows, -jnp.inf)
    best = jnp.argmax(shown, -1, keepdims=True)
    found = jnp.take_along_axis(jnp.broadcast_to(place, shown.shape), best, -1)
    return jnp.take_along_axis(shown, best, -1)[..., 0], found[..., 0]


@rule("aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices")
def max_pool(
    x: Any, size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Any:
    n = 2 if len(each(size, 1)) < 3 and jnp.ndim(x) < 5 else 3
    return _largest(x, _axes(x, n, size, stride, padding, dilation, ceil))


def _axes(x: Any, n: int, size: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> list[Axis]:
    sizes = each(size, n)
    steps, pads, spreads = each(stride or sizes, n), each(padding, n), each(dilation, n)
    lengths = jnp.shape(x)[jnp.ndim(x) - n :]
    return [_regular(*own, ceil) for own in zip(lengths, sizes, steps, pads, spreads, strict=True)]


@rule("aten.avg_pool2d")
def avg_pool2d(x: Any, size: Any, stride: Any = (), padding: Any = 0, *rest: Any) -> Any:
    return _average(x, 2, size, stride, padding, *rest)


@rule("aten.avg_pool3d")
def avg_pool3d(x: Any, size: Any, stride: Any = (), padding: Any = 0, *rest: Any) -> Any:
    return _average(x, 3, size, stride, padding, *rest)


def _average(
    x: Any, n: int, size: Any, stride: Any, padding: Any, ceil: bool = False, count_pad: bool = True,
    divisor: Any = None,
) -> Any:  # fmt: skip
    axes = _axes(x, n, size, stride, padding, 1, ceil)
    windows, inside, _ = _windows(x, axes)
    total = jnp.sum(jnp.where(inside, windows, 0.0), -1)
    if divisor is not None:
        return total / divisor
    if not count_pad:
        return total / inside.sum(-1)
    return total / _padded_count(x, axes, each(padding, n))


def _padded_count(x: Any, axes: list[Axis], pads: tuple[int, ...]) -> np.ndarray:
    """Entries of each window that lie in the input or its padding, but not beyond as ceil_mode reaches."""
    n, lengths = len(axes), jnp.shape(x)[jnp.ndim(x) - len(axes) :]
    count = np.ones((1,) * n)
    for a, ((places, _), pad, length) in enumerate(zip(axes, pads, lengths, strict=True)):
        own = ((places >= -pad) & (places < length + pad)).sum(-1)
        count = count * own.reshape([-1 if b == a else 1 for b in range(n)])
    return count


@rule("aten._adaptive_avg_pool2d", "aten._adaptive_avg_pool3d")
def adaptive_avg_pool(x: Any, size: Any) -> Any:
    windows, inside, _ = _windows(x, _adaptive_axes(x, size))
    return jnp.sum(jnp.where(inside, windows, 0.0), -1) / inside.sum(-1)


@rule("aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d")
def adaptive_max_pool(x: Any, size: Any) -> Any:
    return _largest(x, _adaptive_axes(x, size))


def _adaptive_axes(x: Any, size: Any) -> list[Axis]:
    lengths = jnp.shape(x)[jnp.ndim(x) - len(size) :]
    return [_adaptive(length, count) for length, count in zip(lengths, size, strict=True)]
