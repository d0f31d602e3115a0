"""Chains of a compiled program as parts of a run: advanced in blocks, taken apart into arrays and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.engines._nuts_run import Arrays, relative

DRAWS, WARMUP = "draws", "warmup_steps"  # names beside those of statistics


class Chain(NamedTuple):
    """What a chain carries: the kernel's state, the buffers of kept draws and statistics, and the number of
    leapfrog steps that warm-up took."""

    state: Any
    draws: Any
    stats: Any
    warmup_steps: Any


class ChainPart:
    """One chain, or (``many``) chains along a leading axis, of the compiled ``start`` and ``advance``.

    ``where`` gives a state's point and log density; ``given`` are the last arguments of both programs.
    """

    def __init__(
        self,
        programs: tuple[Callable[..., Chain], Callable[..., Chain], Callable[[Any], tuple[Any, Any]]],
        points: Any,
        keys: Any,
        given: tuple[Any, Any],
        *,
        many: bool = False,
    ) -> None:
        self._start, self._advance, self._where = programs
        self._keys, self._given, self._axis = keys, given, int(many)
        self.chain = self._start(points, keys, *given)

    def advance(self, first: int, last: int) -> None:
        self.chain = self._advance(self.chain, np.int32(first), np.int32(last), self._keys, *self._given)
        jax.block_until_ready(self.chain.draws)

    def kept(self, count: int) -> Arrays:
        """Copies of the first ``count`` draws and statistics of each chain; the buffers are reused."""
        cut = (slice(None),) * self._axis + (slice(0, count),)
        found = {DRAWS: self.chain.draws, **self.chain.stats}
        out = {k: np.array(np.asarray(v)[cut]) for k, v in found.items()}
        return {**out, WARMUP: np.array(self.chain.warmup_steps)}

    def arrays(self, kept: int) -> tuple[Arrays, dict[str, Any]]:
        buffers = self.kept(kept)
        leaves = jax.tree_util.tree_leaves_with_path(self.chain.state)
        return {f"state/{jax.tree_util.keystr(p)}": _to_numpy(v) for p, v in leaves} | {
            f"kept/{k}": v for k, v in buffers.items()
        }, {}

    def restore(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> float:
        del record
        with_paths, structure = jax.tree_util.tree_flatten_with_path(self.chain.state)
        leaves = [_like(v, arrays[f"state/{jax.tree_util.keystr(p)}"]) for p, v in with_paths]
        state = jax.tree_util.tree_unflatten(structure, leaves)
        buffers = {k: self._filled(self._buffer(k), arrays[f"kept/{k}"]) for k in (DRAWS, *self.chain.stats)}
        spent = _like(self.chain.warmup_steps, arrays[f"kept/{WARMUP}"])
        self.chain = Chain(state, buffers.pop(DRAWS), buffers, spent)
        point, value = self._where(state)
        fresh = self._start(point, self._keys, *self._given)
        return relative(self._where(fresh.state)[1], value)

    def _buffer(self, name: str) -> Any:
        return self.chain.draws if name == DRAWS else self.chain.stats[name]

    def _filled(self, buffer: Any, kept: np.ndarray) -> Any:
        """A buffer that begins with what was kept (of a longer run: with as much as it holds)."""
        whole = np.array(buffer)
        size = min(whole.shape[self._axis], kept.shape[self._axis])
        cut = (slice(None),) * self._axis + (slice(0, size),)
        whole[cut] = kept[cut]
        return jax.device_put(whole, buffer.sharding)


def by_chain(found: Arrays, count: int) -> list[Arrays]:
    """What chains along a leading axis kept, one by one."""
    return [{k: v[i] for k, v in found.items()} for i in range(count)]


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _to_numpy(value: Any) -> np.ndarray:
    return np.array(jax.random.key_data(value) if _is_key(value) else value)


def _like(value: Any, stored: np.ndarray) -> Any:
    """A stored leaf as the program takes it; raises ``ValueError`` where shapes or types differ."""
    own = _to_numpy(value)
    if own.shape != stored.shape or own.dtype != stored.dtype:
        raise ValueError(f"{stored.dtype}{stored.shape} where {own.dtype}{own.shape} is expected")
    if _is_key(value):
        key = jax.random.wrap_key_data(jnp.asarray(stored), impl=jax.random.key_impl(value))
        return jax.device_put(key, value.sharding)
    return jax.device_put(stored, value.sharding)
