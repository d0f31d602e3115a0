"""One context that isolates a run: seeds, dtype, parameter store and RNG states.

Everything process-wide that a fit needs is set on entry and restored on exit, so that two fits, or
a fit and the user's own code, never touch each other.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Mapping

import numpy as np

# torch's default dtype and Pyro's parameter store are process-wide, so only one torch fit at a time.
_TORCH_LOCK = threading.RLock()


@contextlib.contextmanager
def torch_session(seed: int, dtype: str) -> Iterator[None]:
    """Pyro and torch isolated and seeded; re-entrant in one thread, one thread at a time."""
    with random_states_restored():  # importing a library may already draw random numbers
        import pyro
        import torch

        from ppl_lvm.backends._pyro_modules import modules_on_loan

    with _TORCH_LOCK, random_states_restored(), pyro.get_param_store().scope(), modules_on_loan():
        own, default = torch.get_rng_state(), torch.get_default_dtype()
        try:
            torch.set_default_dtype(getattr(torch, dtype))
            pyro.set_rng_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            yield
        finally:
            torch.set_default_dtype(default)
            torch.set_rng_state(own)


@contextlib.contextmanager
def jax_session(dtype: str) -> Iterator[None]:
    """64-bit mode as the dtype needs it, and compiled programs kept on disk while it lasts.

    The mode is thread-local: enter it in every thread.
    """
    with random_states_restored():
        import jax

        from ppl_lvm.backends._compilation_cache import COMPILED

    COMPILED.enter()
    try:
        with jax.enable_x64(dtype == "float64"):
            yield
    finally:
        COMPILED.leave()


class _Shared:
    """Random states as the first of several runs in flight found them; the last one restores."""

    lock = threading.Lock()
    depth = 0
    states: tuple | None = None


@contextlib.contextmanager
def random_states_restored() -> Iterator[None]:
    """Put back the global random states of NumPy and ``random`` (torch's belongs to its session).

    Runs in several threads overlap, and one that saved and restored on its own would bring back a
    state that another had seeded in between.
    """
    with _Shared.lock:
        if _Shared.depth == 0:
            _Shared.states = (np.random.get_state(), random.getstate())
        _Shared.depth += 1
    try:
        yield
    finally:
        with _Shared.lock:
            _Shared.depth -= 1
            if _Shared.depth == 0 and _Shared.states is not None:
                np.random.set_state(_Shared.states[0])
                random.setstate(_Shared.states[1])
                _Shared.states = None


def generator_states() -> dict[str, np.ndarray]:
    """States of the three generators that Pyro programs draw from (torch, NumPy, ``random``), as arrays."""
    import torch

    _, words, gauss = random.getstate()
    _, key, place, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state().numpy().copy(),
        "python": np.array(words, np.uint64),
        "python_gauss": np.array(np.nan if gauss is None else gauss),
        "numpy": np.array(key),
        "numpy_place": np.array([place, has_gauss], np.int64),
        "numpy_gauss": np.array(cached),
    }


def set_generator_states(states: Mapping[str, np.ndarray]) -> None:
    """Back to what :func:`generator_states` gave; within a session, which restores the user's own."""
    import torch

    torch.set_rng_state(torch.from_numpy(np.array(states["torch"])))
    gauss = float(states["python_gauss"])
    random.setstate((3, tuple(map(int, states["python"])), None if np.isnan(gauss) else gauss))
    place, has_gauss = map(int, states["numpy_place"])
    np.random.set_state(("MT19937", states["numpy"], place, has_gauss, float(states["numpy_gauss"])))
