"""Operators on elements, special functions and reductions, and what they are tried on."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from translation_op_values import (
    INT,
    INT2,
    MASK,
    MASK2,
    NOTHING,
    SPECIAL,
    A,
    K,
    L,
    M,
    P,
    Q,
    T,
    U,
    V,
    W,
    Z,
    each,
)
from translation_ops import op

ELEMENTWISE = [
    *each(
        "abs neg exp exp2 expm1 sin cos tan tanh sinh cosh asinh atan ceil floor trunc round sign sgn frac", K
    ),
    *each("sinc deg2rad rad2deg reciprocal signbit isnan isinf angle clone alias alias_copy detach", K),
    op("detach_copy", A.detach_copy, K, fixed=(0,)),
    *each("asin acos", V),
    *each("atanh", V[1:4]),
    *each("log log2 log10 sqrt rsqrt acosh", P + 1.0),
    *(op(f"{n} at 0", getattr(A, n), Z) for n in ("log", "sqrt", "rsqrt", "log2")),
    op("log1p", A.log1p, np.array([-0.9, 0.0, 3.0])),
    *each("maximum minimum fmax fmin atan2 copysign logaddexp logaddexp2 mul eq ne lt le gt ge", K, L),
    op("hypot", torch.hypot, K, L + 0.1),
    *each("logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor", MASK, MASK2),
    *each("logical_not bitwise_not", MASK),
    *each("bitwise_left_shift bitwise_right_shift floor_divide", INT, INT2),
    op("heaviside", A.heaviside, K, L, fixed=(0, 1)),
    op("nextafter", A.nextafter, K, L, fixed=(0, 1)),
    *each("fmod remainder", K, Q[:1]),
    *(op(f"{n} tensors", getattr(torch, n), K[:6], Q) for n in ("fmod", "remainder")),
    op("add", lambda x, y: A.add(x, y, alpha=2.5), K, L),
    op("sub", lambda x, y: A.sub(x, y, alpha=2.5), K, L),
    op("rsub", lambda x: A.rsub(x, 2.0, 1.5), K),
    op("div", lambda x, y: torch.stack([x / y, torch.div(x, y, rounding_mode="floor")]), K[:6], Q),
    op("div trunc", lambda x, y: torch.div(x, y, rounding_mode="trunc"), K[:6], Q),
    *(op(f"pow {p}", lambda x, p=p: x**p, K) for p in (0, 1, 2, 3, -1, 20)),
    op("pow 0.5", lambda x: x**0.5, Z),
    op("pow tensor", torch.pow, np.array([0.0, 0.0, 2.0, 3.0]), np.array([0.0, 2.0, 0.0, 1.5])),
    op("pow of number", lambda x: 2.0**x, K),
    op("addcmul", lambda x, y: torch.addcmul(x, x, y, value=0.5), K, L),
    op("addcdiv", lambda x, y: torch.addcdiv(x, x, y, value=0.5), K[:6], Q),
    op("lerp", lambda x, y, w: torch.lerp(x, y, w), K[:6], L[:6], Q),
    op("lerp number", lambda x, y: torch.lerp(x, y, 0.3), K, L),
    op("round decimals", lambda x: torch.round(x, decimals=1), K),
    op("clamp", lambda x: torch.clamp(x, -0.5, 1.0), K),
    op("clamp tensors", torch.clamp, K, np.full(7, -0.5), L),
    *(op(n, lambda x, n=n: getattr(torch, n)(x, 0.5), K) for n in ("clamp_min", "clamp_max")),
    op("where", lambda x, y: torch.where(x > 0, x, y), K, L),
    op("where guards", lambda x: torch.where(x > 0, torch.where(x > 0, x, 1.0).log(), 0.0), K),
    op("masked_fill", lambda x: x.masked_fill(x > 0.5, 2.0), K),
    op("nan_to_num", lambda x: torch.nan_to_num(x, nan=0.7, posinf=9.0), SPECIAL),
    op("to", lambda x: x.to(torch.int64), K),
    op("copy", lambda x, y: x.clone().copy_(y), K, L),
    op("complex", lambda x, y: torch.view_as_real(torch.complex(x, y).conj() * torch.complex(y, x)), K, L),
    op("safe_log", torch.ops.ppl_lvm.safe_log, P, fixed=(0,)),
]

SPECIAL_FUNCTIONS = [
    *each(
        "lgamma digamma", np.array([-2.3, -0.4, 0.2, 1.0, 2.5, 40.0]), wide=100.0
    ),  # torch's trigamma: 3e-10
    *each("erf erfc special_erfcx sigmoid i0 special_i0e special_i1 special_i1e special_log_ndtr", K),
    op("log_sigmoid", F.logsigmoid, K * 20),
    op("softplus", F.softplus, K * 20),
    *each("special_ndtri logit", U),
    op("logit eps", lambda x: torch.logit(x, 0.1), U),
    op("erfinv", A.erfinv, V[1:4]),
    op("entr", A.special_entr, np.array([0.0, 0.4, 2.0])),
    op("igamma", A.igamma, P, Q, fixed=(0,)),
    op("igammac", A.igammac, P, Q, fixed=(0,)),
    op("zeta", A.special_zeta, P + 1.5, Q, fixed=(0,)),
    *(op(f"polygamma {n}", lambda x, n=n: torch.polygamma(n, x), P, wide=100.0) for n in (1, 2, 3)),
    op("mvlgamma", lambda x: torch.mvlgamma(x, 3), P + 1.5),
    op("xlogy", A.xlogy, np.array([0.0, 0.0, 2.0, 3.0]), np.array([0.0, 2.0, 1.0, 1.5])),
    op("xlog1py", A.special_xlog1py, np.array([0.0, 0.0, 2.0, 3.0]), np.array([-1.0, 2.0, 1.0, 1.5])),
    *(op(f"softplus {b}", lambda x, b=b: F.softplus(x, b, 3.0), K) for b in (0.5, 2.0)),
    *(
        op(f"bce {r}", lambda x, y, r=r: F.binary_cross_entropy(x, y, reduction=r), U, Q[:5] / 4, fixed=(1,))
        for r in ("none", "mean", "sum")
    ),
    op(
        "bce at the ends",
        lambda x, y: F.binary_cross_entropy(x, y, reduction="none"),
        np.array([0.0, 1.0, 1.0]),
        np.array([0.0, 1.0, 0.5]),
        fixed=(1,),
        wide=10.0,
    ),  # 1e-12 as float32 in torch
    op(
        "bce logits",
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, weight=2 * y, reduction="none"),
        K[:6],
        Q / 4,
        fixed=(1,),
    ),
    op(
        "bce logits weighted",
        lambda x, y, w: F.binary_cross_entropy_with_logits(x, y, pos_weight=w),
        K[:6],
        Q / 4,
        P,
        fixed=(1, 2),
    ),
]

REDUCTIONS = [
    *(
        op(n, getattr(torch, n), W)
        for n in ("sum", "mean", "prod", "nansum", "amax", "amin", "max", "min", "trace")
    ),
    *(
        op(f"{n} dim", lambda x, n=n: getattr(torch, n)(x, -1, keepdim=True), T)
        for n in (
            "sum",
            "mean",
            "prod",
            "nansum",
            "amax",
            "amin",
            "max",
            "min",
            "logsumexp",
            "median",
            "var",
            "std",
            "var_mean",
        )
    ),
    *(
        op(f"{n} rows", lambda x, n=n: getattr(torch, n)(x, (0, 1)), T)
        for n in ("sum", "mean", "amax", "logsumexp", "var")
    ),
    *(
        op(f"{n} 0", lambda x, n=n: getattr(torch, n)(x, 0), W)
        for n in (
            "cumsum",
            "cumprod",
            "cummax",
            "cummin",
            "logcumsumexp",
            "argmax",
            "argmin",
            "softmax",
            "log_softmax",
            "argsort",
        )
    ),
    *(
        op(f"{n} scalar", lambda x, n=n: getattr(torch, n)(x, 0), 0.7)
        for n in (
            "cumsum",
            "cumprod",
            "cummax",
            "cummin",
            "logcumsumexp",
            "argmax",
            "sum",
            "max",
            "min",
            "softmax",
            "log_softmax",
            "sort",
            "logsumexp",
            "median",
        )
    ),
    *(op(n, getattr(torch, n), x) for n in ("any", "all") for x in (MASK,)),
    *(op(f"{n} dim", lambda x, n=n: getattr(torch, n)(x, 1), W > 0) for n in ("any", "all", "count_nonzero")),
    op("logsumexp of little", lambda x: torch.logsumexp(x, 1), NOTHING[1:]),
    *(
        op(f"softmax {n}", lambda x, n=n: getattr(torch, n)(x, 1), NOTHING[1:])
        for n in ("softmax", "log_softmax")
    ),
    op("safe softmax", lambda x: A._safe_softmax(x, 1), NOTHING, wide=1.0),
    op("argmax all", torch.argmax, T),
    *(op(f"{n} all", getattr(torch, n), T) for n in ("var", "std", "median")),
    op("std of constants", lambda x: torch.std(x, 1), np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 4.0]])),
    op("var biased", lambda x: torch.var(x, unbiased=False), T),
    op("var corrected", lambda x: torch.var(x, 1, correction=2), T),
    op("sum as ints", lambda x: torch.sum(x), MASK),
    op("sort", lambda x: torch.sort(x, 1, descending=True), M),
    op("sort stable", lambda x: torch.sort(x, stable=True, dim=1), T),
    op("topk", lambda x: torch.topk(x, 2, 1, largest=False), M),
    op("kthvalue", lambda x: torch.kthvalue(x, 2, 1), M),
    *(
        op(f"norm {p}", lambda x, p=p: torch.linalg.vector_norm(x, p, 1), W)
        for p in (0, 0.5, 1, 2, 3, np.inf, -np.inf)
    ),
    *(
        op(f"norm of zeros {p}", lambda x, p=p: torch.linalg.vector_norm(x, p), np.zeros(3))
        for p in (1, 1.5, 2, 3, np.inf)
    ),
    op("old norm", lambda x: A.norm(x, 2, [1], True), W),
    op("old norm all", lambda x: A.norm(x, 3), W),
]
