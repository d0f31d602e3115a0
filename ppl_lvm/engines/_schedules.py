"""Settings that change during a run: the learning rate, and the weight of the KL term."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.engines._checks import check_choice, check_count, check_fraction, check_number

SCHEDULES = ("exponential", "cosine", "linear")


@dataclass(frozen=True)
class Annealing:
    """The weight beta of the KL term by epoch.

    ``"linear"`` goes from ``start`` to ``end`` in ``num_epochs`` and stays there (Bowman et al. 2016).
    ``"cyclical"`` does so in the first ``ramp`` of every ``num_epochs``, again and again (Fu et al. 2019).
    """

    kind: str = "linear"
    start: float = 0.0
    end: float = 1.0
    num_epochs: int = 10
    ramp: float = 0.5

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("linear", "cyclical"))
        for name in ("start", "end"):
            check_number(name, getattr(self, name), least=0.0)
        check_count("num_epochs", self.num_epochs)
        if self.ramp != 1:
            check_fraction("ramp", self.ramp)

    def at(self, epoch: np.ndarray) -> np.ndarray:
        """beta at (fractional) epochs."""
        if self.kind == "linear":
            share = epoch / self.num_epochs
        else:
            share = (epoch % self.num_epochs) / (self.ramp * self.num_epochs)
        return self.start + (self.end - self.start) * np.clip(share, 0.0, 1.0)


def as_weight(name: str, value: Any) -> float | Annealing:
    """A number, an :class:`Annealing`, or its saved settings."""
    if isinstance(value, Annealing):
        return value
    if isinstance(value, Mapping):
        return Annealing(**value)
    check_number(name, value, least=0.0)
    return float(value)


def weights_at(beta: float | Annealing, epoch: int, steps: int) -> np.ndarray:
    """beta at each of the ``steps`` steps of an epoch (from 0)."""
    if isinstance(beta, Annealing):
        return beta.at(epoch + np.arange(steps) / steps)
    return np.full(steps, beta)


def learning_rates(
    rate: float, decay: float, schedule: str, warmup: int, first: int, count: int, total: int
) -> np.ndarray:
    """Step sizes of ``count`` steps from ``first``: up in ``warmup``, then from ``rate`` to its ``decay``."""
    step = first + np.arange(count, dtype=float)
    share = np.clip((step - warmup) / max(total - warmup - 1, 1), 0.0, 1.0)
    if schedule == "exponential":
        factor = decay**share
    elif schedule == "cosine":
        factor = decay + (1 - decay) * 0.5 * (1 + np.cos(math.pi * share))
    else:
        factor = 1 + (decay - 1) * share
    return rate * factor * np.minimum(1.0, (step + 1) / max(warmup, 1))
