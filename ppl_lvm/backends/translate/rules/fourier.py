"""Discrete Fourier transforms, as Pyro's convolutions and cosine transforms use them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends.translate.rules import rule


def _scaled(x: Any, count: int, normalization: int) -> Any:
    """Torch's number: 0 leaves the sums, 1 divides by the root of their length, 2 by the length."""
    return x / {0: 1.0, 1: np.sqrt(count), 2: float(count)}[normalization]


def _length(shape: tuple[int, ...], dims: Any) -> int:
    return int(np.prod([shape[d] for d in dims], dtype=np.int64))


@rule("aten._fft_c2c")
def complex_to_complex(x: Any, dims: Any, normalization: int, forward: bool) -> Any:
    count = _length(jnp.shape(x), dims)
    out = jnp.fft.fftn(x, axes=tuple(dims)) if forward else jnp.fft.ifftn(x, axes=tuple(dims)) * count
    return _scaled(out, count, normalization)


@rule("aten._fft_r2c")
def real_to_complex(x: Any, dims: Any, normalization: int, onesided: bool) -> Any:
    transform = jnp.fft.rfftn if onesided else jnp.fft.fftn
    return _scaled(transform(x, axes=tuple(dims)), _length(jnp.shape(x), dims), normalization)


@rule("aten._fft_c2r")
def complex_to_real(x: Any, dims: Any, normalization: int, last_size: int) -> Any:
    sizes = [jnp.shape(x)[d] for d in dims[:-1]] + [last_size]
    count = int(np.prod(sizes, dtype=np.int64))
    return _scaled(jnp.fft.irfftn(x, sizes, tuple(dims)) * count, count, normalization)
