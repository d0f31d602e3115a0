"""Triangular matrices in batches, for NumPy and for JAX."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_lvm.emissions._priors import Array


def inverse_tril(tril: Array) -> Array:
    """Inverse of lower triangular matrices (..., d, d) by forward substitution, all matrices at once."""
    d = tril.shape[-1]
    inverse = np.zeros_like(tril)
    for i in range(d):
        row = -np.matmul(tril[..., i, None, :i], inverse[..., :i, :])[..., 0, :]
        row[..., i] += 1.0
        inverse[..., i, :] = row / tril[..., i, i, None]
    return inverse


def inverse_factor(xp: Any, tril: Any) -> Any:
    """Inverse of lower triangular matrices (..., d, d) in NumPy or, where ``xp`` is jax.numpy, in JAX."""
    if xp is np:
        return inverse_tril(tril)
    import jax.scipy.linalg

    eye = xp.broadcast_to(xp.eye(tril.shape[-1], dtype=tril.dtype), tril.shape)
    return jax.scipy.linalg.solve_triangular(tril, eye, lower=True)
