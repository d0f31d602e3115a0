"""Operators that rearrange, read and write parts of tensors, and what they are tried on."""

from __future__ import annotations

import numpy as np
import torch
from translation_op_values import BATCH, MASK, A, K, L, M
from translation_ops import op

SHAPES = [
    *(op(n, getattr(A, n), M) for n in ("t", "t_copy", "zeros_like", "ones_like", "zero")),
    *(
        op(f"{n} dim", lambda x, n=n: getattr(A, n)(x, 0), M[:1])
        for n in ("squeeze", "squeeze_copy", "unsqueeze", "unsqueeze_copy", "unbind", "unbind_copy")
    ),
    *(op(n, lambda x, n=n: getattr(A, n)(x, [2, 6]), M) for n in ("view", "_unsafe_view", "view_copy")),
    op("reshape alias", lambda x: A._reshape_alias(x, [2, 6], [6, 1]), M),
    op("view as -1", lambda x: x.view(-1, 2), M),
    op("squeeze all", torch.squeeze, M[None, :, None]),
    *(op(n, lambda x, n=n: getattr(A, n)(x, [2, -1, 4]), M) for n in ("expand", "expand_copy")),
    *(op(n, lambda x, n=n: getattr(A, n)(x, [2, 0, 1]), BATCH) for n in ("permute", "permute_copy")),
    *(
        op(n, lambda x, n=n: getattr(A, n)(x, 0, -1), BATCH)
        for n in ("transpose", "transpose_copy", "diagonal", "diagonal_copy")
    ),
    op("diagonal offset", lambda x: torch.diagonal(x, 1, 2, 1), BATCH),
    *(op(n, lambda x, n=n: getattr(A, n)(x, 2, 1), M) for n in ("split", "split_copy", "unsafe_split")),
    *(
        op(n, lambda x, n=n: getattr(A, n)(x, [1, 3], 1), M)
        for n in ("split_with_sizes", "split_with_sizes_copy", "unsafe_split_with_sizes")
    ),
    op("cat", lambda x, y: torch.cat([x, x.new_zeros(0), y], 0), K, L),
    op("stack", lambda x, y: torch.stack([x, y], -1), K, L),
    op("repeat", lambda x: x.repeat(2, 1, 2), M),
    op("flip", lambda x: x.flip(0, 1), M),
    op("roll", lambda x: torch.roll(x, (1, -2), (0, 1)), M),
    op("roll all", lambda x: torch.roll(x, 2), M),
    op("rot90", lambda x: torch.rot90(x, 3, (0, 1)), M),
    op("view_as_complex", torch.view_as_complex, M.reshape(3, 2, 2)),
    op("view_as_complex_copy", A.view_as_complex_copy, M.reshape(3, 2, 2), fixed=(0,)),
    *(
        op(f"view_as_real{e}", lambda x, e=e: getattr(A, "view_as_real" + e)(torch.complex(x, x.exp())), M)
        for e in ("", "_copy")
    ),
    op("full_like", lambda x: torch.full_like(x, 2.5) * x, M),
    op("new", lambda x: x.new_zeros(3) + x.new_ones(3) * x.sum() + x.new_full((3,), 0.5) * x[0, 0], M),
    op("empty", lambda x: torch.empty_like(x).copy_(x) + x.new_empty(3, 4).fill_(2.0) * x, M),
    op("fill", lambda x: A.fill.Scalar(x, 2.0), M),
]

