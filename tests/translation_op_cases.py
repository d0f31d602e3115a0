"""The operators of every rule, by the file that holds the rule, with values at and around their kinks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from translation_ops import Op, op

A: Any = torch.ops.aten
_RNG = np.random.default_rng(11)
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
M = _RNG.normal(size=(3, 4))
T = np.array([[1.0, 2.0, 2.0], [0.0, 0.0, -1.0]])  # ties in rows
W = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, -1.0], [1.0, 1.5, 2.0]])  # zeros for products
BATCH = _RNG.normal(size=(2, 3, 3))
SQUARE = BATCH + 3 * np.eye(3)
SPD = BATCH @ BATCH.swapaxes(-1, -2) + np.eye(3)
RIGHT = _RNG.normal(size=(2, 3, 2))
NOTHING = np.array([[-np.inf, -np.inf], [0.5, -np.inf], [1.0, 2.0]])
IMAGE = _RNG.normal(size=(1, 2, 5, 6))
VOLUME = _RNG.normal(size=(1, 1, 4, 3, 4))
LINE = _RNG.normal(size=(1, 2, 5))
NORMAL_ROWS = _RNG.normal(size=(4, 3))


def _each(names: str, *inputs: Any, **kwargs: Any) -> list[Op]:
    return [op(n, getattr(A, n), *inputs, **kwargs) for n in names.split()]


ELEMENTWISE = [
    *_each("abs neg exp exp2 expm1 sin cos tan tanh sinh cosh asinh atan ceil floor trunc round sign sgn frac", K),
    *_each("sinc deg2rad rad2deg reciprocal signbit isnan isinf angle clone alias alias_copy detach", K),
    op("detach_copy", A.detach_copy, K, fixed=(0,)),
    *_each("asin acos", V),
    *_each("atanh", V[1:4]),
    *_each("log log2 log10 sqrt rsqrt acosh", P + 1.0),
    *(op(f"{n} at 0", getattr(A, n), Z) for n in ("log", "sqrt", "rsqrt", "log2")),
    op("log1p", A.log1p, np.array([-0.9, 0.0, 3.0])),
    *_each("maximum minimum fmax fmin atan2 copysign logaddexp logaddexp2 mul eq ne lt le gt ge", K, L),
    op("hypot", torch.hypot, K, L + 0.1),
    *_each("logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor", MASK, MASK2),
    *_each("logical_not bitwise_not", MASK),
    *_each("bitwise_left_shift bitwise_right_shift floor_divide", INT, INT2),
    op("heaviside", A.heaviside, K, L, fixed=(0, 1)),
    op("nextafter", A.nextafter, K, L, fixed=(0, 1)),
    *_each("fmod remainder", K, Q[:1]),
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
    op("lift", A.lift_fresh_copy, K),
    op("lift fresh", A.lift_fresh, K),
    op("copy", lambda x, y: x.clone().copy_(y), K, L),
    op("complex", lambda x, y: torch.view_as_real(torch.complex(x, y).conj() * torch.complex(y, x)), K, L),
    op("safe_log", torch.ops.ppl_lvm.safe_log, P, fixed=(0,)),
]

SPECIAL_FUNCTIONS = [
    *_each("lgamma digamma", np.array([-2.3, -0.4, 0.2, 1.0, 2.5, 40.0]), wide=100.0),  # torch's trigamma: 3e-10
    *_each("erf erfc special_erfcx sigmoid i0 special_i0e special_i1 special_i1e special_log_ndtr", K),
    op("log_sigmoid", F.logsigmoid, K * 20),
    op("softplus", F.softplus, K * 20),
    *_each("special_ndtri logit", U),
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
    *(op(f"bce {r}", lambda x, y, r=r: F.binary_cross_entropy(x, y, reduction=r), U, Q[:5] / 4, fixed=(1,)) for r in ("none", "mean", "sum")),
    op("bce at the ends", lambda x, y: F.binary_cross_entropy(x, y, reduction="none"), np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.5]), fixed=(1,)),
    op("bce logits", lambda x, y: F.binary_cross_entropy_with_logits(x, y, weight=2 * y, reduction="none"), K[:6], Q / 4, fixed=(1,)),
    op("bce logits weighted", lambda x, y, w: F.binary_cross_entropy_with_logits(x, y, pos_weight=w), K[:6], Q / 4, P, fixed=(1, 2)),
]  # fmt: skip

REDUCTIONS = [
    *(op(n, getattr(torch, n), W) for n in ("sum", "mean", "prod", "nansum", "amax", "amin", "max", "min", "trace")),
    *(op(f"{n} dim", lambda x, n=n: getattr(torch, n)(x, -1, keepdim=True), T) for n in ("sum", "mean", "prod", "nansum", "amax", "amin", "max", "min", "logsumexp", "median", "var", "std", "var_mean")),
    *(op(f"{n} rows", lambda x, n=n: getattr(torch, n)(x, (0, 1)), T) for n in ("sum", "mean", "amax", "logsumexp", "var")),
    *(op(f"{n} 0", lambda x, n=n: getattr(torch, n)(x, 0), W) for n in ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "argmax", "argmin", "softmax", "log_softmax", "argsort")),
    *(op(f"{n} scalar", lambda x, n=n: getattr(torch, n)(x, 0), 0.7) for n in ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "argmax", "sum", "max", "min", "softmax", "log_softmax", "sort", "logsumexp", "median")),
    *(op(n, getattr(torch, n), x) for n in ("any", "all") for x in (MASK,)),
    *(op(f"{n} dim", lambda x, n=n: getattr(torch, n)(x, 1), W > 0) for n in ("any", "all", "count_nonzero")),
    op("logsumexp of little", lambda x: torch.logsumexp(x, 1), NOTHING[1:]),
    *(op(f"softmax {n}", lambda x, n=n: getattr(torch, n)(x, 1), NOTHING[1:]) for n in ("softmax", "log_softmax")),
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
    *(op(f"norm {p}", lambda x, p=p: torch.linalg.vector_norm(x, p, 1), W) for p in (0, 0.5, 1, 2, 3, np.inf, -np.inf)),
    *(op(f"norm of zeros {p}", lambda x, p=p: torch.linalg.vector_norm(x, p), np.zeros(3)) for p in (1, 1.5, 2, 3, np.inf)),
    op("old norm", lambda x: A.norm(x, 2, [1], True), W),
    op("old norm all", lambda x: A.norm(x, 3), W),
]  # fmt: skip

SHAPES = [
    *(op(n, getattr(A, n), M) for n in ("t", "t_copy", "zeros_like", "ones_like", "zero")),
    *(op(f"{n} dim", lambda x, n=n: getattr(A, n)(x, 0), M[:1]) for n in ("squeeze", "squeeze_copy", "unsqueeze", "unsqueeze_copy", "unbind", "unbind_copy")),
    *(op(n, lambda x, n=n: getattr(A, n)(x, [2, 6]), M) for n in ("view", "_unsafe_view", "view_copy")),
    op("reshape alias", lambda x: A._reshape_alias(x, [2, 6], [6, 1]), M),
    op("view as -1", lambda x: x.view(-1, 2), M),
    op("squeeze all", torch.squeeze, M[None, :, None]),
    *(op(n, lambda x, n=n: getattr(A, n)(x, [2, -1, 4]), M) for n in ("expand", "expand_copy")),
    *(op(n, lambda x, n=n: getattr(A, n)(x, [2, 0, 1]), BATCH) for n in ("permute", "permute_copy")),
    *(op(n, lambda x, n=n: getattr(A, n)(x, 0, -1), BATCH) for n in ("transpose", "transpose_copy", "diagonal", "diagonal_copy")),
    op("diagonal offset", lambda x: torch.diagonal(x, 1, 2, 1), BATCH),
    *(op(n, lambda x, n=n: getattr(A, n)(x, 2, 1), M) for n in ("split", "split_copy", "unsafe_split")),
    *(op(n, lambda x, n=n: getattr(A, n)(x, [1, 3], 1), M) for n in ("split_with_sizes", "split_with_sizes_copy", "unsafe_split_with_sizes")),
    op("cat", lambda x, y: torch.cat([x, x.new_zeros(0), y], 0), K, L),
    op("stack", lambda x, y: torch.stack([x, y], -1), K, L),
    op("repeat", lambda x: x.repeat(2, 1, 2), M),
    op("flip", lambda x: x.flip(0, 1), M),
    op("roll", lambda x: torch.roll(x, (1, -2), (0, 1)), M),
    op("roll all", lambda x: torch.roll(x, 2), M),
    op("rot90", lambda x: torch.rot90(x, 3, (0, 1)), M),
    op("view_as_complex", torch.view_as_complex, M.reshape(3, 2, 2)),
    op("view_as_complex_copy", A.view_as_complex_copy, M.reshape(3, 2, 2), fixed=(0,)),
    *(op(f"view_as_real{e}", lambda x, e=e: getattr(A, "view_as_real" + e)(torch.complex(x, x.exp())), M) for e in ("", "_copy")),
    op("full_like", lambda x: torch.full_like(x, 2.5) * x, M),
    op("new", lambda x: x.new_zeros(3) + x.new_ones(3) * x.sum() + x.new_full((3,), 0.5) * x[0, 0], M),
    op("empty", lambda x: torch.empty_like(x).copy_(x) + x.new_empty(3, 4).fill_(2.0) * x, M),
    op("fill", lambda x: A.fill.Scalar(x, 2.0), M),
]  # fmt: skip

_WHERE = np.array([[0, 2, 1], [2, 2, 0]])
_TO = np.array([0, 2, 2])
_BOTH = np.array([[0, 1, 1, 0], [1, 1, 0, 0]])
INDEXING = [
    *(op(n, lambda x, n=n: getattr(A, n)(x, 1, 2), M) for n in ("select", "select_copy")),
    *(op(n, lambda x, n=n: getattr(A, n)(x, 1, 0, 4, 2), M) for n in ("slice", "slice_copy")),
    *(op(n, lambda x, n=n: getattr(A, n)(x, [2, 2], [4, 2], 1), M) for n in ("as_strided", "as_strided_copy")),
    op("narrow", lambda x: A.narrow_copy(x, 1, 1, 2), M),
    op("unfold", lambda x: x.unfold(1, 2, 1), M),
    op("slice_scatter", lambda x, y: A.slice_scatter(x, y, 1, 1, 4), M, M[:, :3]),
    op("select_scatter", lambda x, y: A.select_scatter(x, y, 1, -1), M, M[:, 0]),
    *(op(f"diagonal_scatter {k}", lambda x, y, k=k: A.diagonal_scatter(x, y, k), M, M[0, :3] if k > -1 else M[0, :2]) for k in (0, 1, -1)),
    op("index", lambda x, i: x[i] + x[:, [0, 1, 1, 3]][i] * x[i, 1:2], M, np.array([0, 2, 2])),
    op("index by constants", lambda x: x[torch.arange(3)] + x[torch.tensor([2, 1, 0])], M),
    op("index apart", lambda x, i: x[i, :, i], BATCH, np.array([0, 1])),
    op("unsafe index", lambda x, i: A._unsafe_index(x, [None, i]), M, _TO),
    *(op(n, lambda x, i, v, n=n: getattr(A, n)(x, [i], v, True), M, _TO, M) for n in ("index_put", "_index_put_impl", "_unsafe_index_put")),
    op("index_put set", lambda x, i, v: x.clone().index_put_((i,), v), M, np.array([2, 0]), M[:2]),
    op("fill by mask", lambda x, y: A.index_put(x, [x > 0], y), M, np.array(0.3)),
    op("fill rows by mask", lambda x, y: A.index_put(x, [x[:, 0] > 0], y), M, M[0]),
    op("add by mask", lambda x, y: A.index_put(x, [x[:, 0] > 0], y, True), M, M[:1]),
    op("gather", lambda x, i: torch.gather(x, 1, i), M[:2], _WHERE),
    op("gather by constants", lambda x: x.gather(1, torch.tensor([[0], [3], [3]])) + x.gather(0, torch.tensor([[2, 0, 0, 1]])), M),
    op("gather scalar", lambda x, i: torch.gather(x, 0, i), 1.5, np.array([0, 0])),
    op("take", torch.take, M, np.array([[0, 5], [5, 11]])),
    op("index_select", lambda x, i: torch.index_select(x, 1, i), M, _TO),
    op("bucketize", lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0]).to(x)), K),
    op("bucketize right", lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0]).to(x), right=True), K),
    op("searchsorted", lambda s, x: torch.searchsorted(s.sort(-1).values, x, side="right"), M, M[:, :2]),
    op("searchsorted sorter", lambda s, x: torch.searchsorted(s, x, sorter=s.argsort()), K[::-1], L),
    op("write f of the read", lambda x, y: _written(x, y), K, L),
    op("write rows", lambda x: _rows(x), M),
    op("take_masked", lambda x, m: torch.ops.ppl_lvm.take_masked(x, m), K, MASK, fixed=(0,)),
    op("put_masked", lambda x, m: torch.ops.ppl_lvm.put_masked(x, m, 2 * x), K, MASK, fixed=(0,)),
    op("masked_scatter", lambda x, y: x.masked_scatter(x > 0, y), K, L),
    *(op(f"scatter {r}", lambda x, i, r=r: torch.scatter(x, 1, i, 0.5, reduce=r), M[:2], _WHERE, fixed=(0,)) for r in ("add", "multiply")),
    op("scatter", lambda x, i, y: torch.scatter(x, 1, i, y), M, np.array([[0, 2], [3, 1]]), M[:2, :2]),
    op("scatter number", lambda x, i: torch.scatter(x, 1, i, 0.5), M, _WHERE),
    op("scatter_add", lambda x, i, y: torch.scatter_add(x, 0, i, y), M, _BOTH, M[:2]),
    *(op(f"scatter_reduce {r} {s}", lambda x, i, y, r=r, s=s: torch.scatter_reduce(x, 0, i, y, r, include_self=s), np.ones((2, 4)), _BOTH, np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 3.0, 1.0, 0.5]])) for r in ("sum", "mean", "prod", "amax", "amin") for s in (True, False)),
    op("index_add", lambda x, i, y: torch.index_add(x, 0, i, y, alpha=2.0), M, _TO, M),
    op("index_copy", lambda x, i, y: torch.index_copy(x, 0, i, y), M, np.array([2, 0]), M[:2]),
    op("index_fill", lambda x, i: torch.index_fill(x, 1, i, 0.5), M, _TO),
    op("put", lambda x, i, y: x.put(i, y, accumulate=True), M, np.array([0, 5, 5]), K[:3]),
]  # fmt: skip


def _written(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Logs where they are defined, by the idiom that a mask of a shape that depends on values needs."""
    out, held = x.clone(), y > 0
    out[held] = 2.0 * torch.log(y[held]) + y[held] ** 2
    return out


