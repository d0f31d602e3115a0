"""Inputs of the operators on which rules are tried: around kinks, ties, zeros, ends of domains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from translation_ops import Op, op

A: Any = torch.ops.aten
RNG = np.random.default_rng(11)
K = np.array([-2.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])  # kinks of most activations among them
L = np.array([-2.5, 0.5, -0.5, 0.0, 0.3, 1.5, 2.0])  # ties with K
P = np.array([0.1, 0.5, 1.0, 2.0, 3.7, 30.0])
Q = np.array([1.0, 0.5, 2.5, 0.2, 3.7, 4.0])
V = np.array([-1.0, -0.7, 0.0, 0.3, 1.0])  # to both ends of sines
U = np.array([0.05, 0.3, 0.5, 0.8, 0.99])
Z = np.array([0.0, 0.5, 2.0])
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, 1.5])
INT = np.array([3, 0, 6, 5])
INT2 = np.array([1, 2, 3, 1])
MASK = np.array([True, False, True, True, False, False, True])
MASK2 = np.array([True, True, False, True, False, True, False])
M = RNG.normal(size=(3, 4))
T = np.array([[1.0, 2.0, 2.0], [0.0, 0.0, -1.0]])  # ties in rows
W = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, -1.0], [1.0, 1.5, 2.0]])  # zeros for products
BATCH = RNG.normal(size=(2, 3, 3))
SQUARE = BATCH + 3 * np.eye(3)
SPD = BATCH @ BATCH.swapaxes(-1, -2) + np.eye(3)
RIGHT = RNG.normal(size=(2, 3, 2))
NOTHING = np.array([[-np.inf, -np.inf], [0.5, -np.inf], [1.0, 2.0]])
IMAGE = RNG.normal(size=(1, 2, 5, 6))
VOLUME = RNG.normal(size=(1, 1, 4, 3, 4))
LINE = RNG.normal(size=(1, 2, 5))
NORMAL_ROWS = RNG.normal(size=(4, 3))


def each(names: str, *inputs: Any, **kwargs: Any) -> list[Op]:
    return [op(n, getattr(A, n), *inputs, **kwargs) for n in names.split()]
