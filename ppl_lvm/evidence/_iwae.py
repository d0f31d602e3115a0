"""Bounds of the log evidence from a guide's importance weights (Burda, Grosse, Salakhutdinov 2016)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ppl_lvm.core import Evidence

IWAE = (5, 50, 500)
"""Sizes of the groups of weights that a ladder shows."""


def log_weights(stats: Any) -> np.ndarray:
    """log p - log q of a guide's draws, (s,)."""
    out: np.ndarray = (stats["log_p"] - stats["log_q"]).values.reshape(-1).astype(float)
    return out


def iwae_bound(weights: np.ndarray, m: int, own: Evidence) -> Evidence | None:
    """The bound from groups of m log weights (s,), with ``own``'s conditions; None below two groups."""
    groups = len(weights) // m
    if groups < 2:
        return None
    each = np.logaddexp.reduce(weights[: groups * m].reshape(groups, m), axis=1) - math.log(m)
    error = float(each.std(ddof=1) / math.sqrt(groups))
    return Evidence("lower_bound", float(each.mean()), error, own.conditional_on, own.note)


__all__ = ["IWAE", "iwae_bound", "log_weights"]