def _rows(x: torch.Tensor) -> torch.Tensor:
    out, held = torch.zeros_like(x), x[:, 1] > 0
    out[held] = x[held]
    return out


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
    *(op(f"cdist {p}", lambda x, y, p=p: torch.cdist(x, y, p), NORMAL_ROWS, np.vstack([NORMAL_ROWS[:1], M[:, :3]])) for p in (1.0, 2.0, 3.0)),
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
    op("solve_triangular right", lambda a, b: torch.linalg.solve_triangular(a, b.mT, upper=True, left=False, unitriangular=True), SQUARE, RIGHT),
    *(op(f"triangular_solve {t}", lambda b, a, t=t: torch.triangular_solve(b, a, True, t)[0], RIGHT, SQUARE) for t in (True, False)),
    op("solve", torch.linalg.solve, SQUARE, RIGHT),
    op("solve vector", torch.linalg.solve, SQUARE, RIGHT[..., 0]),
    op("solve right", lambda a, b: torch.linalg.solve(a, b.mT, left=False), SQUARE, RIGHT),
    *(op(n, getattr(torch.linalg, n), SQUARE) for n in ("inv", "det", "slogdet", "svdvals", "matrix_exp", "qr")),
    op("qr r", lambda a: torch.linalg.qr(a, "r")[1], SQUARE, fixed=(0,)),
    *(op(f"eigvalsh {u}", lambda a, u=u: torch.linalg.eigvalsh(a, u), SPD + BATCH * 0.1) for u in "LU"),
    op("eigh", lambda a: (lambda w, v: (v * w[..., None, :].exp()) @ v.mT)(*torch.linalg.eigh(a)), SPD),
    op("svd", lambda a: (lambda u, s, v: (u * s.exp()[..., None, :]) @ v)(*torch.linalg.svd(a, full_matrices=False)), SQUARE[..., :2]),
    op("svd square", lambda a: (lambda u, s, v: (u * s.exp()[..., None, :]) @ v)(*torch.linalg.svd(a)), SQUARE),
    op("lu", torch.linalg.lu, SQUARE),
    op("lu_factor", lambda a: torch.linalg.lu_factor(a), SQUARE),
    op("lu_unpack", lambda a: torch.lu_unpack(*torch.linalg.lu_factor(a)), SQUARE),
    op("lu_solve", lambda a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b), SQUARE, RIGHT),
    op("lu_solve adjoint", lambda a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b.mT, left=False, adjoint=True), SQUARE, RIGHT),
    op("pinv", torch.linalg.pinv, SQUARE[..., :2]),
    op("pinv hermitian", lambda a: torch.linalg.pinv(a, hermitian=True), SPD),
    op("pinv limits", lambda a: torch.linalg.pinv(a, atol=0.01, rtol=1e-3), SQUARE),
    op("lstsq", lambda a, b: torch.linalg.lstsq(a, b)[:2], SQUARE[..., :2], RIGHT),
    *(op(f"rfft {n}", lambda x, n=n: torch.fft.irfft(torch.fft.rfft(x, norm=n) * (1 + 2j), n=7, norm=n), K) for n in ("forward", "backward", "ortho")),
    op("fft", lambda x: torch.view_as_real(torch.fft.ifft2(torch.fft.fft2(x) ** 2)), M),
    op("fft of complex", lambda x, y: torch.view_as_real(torch.fft.fftn(torch.complex(x, y))), M, M),
]  # fmt: skip

