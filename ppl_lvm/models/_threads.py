"""Small matrices on one BLAS thread: on two they take longer, and on a busy machine the threads spin."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController

_LARGE = 256  # rows and columns from which a product or an eigendecomposition gains by more threads


class _Limit:
    """The limit that fits in flight share: the first one sets it, the last one puts the setting back."""

    lock = threading.Lock()
    depth = 0
    held: tuple[tuple[Any, int], ...] = ()


@contextmanager
def one_blas_thread(size: int) -> Iterator[None]:
    """BLAS on one thread inside, where matrices of ``size`` rows and columns are small; as set before, after.

    The setting is the process's: other threads' products run on one thread meanwhile too.
    """
    if size >= _LARGE:
        yield
        return
    with _Limit.lock:
        if _Limit.depth == 0:
            _Limit.held = tuple((library, library.num_threads) for library in _libraries())
            for library, _ in _Limit.held:
                library.set_num_threads(1)
        _Limit.depth += 1
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.depth -= 1
            if _Limit.depth == 0:
                for library, number in _Limit.held:
                    library.set_num_threads(number)
                _Limit.held = ()


@lru_cache(maxsize=1)
def _libraries() -> tuple[Any, ...]:
    """The BLAS libraries; looking for them takes two milliseconds. NumPy's is loaded by now."""
    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)
