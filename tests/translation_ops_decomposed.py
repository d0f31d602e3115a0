"""Operators that torch rewrites into simpler ones, and what they are tried on."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from translation_op_values import IMAGE, LINE, RNG, SPECIAL, VOLUME, A, K, L, M, P, Q, T
from translation_ops import op

_CLASSES = np.array([0, 2, 1])
DECOMPOSED = [
    *(
        op(n, lambda x, n=n: getattr(F, n)(x), K)
        for n in ("celu", "hardshrink", "softshrink", "selu", "logsigmoid")
    ),
    *(
        op(f"{n} {r}", lambda x, y, n=n, r=r: getattr(F, n)(x, y, reduction=r), K, L)
        for n in ("mse_loss", "smooth_l1_loss", "huber_loss")
        for r in ("none", "mean")
    ),
    op("soft_margin_loss", F.soft_margin_loss, K, np.sign(L - 0.1), fixed=(1,)),
    op("addr", torch.addr, M, K[:3], L[:4]),
    op("aminmax", lambda x: torch.aminmax(x, dim=1), M),
    op("dist", torch.dist, K, L),
    op("std_mean", lambda x: torch.std_mean(x, 1), M),
    op("ldexp", torch.ldexp, K, np.array([1, 2, 0, 1, 3, 1, 0])),
    op("polar", lambda r, a: torch.view_as_real(torch.polar(r, a)), P, Q),
    op("isin", lambda x: torch.isin(x, torch.tensor([0.5, 2.0]).to(x)), K),
    op("isinf", lambda x: torch.stack([torch.isposinf(x), torch.isneginf(x)]), SPECIAL),
    op("nll_loss", lambda x, i: F.nll_loss(x, i), T[[0, 1, 0]], _CLASSES),
    op(
        "cross_entropy",
        lambda x, i: F.cross_entropy(x, i, reduction="none", label_smoothing=0.1),
        T[[0, 1, 0]],
        _CLASSES,
    ),
    op("nll_loss2d", lambda x, i: F.nll_loss(x, i), IMAGE, np.zeros((1, 5, 6), int)),
    op("pixel", lambda x: F.pixel_unshuffle(F.pixel_shuffle(x.reshape(1, 4, 3, 5), 2), 2), IMAGE),
    op("channel_shuffle", lambda x: A.channel_shuffle(x, 2), IMAGE[:, [0, 1, 1, 0]]),
    op("im2col", lambda x: F.unfold(x, (2, 3), padding=1), IMAGE),
    op("unfold_copy", lambda x: A.unfold_copy(x, 1, 2, 1), M),
    *(
        op(f"pad {m} {n}", lambda x, m=m, p=p: F.pad(x, p, mode=m), v)
        for m in ("reflect", "replicate")
        for n, p, v in (("1", (1, 2), LINE), ("2", (1, 2, 0, 1), IMAGE), ("3", (1, 2, 0, 1, 1, 1), VOLUME))
    ),
    *(
        op(f"upsample {m}", lambda x, m=m: F.interpolate(x, scale_factor=1.7, mode=m), v)
        for m, v in (("nearest", LINE), ("linear", LINE), ("nearest-exact", LINE))
    ),
    *(
        op(f"upsample 2d {m}", lambda x, m=m: F.interpolate(x, size=(7, 4), mode=m), IMAGE)
        for m in ("nearest", "bilinear", "bicubic", "nearest-exact")
    ),
    *(
        op(f"upsample 3d {m}", lambda x, m=m: F.interpolate(x, scale_factor=2.0, mode=m), VOLUME)
        for m in ("nearest", "trilinear", "nearest-exact")
    ),
    op(
        "grid_sample",
        lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False),
        IMAGE,
        RNG.normal(size=(1, 3, 2, 2)),
    ),
    op("affine_grid", lambda w: F.affine_grid(w, (1, 2, 3, 4), align_corners=True), M[None, :2, :3]),
]
