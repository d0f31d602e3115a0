"""The state of Pyro's NUTS kernel between two transitions, as arrays and plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ppl_lvm.engines._start import shrunk_correlation

Arrays = dict[str, np.ndarray]
_COUNTERS = ("_t", "_accept_cnt", "_mean_accept_prob", "_divergences")


def begin_with_metric(kernel: Any, draws: Mapping[str, np.ndarray]) -> None:
    """Start adaptation from the (co)variances of draws (m, *shape) by site, in unconstrained space.

    Sites without draws keep the variance of 1 that Pyro begins with. The step size is then sought again.
    """
    adapter, start = kernel._adapter, kernel.initial_params
    size = len(next(iter(draws.values())))
    for names, matrix in _blocks(kernel):
        flat = torch.cat([_unconstrained(kernel, n, draws.get(n), start[n], size) for n in names], 1).numpy()
        flat = flat[np.isfinite(flat).all(1)].astype(float)
        spread = flat.std(0, ddof=1) if len(flat) > 2 else np.zeros(flat.shape[1])
        own = spread > 1e-10 * (1.0 + np.abs(flat).max(0, initial=0.0))
        scale = np.where(own, spread, 1.0)
        found = np.diag(scale**2)
        if matrix.dim() == 2 and own.sum() > 1:
            both = np.ix_(own, own)
            found[both] = shrunk_correlation(flat[:, own] / scale[own]) * np.outer(scale[own], scale[own])
        value = torch.as_tensor(found if matrix.dim() == 2 else scale**2).to(matrix.dtype)
        adapter.mass_matrix_adapter.inverse_mass_matrix = {names: value}
    if adapter.adapt_step_size:
        adapter.reset_step_size_adaptation(start)


def _unconstrained(
    kernel: Any, name: str, draws: np.ndarray | None, start: torch.Tensor, size: int
) -> torch.Tensor:
    """Draws of a site, flat: (size, numel); where there are none, its start again and again."""
    if draws is None:
        return start.detach().reshape(1, -1).expand(size, -1)
    values = torch.as_tensor(draws, dtype=start.dtype)
    if name in kernel.transforms:
        values = kernel.transforms[name](values)
    return values.detach().reshape(len(values), -1)


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