_WHERE = np.array([[0, 2, 1], [2, 2, 0]])
_TO = np.array([0, 2, 2])
_BOTH = np.array([[0, 1, 1, 0], [1, 1, 0, 0]])
INDEXING = [
    *(op(n, lambda x, n=n: getattr(A, n)(x, 1, 2), M) for n in ("select", "select_copy")),
    *(op(n, lambda x, n=n: getattr(A, n)(x, 1, 0, 4, 2), M) for n in ("slice", "slice_copy")),
    *(
        op(n, lambda x, n=n: getattr(A, n)(x, [2, 2], [4, 2], 1), M)
        for n in ("as_strided", "as_strided_copy")
    ),
    op("narrow", lambda x: A.narrow_copy(x, 1, 1, 2), M),
    op("unfold", lambda x: x.unfold(1, 2, 1), M),
    op("slice_scatter", lambda x, y: A.slice_scatter(x, y, 1, 1, 4), M, M[:, :3]),
    op("select_scatter", lambda x, y: A.select_scatter(x, y, 1, -1), M, M[:, 0]),
    *(
        op(
            f"diagonal_scatter {k}",
            lambda x, y, k=k: A.diagonal_scatter(x, y, k),
            M,
            M[0, :3] if k > -1 else M[0, :2],
        )
        for k in (0, 1, -1)
    ),
    op("index", lambda x, i: x[i] + x[:, [0, 1, 1, 3]][i] * x[i, 1:2], M, np.array([0, 2, 2])),
    op("index by constants", lambda x: x[torch.arange(3)] + x[torch.tensor([2, 1, 0])], M),
    op("index apart", lambda x, i: x[i, :, i], BATCH, np.array([0, 1])),
    op("unsafe index", lambda x, i: A._unsafe_index(x, [None, i]), M, _TO),
    *(
        op(n, lambda x, i, v, n=n: getattr(A, n)(x, [i], v, True), M, _TO, M)
        for n in ("index_put", "_index_put_impl", "_unsafe_index_put")
    ),
    op("index_put set", lambda x, i, v: x.clone().index_put_((i,), v), M, np.array([2, 0]), M[:2]),
    op("fill by mask", lambda x, y: A.index_put(x, [x > 0], y), M, np.array(0.3)),
    op("fill rows by mask", lambda x, y: A.index_put(x, [x[:, 0] > 0], y), M, M[0]),
    op("add by mask", lambda x, y: A.index_put(x, [x[:, 0] > 0], y, True), M, M[:1]),
    op("gather", lambda x, i: torch.gather(x, 1, i), M[:2], _WHERE),
    op(
        "gather by constants",
        lambda x: x.gather(1, torch.tensor([[0], [3], [3]])) + x.gather(0, torch.tensor([[2, 0, 0, 1]])),
        M,
    ),
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
    *(
        op(f"scatter {r}", lambda x, i, r=r: torch.scatter(x, 1, i, 0.5, reduce=r), M[:2], _WHERE, fixed=(0,))
        for r in ("add", "multiply")
    ),
    op("scatter", lambda x, i, y: torch.scatter(x, 1, i, y), M, np.array([[0, 2], [3, 1]]), M[:2, :2]),
    op("scatter number", lambda x, i: torch.scatter(x, 1, i, 0.5), M, _WHERE),
    op("scatter_add", lambda x, i, y: torch.scatter_add(x, 0, i, y), M, _BOTH, M[:2]),
    *(
        op(
            f"scatter_reduce {r} {s}",
            lambda x, i, y, r=r, s=s: torch.scatter_reduce(x, 0, i, y, r, include_self=s),
            np.full((2, 4), 0.25),
            _BOTH,
            np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 3.0, 1.0, 0.5]]),
        )
        for r in ("sum", "mean", "prod", "amax", "amin")
        for s in (True, False)
    ),
    op("index_add", lambda x, i, y: torch.index_add(x, 0, i, y, alpha=2.0), M, _TO, M),
    op("index_copy", lambda x, i, y: torch.index_copy(x, 0, i, y), M, np.array([2, 0]), M[:2]),
    op("index_fill", lambda x, i: torch.index_fill(x, 1, i, 0.5), M, _TO),
    op("put", lambda x, i, y: x.put(i, y, accumulate=True), M, np.array([0, 5, 5]), K[:3]),
]


def _written(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Logs where they are defined, by the idiom that a mask of a shape that depends on values needs."""
    out, held = x.clone(), y > 0
    out[held] = 2.0 * torch.log(y[held]) + y[held] ** 2
    return out


def _rows(x: torch.Tensor) -> torch.Tensor:
    out, held = torch.zeros_like(x), x[:, 1] > 0
    out[held] = x[held]
    return out