_COUNT = np.array([1, 0, 2])
NETWORKS = [
    *_each("relu silu mish hardswish hardsigmoid gelu elu leaky_relu hardtanh", np.array([-4.0, -3.0, *K, 3.0, 4.0]), wide=100.0),
    op("gelu tanh", lambda x: F.gelu(x, approximate="tanh"), K),
    op("elu alpha", lambda x: A.elu(x, 1.7, 1.05, 2.0), K),
    op("hardtanh bounds", lambda x: F.hardtanh(x, -0.5, 0.5), K),
    op("leaky slope", lambda x: F.leaky_relu(x, 0.3), K),
    op("threshold", lambda x: F.threshold(x, 0.5, 2.0), K),
    op("prelu", F.prelu, M[None], K[:3]),
    op("glu", lambda x: F.glu(x, 1), M),
    op("embedding", F.embedding, np.array([[0, 2], [1, 1]]), M),
    op("embedding padding", lambda i, w: F.embedding(i, w, padding_idx=1), np.array([[0, 2], [1, 1]]), M),
    op("pad", lambda x: F.pad(x, (1, -1, 2, 0), value=0.3), M),
    op("layer_norm", lambda x, w, b: F.layer_norm(x, (4,), w, b), M, K[:4], L[:4]),
    op("layer_norm plain", lambda x: F.layer_norm(x, (3, 4)), M),
    op("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), IMAGE[:, [0, 1, 1, 0]], K[:4], L[:4]),
    op("batch_norm", lambda x, w, b: F.batch_norm(x, torch.ones(2).to(x), torch.full((2,), 0.5).to(x), w, b), IMAGE, K[:2], L[:2]),
    op("batch_norm training", lambda x: F.batch_norm(x, None, None, training=True), IMAGE),
    op("bilinear", F.bilinear, M[:, :2], M, _RNG.normal(size=(3, 2, 4)), K[:3]),
    op("conv1d", lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1), LINE, _RNG.normal(size=(3, 2, 3)), K[:3]),
    op("conv2d", lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(1, 0), dilation=2, groups=2), IMAGE, _RNG.normal(size=(4, 1, 2, 3))),
    op("conv2d same", lambda x, w: F.conv2d(x, w, padding="same"), IMAGE, _RNG.normal(size=(1, 2, 3, 3))),
    op("conv3d", F.conv3d, VOLUME, _RNG.normal(size=(2, 1, 2, 2, 3))),
    op("conv_transpose1d", lambda x, w: F.conv_transpose1d(x, w, stride=3, padding=1, output_padding=2), LINE, _RNG.normal(size=(2, 3, 3))),
    op("conv_transpose2d", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, groups=2, dilation=2), IMAGE, _RNG.normal(size=(2, 2, 2, 3)), K[:4]),
    *(op(f"max_pool2d {c}", lambda x, c=c: F.max_pool2d(x, 3, 2, 1, 1, c), np.round(IMAGE, 0)) for c in (False, True)),
    op("max_pool2d dilated", lambda x: F.max_pool2d(x, (2, 3), 1, 1, (2, 2), return_indices=True), IMAGE),
    op("max_pool1d", lambda x: F.max_pool1d(x, 2), LINE),
    op("max_pool3d", lambda x: F.max_pool3d(x, 2, 1), VOLUME),
    *(op(f"avg_pool2d {c} {p}", lambda x, c=c, p=p: F.avg_pool2d(x, 3, 2, 1, c, p), IMAGE) for c in (False, True) for p in (False, True)),
    op("avg_pool2d divisor", lambda x: F.avg_pool2d(x, (2, 3), divisor_override=5), IMAGE),
    op("avg_pool1d", lambda x: F.avg_pool1d(x, 2, ceil_mode=True), LINE),
    op("avg_pool3d", lambda x: F.avg_pool3d(x, 2, 2, 1), VOLUME),
    *(op(f"adaptive {n}", lambda x, n=n: getattr(F, n)(x, (3, 4)), IMAGE) for n in ("adaptive_avg_pool2d", "adaptive_max_pool2d")),
    *(op(f"adaptive {n}", lambda x, n=n: getattr(F, n)(x, (3, 2, 3)), VOLUME) for n in ("adaptive_avg_pool3d", "adaptive_max_pool3d")),
]  # fmt: skip

