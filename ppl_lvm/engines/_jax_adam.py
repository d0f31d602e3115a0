"""SVI's optimiser on JAX (see :mod:`._adam`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ppl_lvm.engines._adam import CLIP, EPSILON, FIRST_MOMENT, LEAST_WEIGHT


class State(NamedTuple):
    """Steps so far, both moments, and by param the mean square of its gradient's norm."""

    count: Any
    first: Any
    second: Any
    square: Any


def adam(
    rate: Callable[[Any], Any], clip_norm: float | None, forgetting: float
) -> optax.GradientTransformation:
    """``rate`` gives the step size by the number of steps before; ``clip_norm`` None clips relatively."""

    def init(params: Any) -> State:
        first, second = (jax.tree_util.tree_map(jnp.zeros_like, params) for _ in range(2))  # to be donated
        squares = jax.tree_util.tree_map(lambda p: jnp.zeros((), p.dtype), params)
        return State(jnp.zeros((), jnp.int32), first, second, squares)

    def update(slopes: Any, state: State, params: Any = None) -> tuple[Any, State]:
        del params
        count, size = state.count + 1, rate(state.count)
        leaves, structure = jax.tree_util.tree_flatten(slopes)
        old = [jax.tree_util.tree_leaves(part) for part in (state.first, state.second, state.square)]
        new = [_one(size, count, clip_norm, forgetting, *parts) for parts in zip(leaves, *old, strict=True)]
        steps, *moments = (jax.tree_util.tree_unflatten(structure, part) for part in zip(*new, strict=True))
        return steps, State(count, *moments)

    return optax.GradientTransformation(init, update)


def _one(
    rate: Any,
    count: Any,
    clip_norm: float | None,
    forgetting: float,
    slope: Any,
    first: Any,
    second: Any,
    square: Any,
) -> tuple[Any, Any, Any, Any]:
    """The step of one param, and its moments after it."""
    number = count.astype(slope.dtype)
    norm = jnp.sqrt((slope**2).sum())
    if clip_norm is None:
        limit = jnp.where(square > 0, CLIP * jnp.sqrt(square), jnp.inf)
    else:
        limit = jnp.asarray(clip_norm, slope.dtype)
    slope = jnp.where(norm > limit, limit / norm, 1.0) * slope
    square = square + jnp.maximum(1 / number, LEAST_WEIGHT) * (jnp.minimum(norm, limit) ** 2 - square)
    kept = 1 - number**-forgetting
    first = FIRST_MOMENT * first + (1 - FIRST_MOMENT) * slope
    second = kept * second + (1 - kept) * slope**2
    mean = first / (1 - FIRST_MOMENT**number)
    return (-rate * mean / (jnp.sqrt(second) + EPSILON)).astype(slope.dtype), first, second, square
