"""Writing into tensors along an axis, out of place."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import with_axis
from ppl_lvm.backends.translate.rules.indexing import at_axis


@rule("aten.masked_scatter")
def masked_scatter(x: Any, mask: Any, source: Any) -> Any:
    shape = jnp.broadcast_shapes(jnp.shape(x), jnp.shape(mask))
    flat = jnp.broadcast_to(mask, shape).ravel()
    order = jnp.clip(jnp.cumsum(flat) - 1, 0, jnp.size(source) - 1)
    kept = jnp.broadcast_to(x, shape).ravel()
    return jnp.where(flat, jnp.ravel(source)[order], kept).reshape(shape)


def _along(dim: int, index: Any) -> tuple:
    grids = list(jnp.meshgrid(*[jnp.arange(n) for n in jnp.shape(index)], indexing="ij"))
    grids[dim] = index
    return tuple(grids)


@rule("aten.scatter")
@with_axis
def scatter(x: Any, dim: int, index: Any, source: Any, *, reduce: str | None = None) -> Any:
    values = source if jnp.ndim(source) == 0 else source[tuple(slice(0, n) for n in jnp.shape(index))]
    place = jnp.asarray(x).at[_along(dim % x.ndim, index)]
    write: Any = {None: place.set, "add": place.add, "multiply": place.multiply}[reduce]
    return write(values)


@rule("aten.scatter_add")
def scatter_add(x: Any, dim: int, index: Any, source: Any) -> Any:
    return scatter(x, dim, index, source, reduce="add")


@rule("aten.scatter_reduce")
@with_axis
def scatter_reduce(
    x: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """Every kind by one table of who goes where: (..., target, source), so that ties and zeros are right."""
    source = source[tuple(slice(0, n) for n in jnp.shape(index))]
    pads = [(0, 0) if a == dim % x.ndim else (0, n - index.shape[a]) for a, n in enumerate(x.shape)]
    goes = jnp.moveaxis(jnp.pad(index, pads, constant_values=-1), dim, -1)[..., None, :]
    given, own = jnp.moveaxis(jnp.pad(source, pads), dim, -1)[..., None, :], jnp.moveaxis(x, dim, -1)
    lands = goes == jnp.arange(own.shape[-1])[:, None]
    keeps = jnp.broadcast_to(include_self | ~lands.any(-1), own.shape)
    lands = jnp.concatenate([lands, keeps[..., None]], -1)
    given = jnp.concatenate([jnp.broadcast_to(given, lands[..., :-1].shape), own[..., None]], -1)
    return jnp.moveaxis(_reduced(given, lands, reduce), -1, dim)


def _reduced(values: Any, taken: Any, reduce: str) -> Any:
    if reduce in ("sum", "mean"):
        total = jnp.sum(jnp.where(taken, values, 0), -1)
        return total if reduce == "sum" else total / taken.sum(-1)
    if reduce == "prod":
        return jnp.prod(jnp.where(taken, values, 1), -1)
    if reduce == "amax":
        return jnp.max(jnp.where(taken, values, -jnp.inf), -1)
    return jnp.min(jnp.where(taken, values, jnp.inf), -1)


@rule("aten.index_add")
@with_axis
def index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    return jnp.asarray(x).at[at_axis(x, dim, index)].add(alpha * source)


@rule("aten.index_copy")
@with_axis
def index_copy(x: Any, dim: int, index: Any, source: Any) -> Any:
    return jnp.asarray(x).at[at_axis(x, dim, index)].set(source)


@rule("aten.index_fill")
@with_axis
def index_fill(x: Any, dim: int, index: Any, value: Any) -> Any:
    filled = jnp.zeros(jnp.shape(x)[dim], bool).at[index].set(True)
    shape = [1] * jnp.ndim(x)
    shape[dim] = -1
    return jnp.where(filled.reshape(shape), jnp.reshape(value, ()), x)


@rule("aten.put")
def put(x: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    place = jnp.ravel(x).at[jnp.ravel(index)]
    values = jnp.ravel(source)
    return (place.add(values) if accumulate else place.set(values)).reshape(jnp.shape(x))