_CLASSES = np.array([0, 2, 1])
DECOMPOSED = [
    *(op(n, lambda x, n=n: getattr(F, n)(x), K) for n in ("celu", "hardshrink", "softshrink", "selu", "logsigmoid")),
    *(op(f"{n} {r}", lambda x, y, n=n, r=r: getattr(F, n)(x, y, reduction=r), K, L) for n in ("mse_loss", "smooth_l1_loss", "huber_loss") for r in ("none", "mean")),
    op("soft_margin_loss", F.soft_margin_loss, K, np.sign(L - 0.1), fixed=(1,)),
    op("addr", torch.addr, M, K[:3], L[:4]),
    op("aminmax", lambda x: torch.aminmax(x, dim=1), M),
    op("dist", torch.dist, K, L),
    op("std_mean", lambda x: torch.std_mean(x, 1), M),
    op("ldexp", torch.ldexp, K, np.array([1, 2, 0, -1, 3, 1, 0])),
    op("polar", lambda r, a: torch.view_as_real(torch.polar(r, a)), P, Q),
    op("isin", lambda x: torch.isin(x, torch.tensor([0.5, 2.0]).to(x)), K),
    op("isinf", lambda x: torch.stack([torch.isposinf(x), torch.isneginf(x)]), SPECIAL),
    op("nll_loss", lambda x, i: F.nll_loss(x, i), T[[0, 1, 0]], _CLASSES),
    op("cross_entropy", lambda x, i: F.cross_entropy(x, i, reduction="none", label_smoothing=0.1), T[[0, 1, 0]], _CLASSES),
    op("nll_loss2d", lambda x, i: F.nll_loss(x, i), IMAGE, np.zeros((1, 5, 6), int)),
    op("pixel", lambda x: F.pixel_unshuffle(F.pixel_shuffle(x.reshape(1, 4, 3, 5), 2), 2), IMAGE),
    op("channel_shuffle", lambda x: A.channel_shuffle(x, 2), IMAGE[:, [0, 1, 1, 0]]),
    op("im2col", lambda x: F.unfold(x, (2, 3), padding=1), IMAGE),
    op("unfold_copy", lambda x: A.unfold_copy(x, 1, 2, 1), M),
    *(op(f"pad {m} {n}", lambda x, m=m, p=p: F.pad(x, p, mode=m), v) for m in ("reflect", "replicate") for n, p, v in (("1", (1, 2), LINE), ("2", (1, 2, 0, 1), IMAGE), ("3", (1, 2, 0, 1, 1, 1), VOLUME))),
    *(op(f"upsample {m}", lambda x, m=m: F.interpolate(x, scale_factor=1.7, mode=m), v) for m, v in (("nearest", LINE), ("linear", LINE), ("nearest-exact", LINE))),
    *(op(f"upsample 2d {m}", lambda x, m=m: F.interpolate(x, size=(7, 4), mode=m), IMAGE) for m in ("nearest", "bilinear", "bicubic", "nearest-exact")),
    *(op(f"upsample 3d {m}", lambda x, m=m: F.interpolate(x, scale_factor=2.0, mode=m), VOLUME) for m in ("nearest", "trilinear", "nearest-exact")),
    op("grid_sample", lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False), IMAGE, _RNG.normal(size=(1, 3, 2, 2))),
    op("affine_grid", lambda w: F.affine_grid(w, (1, 2, 3, 4), align_corners=True), M[None, :2, :3]),
]  # fmt: skip

GROUPS = {
    "elementwise": ELEMENTWISE,
    "special": SPECIAL_FUNCTIONS,
    "reductions": REDUCTIONS,
    "shapes": SHAPES,
    "indexing": INDEXING,
    "linear algebra": LINEAR_ALGEBRA,
    "networks": NETWORKS,
    "decomposed": DECOMPOSED,
}
