"""Reading and writing parts of tensors, out of place."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends.translate.rules import rule


def _at(x: Any, dim: int, what: Any) -> tuple:
    return (slice(None),) * (dim % jnp.ndim(x)) + (what,)


@rule("aten.select", "aten.select_copy")
def select(x: Any, dim: int, index: int) -> Any:
    return x[_at(x, dim, index)]


@rule("aten.slice", "aten.slice_copy")
def slice_of(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return x[_at(x, dim, slice(start, end, step))]


@rule("aten.narrow", "aten.narrow_copy")
def narrow(x: Any, dim: int, start: int, length: int) -> Any:
    return lax.dynamic_slice_in_dim(x, start, length, dim % jnp.ndim(x))


@rule("aten.slice_scatter")
def slice_scatter(
    x: Any, source: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    return jnp.asarray(x).at[_at(x, dim, slice(start, end, step))].set(source)


@rule("aten.select_scatter")
def select_scatter(x: Any, source: Any, dim: int, index: int) -> Any:
    return jnp.asarray(x).at[_at(x, dim, index)].set(source)


@rule("aten.diagonal_scatter")
def diagonal_scatter(x: Any, source: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    moved = jnp.moveaxis(jnp.asarray(x), (dim1, dim2), (-2, -1))
    count = jnp.shape(source)[-1]
    rows, columns = jnp.arange(count) + max(-offset, 0), jnp.arange(count) + max(offset, 0)
    return jnp.moveaxis(moved.at[..., rows, columns].set(source), (-2, -1), (dim1, dim2))


def _index(indices: Any) -> tuple:
    return tuple(slice(None) if i is None else i for i in indices)


@rule("aten.index")
def index(x: Any, indices: Any) -> Any:
    """As NumPy: index arrays with a full slice between them put their axes first, in torch too."""
    return jnp.asarray(x)[_index(indices)]


@rule("aten.index_put", "aten._index_put_impl", "aten._unsafe_index_put")
def index_put(x: Any, indices: Any, values: Any, accumulate: bool = False, unsafe: bool = False) -> Any:
    place = jnp.asarray(x).at[_index(indices)]
    return place.add(values) if accumulate else place.set(values)


@rule("aten.gather")
def gather(x: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    if jnp.ndim(x) == 0:
        return x
    own = jnp.asarray(x)[tuple(slice(0, n) if a != dim % jnp.ndim(x) else slice(None)
                               for a, n in enumerate(jnp.shape(index)))]  # fmt: skip
    return jnp.take_along_axis(own, index, dim)


@rule("aten.take_along_dim")
def take_along_dim(x: Any, indices: Any, dim: Any = None) -> Any:
    return jnp.take_along_axis(x, indices, dim)


@rule("aten.take")
def take(x: Any, index: Any) -> Any:
    return jnp.ravel(x)[index]


@rule("aten.index_select")
def index_select(x: Any, dim: int, index: Any) -> Any:
    return jnp.take(x, jnp.ravel(index), dim) if jnp.ndim(x) else x


@rule("aten.masked_scatter")
def masked_scatter(x: Any, mask: Any, source: Any) -> Any:
    flat = jnp.broadcast_to(mask, jnp.shape(x)).ravel()
    order = jnp.clip(jnp.cumsum(flat) - 1, 0, jnp.size(source) - 1)
    return jnp.where(flat, jnp.ravel(source)[order], jnp.ravel(x)).reshape(jnp.shape(x))


def _along(x: Any, dim: int, index: Any) -> tuple:
    grids = list(jnp.meshgrid(*[jnp.arange(n) for n in jnp.shape(index)], indexing="ij"))
    grids[dim % jnp.ndim(x)] = index
    return tuple(grids)


@rule("aten.scatter")
def scatter(x: Any, dim: int, index: Any, source: Any, *, reduce: str | None = None) -> Any:
    places = _along(x, dim, index)
    values = source if jnp.ndim(source) == 0 else source[tuple(slice(0, n) for n in jnp.shape(index))]
    place = jnp.asarray(x).at[places]
    return {None: place.set, "add": place.add, "multiply": place.multiply}[reduce](values)


@rule("aten.scatter_add")
def scatter_add(x: Any, dim: int, index: Any, source: Any) -> Any:
    return scatter(x, dim, index, source, reduce="add")


@rule("aten.index_add")
def index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    return jnp.asarray(x).at[_at(x, dim, index)].add(alpha * source)


@rule("aten.index_copy")
def index_copy(x: Any, dim: int, index: Any, source: Any) -> Any:
    return jnp.asarray(x).at[_at(x, dim, index)].set(source)


@rule("aten.index_fill")
def index_fill(x: Any, dim: int, index: Any, value: Any) -> Any:
    return jnp.asarray(x).at[_at(x, dim, index)].set(value)


@rule("aten.bucketize")
def bucketize(x: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    return jnp.searchsorted(boundaries, x, side="right" if right else "left")


@rule("aten.searchsorted")
def searchsorted(boundaries: Any, x: Any, *, out_int32: bool = False, right: bool = False, **kw: Any) -> Any:
    side = "right" if right or kw.get("side") == "right" else "left"
    if jnp.ndim(boundaries) == 1:
        return jnp.searchsorted(boundaries, x, side=side)
    compare = jnp.less_equal if side == "right" else jnp.less
    return compare(boundaries[..., None, :], x[..., :, None]).sum(-1)


@rule("aten.one_hot")
def one_hot(x: Any, num_classes: int) -> Any:
    return (jnp.asarray(x)[..., None] == jnp.arange(num_classes)).astype(jnp.int_)


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


@rule("aten.combinations")
def combinations(x: Any, r: int = 2, with_replacement: bool = False) -> Any:
    import itertools

    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    return x[np.array(list(choose(range(len(x)), r)))]
