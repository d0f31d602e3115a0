"""Operators that torch itself rewrites into simpler ones while a program is recorded.

Torch keeps such rewritings for its own compilers; only those are used here whose values and derivatives
are those of the operator, as tests/test_translate_rules.py establishes one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

_NAMES = (
    "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
    "addr", "affine_grid_generator", "aminmax", "celu", "channel_shuffle", "dist", "grid_sampler_2d",
    "hardshrink", "huber_loss", "im2col", "isin", "isneginf", "isposinf", "mse_loss",
    "nll_loss2d_forward", "nll_loss_forward", "pixel_shuffle", "pixel_unshuffle",
    "polar", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "smooth_l1_loss", "soft_margin_loss", "softshrink",
    "std_mean", "unfold_copy", "upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_trilinear3d",
)  # fmt: skip


@cache
def _all() -> dict[Any, Callable[..., Any]]:
    from torch._decomp import get_decompositions

    return dict(get_decompositions([getattr(torch.ops.aten, name) for name in _NAMES]))


def names() -> tuple[str, ...]:
    return tuple(f"aten.{name}" for name in _NAMES)


def decompositions(known: Callable[[Any], bool]) -> dict[Any, Callable[..., Any]]:
    """Torch's rewritings by operator, without the operators that are ``known``: they have a user's rule."""
    return {op: function for op, function in _all().items() if not known(op)}
