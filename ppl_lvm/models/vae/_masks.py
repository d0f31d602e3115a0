"""Masks of autoregressive networks (Germain et al. 2015, MADE, section 3)."""

from __future__ import annotations

import numpy as np


def masks(q: int, hidden: int) -> tuple[np.ndarray, np.ndarray]:
    """(hidden, q) and (2 q, hidden) of zeros and ones: output j depends on the inputs before j only.

    The outputs are q shifts, then q gates.
    """
    degree = np.arange(hidden) % max(q - 1, 1)
    first = (degree[:, None] >= np.arange(q)[None, :]) if q > 1 else np.zeros((hidden, q), bool)
    second = np.arange(q)[:, None] > degree[None, :]
    return first.astype(np.float64), np.concatenate([second, second]).astype(np.float64)
