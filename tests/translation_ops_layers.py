"""Linear algebra, Fourier transforms and layers of networks, and what they are tried on."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from translation_op_values import (
    BATCH,
    IMAGE,
    LINE,
    NORMAL_ROWS,
    RIGHT,
    RNG,
    SPD,
    SQUARE,
    VOLUME,
    A,
    K,
    L,
    M,
    each,
)
from translation_ops import op

LINEAR_ALGEBRA = [
    op("mm", lambda x, y: x @ y, M, M.T),
    op("bmm", torch.bmm, BATCH, RIGHT),
    op("inner products", torch.bmm, BATCH[:, :1], RIGHT[:, :, :1]),
    op("mv", torch.mv, M, K[:4]),
    *(op(n, getattr(torch, n), K, L) for n in ("dot", "vdot")),
    op("addmm", lambda c, x, y: torch.addmm(c, x, y, beta=0.5, alpha=2.0), M[:, :3], M, M.T),
    op("addmv", lambda c, x, y: torch.addmv(c, x, y), K[:3], M, L[:4]),
    op("addbmm", lambda c, x, y: torch.addbmm(c, x, y, alpha=2.0), RIGHT[0], BATCH, RIGHT),
    op("baddbmm", lambda c, x, y: torch.baddbmm(c, x, y, beta=0.5), RIGHT, BATCH, RIGHT),
    op("cross", torch.linalg.cross, M[:, :3], NORMAL_ROWS[:3]),
    op("tril", lambda x: torch.tril(x, -1) + torch.triu(x, 1), BATCH),
    op("diag_embed", lambda x: torch.diag_embed(x, 1, 0, 2), M),
    op("block_diag", lambda x, y: torch.block_diag(x, y[0]), M, M),
    *(
        op(
            f"cdist {p}",
            lambda x, y, p=p: torch.cdist(x, y, p),
            NORMAL_ROWS,
            np.vstack([NORMAL_ROWS[:1], M[:, :3]]),
        )
        for p in (1.0, 2.0, 3.0)
    ),
    op("pdist", torch.pdist, NORMAL_ROWS),
    op("euclidean", A._euclidean_dist, NORMAL_ROWS, M[:, :3]),
    op("cholesky", torch.linalg.cholesky, SPD),
    op("cholesky upper", lambda x: torch.linalg.cholesky(x, upper=True), SPD),
    op("cholesky of a triangle", torch.linalg.cholesky, SPD + np.triu(BATCH, 1)),
    op("old cholesky", lambda x: torch.cholesky(x), SPD),
    op("cholesky_solve", torch.cholesky_solve, RIGHT, SQUARE),
    op("cholesky_solve upper", lambda b, x: torch.cholesky_solve(b, x, upper=True), RIGHT, SQUARE),
    op("cholesky_inverse", torch.cholesky_inverse, SQUARE),
    op("solve_triangular", lambda a, b: torch.linalg.solve_triangular(a, b, upper=False), SQUARE, RIGHT),
    op(
        "solve_triangular right",
        lambda a, b: torch.linalg.solve_triangular(a, b.mT, upper=True, left=False, unitriangular=True),
        SQUARE,
        RIGHT,
    ),
    *(
        op(f"triangular_solve {t}", lambda b, a, t=t: torch.triangular_solve(b, a, True, t)[0], RIGHT, SQUARE)
        for t in (True, False)
    ),
    op("solve", torch.linalg.solve, SQUARE, RIGHT),
    op("solve vector", torch.linalg.solve, SQUARE, RIGHT[..., 0]),
    op("solve right", lambda a, b: torch.linalg.solve(a, b.mT, left=False), SQUARE, RIGHT),
    *(
        op(n, getattr(torch.linalg, n), SQUARE)
        for n in ("inv", "det", "slogdet", "svdvals", "matrix_exp", "qr")
    ),
    op("qr r", lambda a: torch.linalg.qr(a, "r")[1], SQUARE, fixed=(0,)),
    *(op(f"eigvalsh {u}", lambda a, u=u: torch.linalg.eigvalsh(a, u), SPD + BATCH * 0.1) for u in "LU"),
    op("eigh", lambda a: (lambda w, v: (v * w[..., None, :].exp()) @ v.mT)(*torch.linalg.eigh(a)), SPD),
    op(
        "svd",
        lambda a: (lambda u, s, v: (u * s.exp()[..., None, :]) @ v)(
            *torch.linalg.svd(a, full_matrices=False)
        ),
        SQUARE[..., :2],
    ),
    op(
        "svd square",
        lambda a: (lambda u, s, v: (u * s.exp()[..., None, :]) @ v)(*torch.linalg.svd(a)),
        SQUARE,
    ),
    op("lu", torch.linalg.lu, SQUARE),
    op("lu_factor", lambda a: torch.linalg.lu_factor(a), SQUARE),
    op("lu_unpack", lambda a: torch.lu_unpack(*torch.linalg.lu_factor(a)), SQUARE),
    op("lu_solve", lambda a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b), SQUARE, RIGHT),
    op(
        "lu_solve adjoint",
        lambda a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b.mT, left=False, adjoint=True),
        SQUARE,
        RIGHT,
    ),
    op("pinv", torch.linalg.pinv, SQUARE[..., :2]),
    op("pinv hermitian", lambda a: torch.linalg.pinv(a, hermitian=True), SPD),
    op("pinv limits", lambda a: torch.linalg.pinv(a, atol=0.01, rtol=1e-3), SQUARE),
    op("lstsq", lambda a, b: torch.linalg.lstsq(a, b)[:2], SQUARE[..., :2], RIGHT),
    *(
        op(f"rfft {n}", lambda x, n=n: torch.fft.irfft(torch.fft.rfft(x, norm=n) * (1 + 2j), n=7, norm=n), K)
        for n in ("forward", "backward", "ortho")
    ),
    op("fft", lambda x: torch.view_as_real(torch.fft.ifft2(torch.fft.fft2(x) ** 2)), M),
    op("fft of complex", lambda x, y: torch.view_as_real(torch.fft.fftn(torch.complex(x, y))), M, M),
]

_COUNT = np.array([1, 0, 2])
NETWORKS = [
    *each(
        "relu silu mish hardswish hardsigmoid gelu elu leaky_relu hardtanh",
        np.array([-4.0, -3.0, *K, 3.0, 4.0]),
        wide=100.0,
    ),
    op("gelu tanh", lambda x: F.gelu(x, approximate="tanh"), K),
    op("elu alpha", lambda x: A.elu(x, 1.7, 1.05, 2.0), K),
    op("hardtanh bounds", lambda x: F.hardtanh(x, -0.5, 0.5), K),
    op("leaky slope", lambda x: F.leaky_relu(x, 0.3), K),
    op("weight norm", lambda v, g: torch._weight_norm(v, g, 0), M, K[:3, None] + 5),
    op("threshold", lambda x: F.threshold(x, 0.5, 2.0), K),
    op("prelu", F.prelu, M[None], K[:3]),
    op("glu", lambda x: F.glu(x, 1), M),
    op("embedding", F.embedding, np.array([[0, 2], [1, 1]]), M),
    op("embedding padding", lambda i, w: F.embedding(i, w, padding_idx=1), np.array([[0, 2], [1, 1]]), M),
    op("pad", lambda x: F.pad(x, (1, -1, 2, 0), value=0.3), M),
    op("layer_norm", lambda x, w, b: F.layer_norm(x, (4,), w, b), M, K[:4], L[:4]),
    op("layer_norm plain", lambda x: F.layer_norm(x, (3, 4)), M),
    op("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), IMAGE[:, [0, 1, 1, 0]], K[:4], L[:4]),
    op(
        "batch_norm",
        lambda x, w, b: F.batch_norm(x, torch.ones(2).to(x), torch.full((2,), 0.5).to(x), w, b),
        IMAGE,
        K[:2],
        L[:2],
    ),
    op("batch_norm training", lambda x: F.batch_norm(x, None, None, training=True), IMAGE),
    op("bilinear", F.bilinear, M[:, :2], M, RNG.normal(size=(3, 2, 4)), K[:3]),
    op(
        "conv1d",
        lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1),
        LINE,
        RNG.normal(size=(3, 2, 3)),
        K[:3],
    ),
    op(
        "conv2d",
        lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(1, 0), dilation=2, groups=2),
        IMAGE,
        RNG.normal(size=(4, 1, 2, 3)),
    ),
    op("conv2d same", lambda x, w: F.conv2d(x, w, padding="same"), IMAGE, RNG.normal(size=(1, 2, 3, 3))),
    op("conv3d", F.conv3d, VOLUME, RNG.normal(size=(2, 1, 2, 2, 3))),
    op(
        "conv_transpose1d",
        lambda x, w: F.conv_transpose1d(x, w, stride=3, padding=1, output_padding=2),
        LINE,
        RNG.normal(size=(2, 3, 3)),
    ),
    op(
        "conv_transpose2d",
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, groups=2, dilation=2),
        IMAGE,
        RNG.normal(size=(2, 2, 2, 3)),
        K[:4],
    ),
    *(
        op(f"max_pool2d {c}", lambda x, c=c: F.max_pool2d(x, 3, 2, 1, 1, c), np.round(IMAGE, 0))
        for c in (False, True)
    ),
    op("max_pool2d dilated", lambda x: F.max_pool2d(x, (2, 3), 1, 1, (2, 2), return_indices=True), IMAGE),
    op("max_pool1d", lambda x: F.max_pool1d(x, 2), LINE),
    op("max_pool3d", lambda x: F.max_pool3d(x, 2, 1), VOLUME),
    *(
        op(f"avg_pool2d {c} {p}", lambda x, c=c, p=p: F.avg_pool2d(x, 3, 2, 1, c, p), IMAGE)
        for c in (False, True)
        for p in (False, True)
    ),
    op("avg_pool2d divisor", lambda x: F.avg_pool2d(x, (2, 3), divisor_override=5), IMAGE),
    op("avg_pool1d", lambda x: F.avg_pool1d(x, 2, ceil_mode=True), LINE),
    op("avg_pool3d", lambda x: F.avg_pool3d(x, 2, 2, 1), VOLUME),
    *(
        op(f"adaptive {n}", lambda x, n=n: getattr(F, n)(x, (3, 4)), IMAGE)
        for n in ("adaptive_avg_pool2d", "adaptive_max_pool2d")
    ),
    *(
        op(f"adaptive {n}", lambda x, n=n: getattr(F, n)(x, (3, 2, 3)), VOLUME)
        for n in ("adaptive_avg_pool3d", "adaptive_max_pool3d")
    ),
]
