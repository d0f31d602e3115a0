"""SVI's optimiser on torch (see :mod:`._adam`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ppl_lvm.engines._adam import CLIP, EPSILON, FIRST_MOMENT, LEAST_WEIGHT


class Adam(torch.optim.Optimizer):
    """``lr`` is the first step's size, ``lrd`` the factor by which each step shrinks it; ``clip_norm`` None
    clips relatively; ``forgetting`` is the exponent of the second moments. A param's state has ``step``,
    ``first``, ``second`` and ``square``."""

    def __init__(
        self, params: Iterable[Any], lr: float, lrd: float, clip_norm: float | None, forgetting: float
    ) -> None:
        super().__init__(params, {"lr": lr, "lrd": lrd, "clip_norm": clip_norm, "forgetting": forgetting})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # overloads
        """As Pyro calls it, without a closure; torch's has a second form that returns a closure's loss."""
        del closure
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._one(param, param.grad, group)
            group["lr"] *= group["lrd"]

    def _one(self, param: torch.Tensor, slope: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if not state:
            state |= {"step": 0, "first": torch.zeros_like(param), "second": torch.zeros_like(param)}
            state["square"] = torch.zeros((), dtype=param.dtype)
        state["step"] += 1
        number, norm = state["step"], float(slope.norm())
        limit = _limit(group["clip_norm"], float(state["square"]))
        if norm > limit:
            slope = slope * (limit / norm)
        weight = max(1 / number, LEAST_WEIGHT)
        state["square"] += weight * (min(norm, limit) ** 2 - state["square"])
        kept = 1 - number ** -group["forgetting"]
        first, second = state["first"], state["second"]
        first.mul_(FIRST_MOMENT).add_(slope, alpha=1 - FIRST_MOMENT)
        second.mul_(kept).addcmul_(slope, slope, value=1 - kept)
        size = group["lr"] / (1 - FIRST_MOMENT**number)
        param.addcdiv_(first, second.sqrt().add_(EPSILON), value=-size)


def _limit(clip_norm: float | None, square: float) -> float:
    if clip_norm is not None:
        return clip_norm
    return CLIP * math.sqrt(square) if square > 0 else math.inf
