"""The state of Pyro's NUTS kernel between two transitions, as arrays and plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

Arrays = dict[str, np.ndarray]
_COUNTERS = ("_t", "_accept_cnt", "_mean_accept_prob", "_divergences")


def kernel_state(kernel: Any) -> tuple[Arrays, dict[str, Any]]:
    """Arrays, and a record of Python numbers (JSON keeps them exactly), torch's generator included."""
    adapter = kernel._adapter
    arrays = {"state/rng": torch.get_rng_state().numpy()}
    arrays["state/potential"] = kernel._potential_energy_last.detach().numpy()
    arrays |= {f"state/z/{k}": v.detach().numpy() for k, v in kernel._z_last.items()}
    arrays |= {f"state/slope/{k}": v.detach().numpy() for k, v in kernel._z_grads_last.items()}
    welford = []
    for i, (names, matrix) in enumerate(_blocks(kernel)):
        scheme = adapter.mass_matrix_adapter._adapt_scheme[names]
        welford.append(int(scheme.n_samples))
        arrays[f"state/mass/{i}"] = matrix.numpy()
        if scheme.n_samples:
            arrays[f"state/welford_mean/{i}"] = scheme._mean.numpy()
            arrays[f"state/welford_square/{i}"] = scheme._m2.numpy()
    record = {
        "kernel": {name: getattr(kernel, name) for name in _COUNTERS},
        "calls": kernel.potential_fn.calls,
        "step_size": adapter.step_size,
        "window": adapter._current_window,
        "averaging": dict(vars(adapter._step_size_adapt_scheme)),
        "welford": welford,
    }
    return arrays, record


def restore_kernel(kernel: Any, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Put a kernel that has been set up for the same model into a state.

    Raises
    ------
    KeyError, ValueError
        If the state is not one of this model's kernel.
    """
    adapter = kernel._adapter
    z = {k: _like(v, arrays[f"state/z/{k}"]) for k, v in kernel._z_last.items()}
    slope = {k: _like(v, arrays[f"state/slope/{k}"]) for k, v in kernel._z_last.items()}
    kernel._cache(z, torch.from_numpy(arrays["state/potential"].copy()), slope)
    for name in _COUNTERS:
        setattr(kernel, name, record["kernel"][name])
    kernel.potential_fn.calls = int(record["calls"])
    for i, (names, matrix) in enumerate(_blocks(kernel)):  # setting a matrix forgets the sums: it goes first
        adapter.mass_matrix_adapter.inverse_mass_matrix = {names: _like(matrix, arrays[f"state/mass/{i}"])}
        scheme = adapter.mass_matrix_adapter._adapt_scheme[names]
        scheme.n_samples = int(record["welford"][i])
        if scheme.n_samples:
            scheme._mean = torch.from_numpy(arrays[f"state/welford_mean/{i}"].copy())
            scheme._m2 = torch.from_numpy(arrays[f"state/welford_square/{i}"].copy())
    adapter.step_size, adapter._current_window = record["step_size"], record["window"]
    vars(adapter._step_size_adapt_scheme).update(record["averaging"])
    torch.set_rng_state(torch.from_numpy(arrays["state/rng"].copy()))


def _blocks(kernel: Any) -> list[tuple[tuple[str, ...], Any]]:
    return list(kernel._adapter.mass_matrix_adapter.inverse_mass_matrix.items())


def _like(value: torch.Tensor, stored: np.ndarray) -> torch.Tensor:
    found = torch.from_numpy(stored.copy())
    if found.shape != value.shape or found.dtype != value.dtype:
        raise ValueError(
            f"{found.dtype}{tuple(found.shape)} where {value.dtype}{tuple(value.shape)} is needed"
        )
    return found
