"""Reading and writing parts of tensors, out of place."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends.translate.rules import rule

_FEW = 32


def at_axis(x: Any, dim: int, what: Any) -> tuple:
    return (slice(None),) * (dim % jnp.ndim(x)) + (what,)


@rule("aten.select", "aten.select_copy")
def select(x: Any, dim: int, index: int) -> Any:
    return x[at_axis(x, dim, index)]


@rule("aten.slice", "aten.slice_copy")
def slice_of(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return x[at_axis(x, dim, slice(start, end, step))]


@rule("aten.narrow_copy")
def narrow(x: Any, dim: int, start: int, length: int) -> Any:
    return lax.dynamic_slice_in_dim(x, start, length, dim % jnp.ndim(x))


@rule("aten.slice_scatter")
def slice_scatter(
    x: Any, source: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    return jnp.asarray(x).at[at_axis(x, dim, slice(start, end, step))].set(source)


@rule("aten.select_scatter")
def select_scatter(x: Any, source: Any, dim: int, index: int) -> Any:
    return jnp.asarray(x).at[at_axis(x, dim, index)].set(source)


@rule("aten.diagonal_scatter")
def diagonal_scatter(x: Any, source: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    moved = jnp.moveaxis(jnp.asarray(x), (dim1, dim2), (-2, -1))
    count = jnp.shape(source)[-1]
    rows, columns = jnp.arange(count) + max(-offset, 0), jnp.arange(count) + max(offset, 0)
    return jnp.moveaxis(moved.at[..., rows, columns].set(source), (-2, -1), (dim1, dim2))


def _index(indices: Any) -> tuple:
    return tuple(slice(None) if i is None else i for i in indices)


@rule("aten.index", "aten._unsafe_index")
def index(x: Any, indices: Any) -> Any:
    """As NumPy: index arrays with a full slice between them put their axes first, in torch too.

    Where a constant index counts through a whole axis, as the values of an enumerated site do, it only
    reshapes, which spares a scatter in the gradient.
    """
    given = [i for i, one in enumerate(indices) if one is not None]
    if len(given) == 1 and _counts_through(indices[given[0]], jnp.shape(x)[given[0]]):
        shape, at = jnp.shape(x), given[0]
        return jnp.reshape(x, (*shape[:at], *np.shape(indices[at]), *shape[at + 1 :]))
    return jnp.asarray(x)[_index(indices)]


def _counts_through(index: Any, size: int) -> bool:
    if not isinstance(index, np.ndarray) or index.dtype == bool:
        return False
    return np.array_equal(index.ravel(), range(size))


def fills(x: Any, indices: Any, values: Any) -> bool:
    """Whether a write by one boolean mask gives the same values to all places, so that it is a ``where``."""
    masks = [i for i in indices if i is not None]
    if len(masks) != 1 or len(indices) != 1 or "bool" not in str(masks[0].dtype):
        return False
    mask, value = tuple(masks[0].shape), tuple(values.shape)
    rest = tuple(x.shape)[len(mask) :]
    return len(value) <= len(rest) or all(n == 1 for n in value[: len(value) - len(rest)])


@rule("aten.index_put", "aten._index_put_impl", "aten._unsafe_index_put")
def index_put(x: Any, indices: Any, values: Any, accumulate: bool = False, unsafe: bool = False) -> Any:
    x, values = jnp.asarray(x), jnp.asarray(values)
    if fills(x, indices, values):
        mask = jnp.reshape(indices[0], jnp.shape(indices[0]) + (1,) * (x.ndim - jnp.ndim(indices[0])))
        one = jnp.reshape(
            values, values.shape[values.ndim - min(values.ndim, x.ndim - jnp.ndim(indices[0])) :]
        )
        return jnp.where(mask, x + one if accumulate else one, x)
    place = x.at[_index(indices)]
    return place.add(values) if accumulate else place.set(values)


@rule("aten.gather")
def gather(x: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    if jnp.ndim(x) == 0:
        return jnp.broadcast_to(x, jnp.shape(index))
    if jnp.ndim(index) == 0:
        return jnp.reshape(x, (-1,))[index]
    if _picks_one_of_few(x, dim, index):
        chosen = np.moveaxis(index, dim, -1) == np.arange(jnp.shape(x)[dim])
        picked = jnp.where(chosen, jnp.moveaxis(x, dim, -1), 0).sum(-1)
        return jnp.expand_dims(picked, dim)
    own = jnp.asarray(x)[tuple(slice(0, n) if a != dim % jnp.ndim(x) else slice(None)
                               for a, n in enumerate(jnp.shape(index)))]  # fmt: skip
    return jnp.take_along_axis(own, index, dim)


def _picks_one_of_few(x: Any, dim: int, index: Any) -> bool:
    """Whether a constant index takes one of a few entries: a masked sum spares the gradient a scatter."""
    if not isinstance(index, np.ndarray) or index.shape[dim] != 1 or jnp.shape(x)[dim] > _FEW:
        return False
    rest = [a for a in range(index.ndim) if a != dim % index.ndim]
    return all(index.shape[a] == jnp.shape(x)[a] for a in rest)


@rule("aten.take")
def take(x: Any, index: Any) -> Any:
    return jnp.ravel(x)[index]


@rule("aten.index_select")
def index_select(x: Any, dim: int, index: Any) -> Any:
    return jnp.take(x, jnp.ravel(index), dim) if jnp.ndim(x) else x


@rule("aten.bucketize")
def bucketize(x: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    return jnp.searchsorted(boundaries, x, side="right" if right else "left")


@rule("aten.searchsorted")
def searchsorted(
    boundaries: Any,
    x: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: Any = None,
    sorter: Any = None,
) -> Any:
    side = "right" if right or side == "right" else "left"
    if sorter is not None:
        boundaries = jnp.take_along_axis(boundaries, sorter, -1)
    if jnp.ndim(boundaries) == 1:
        return jnp.searchsorted(boundaries, x, side=side)
    compare = jnp.less_equal if side == "right" else jnp.less
    return compare(boundaries[..., None, :], x[..., :, None]).sum(-1)


@rule("aten.unfold")
def unfold(x: Any, dim: int, size: int, step: int) -> Any:
    starts = np.arange(0, jnp.shape(x)[dim] - size + 1, step)
    picked = jnp.take(x, starts[:, None] + np.arange(size), dim)
    return jnp.moveaxis(picked, dim % jnp.ndim(x) + 1, -1)


@rule("aten.as_strided", "aten.as_strided_copy")
def as_strided(x: Any, size: Any, stride: Any, offset: Any = None) -> Any:
    """Of a contiguous tensor, as what torch records."""
    places = np.full(tuple(size), offset or 0)
    for axis, (n, step) in enumerate(zip(size, stride, strict=True)):
        places = places + step * np.arange(n).reshape((-1,) + (1,) * (len(size) - axis - 1))
    return jnp.ravel(x)[places]


@rule("ppl_lvm.take_masked")
def take_masked(x: Any, mask: Any) -> Any:
    """Entries outside of the mask are those of its first place, where what follows has a derivative."""
    kept = jnp.reshape(x, (mask.size, -1))
    held = jnp.reshape(mask, (-1, 1))
    return jnp.reshape(jnp.where(held, kept, kept[jnp.argmax(held)]), jnp.shape(x))


@rule("ppl_lvm.put_masked")
def put_masked(x: Any, mask: Any, values: Any) -> Any:
    return jnp.where(jnp.reshape(mask, mask.shape + (1,) * (jnp.ndim(x) - mask.ndim)), values, x)
