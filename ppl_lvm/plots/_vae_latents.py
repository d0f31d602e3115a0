"""Pictures of what the latents of a trained VAE mean: walks through latent space, decoded."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ppl_lvm.plots._choose import check_limit
from ppl_lvm.plots._images import Tiles, Words, draw, tiles_of
from ppl_lvm.plots._style import styled
from ppl_lvm.plots._text import number
from ppl_lvm.result import Fit

_MOST_DIMS = 10


@styled
def plot_traversals(
    fit: Fit,
    x: Any = None,
    *,
    dims: Sequence[int] | None = None,
    num: int = 11,
    reach: float = 3.0,
    image_shape: Sequence[int] | None = None,
) -> Figure:
    """One latent dimension a row, from -``reach`` to ``reach`` in ``num`` steps, the others held; decoded.

    The others are at 0, the prior's mean, or at the mean of q(z | x) of one datum ``x`` (\\*image).

    Parameters
    ----------
    fit, image_shape
        As in :func:`plot_samples`.
    dims
        Which dimensions, in this order; None: at most ten, those first whose means of q(z | x) vary most over
        the fit's data (the activity of Burda et al. 2016). A dimension that the model does not use has a
        standard deviation near 0 there, and a row of equal pictures.

    Raises
    ------
    TypeError, ValueError
        As :func:`plot_samples`; and for dimensions that are not there.
    """
    check_limit("num", num)
    if not isinstance(reach, (int, float)) or isinstance(reach, bool) or not 0 < reach < np.inf:
        raise ValueError(f"reach: expected a positive number, in prior sds, got {reach!r}.")
    tiles = tiles_of("plot_traversals", fit, image_shape)
    q, spread = latent_dim(fit), spread_of(fit)
    shown = _dims(dims, q, spread)
    base = np.zeros(q)
    if x is not None:
        base = fit.transform(_single(tiles, "x", x))[0]
    steps = np.linspace(-reach, reach, num)
    z = np.tile(base, (len(shown), num, 1))
    for row, k in enumerate(shown):
        z[row, :, k] = steps
    where = "0" if x is None else "the encoder's means of one datum"
    caption = f"Mean of p(x | z) as one latent goes through its prior's range, the others at {where}."
    if spread is not None:
        caption += " In brackets: sd of the latent's means over the data, near 0 if it is not used."
    if len(shown) < q and dims is None:
        caption += f" The {len(shown)} most used of {q}."
    rows = [f"{k}" if spread is None else f"{k} ({spread[k]:.2f})" for k in shown]
    words = Words(rows, _numbers(steps, num), "value of the latent, in prior sds", "latent dimension")
    return draw(tiles, _decoded(tiles, z), f"Traversals of {fit.model.describe()}", caption, words)


@styled
def plot_interpolation(
    fit: Fit, a: Any, b: Any, *, num: int = 9, image_shape: Sequence[int] | None = None
) -> Figure:
    """From one datum to another: the line between their means of q(z | x), decoded at ``num`` points.

    ``a`` and ``b`` are data (\\*image), or as many of each (m, \\*image), a row for each pair; they stand at the
    ends as they are. The other arguments are as in :func:`plot_samples`.

    Raises
    ------
    TypeError, ValueError
        As :func:`plot_samples`; and for data of another shape, or not as many of each.
    """
    if num < 2:
        raise ValueError(f"num: expected at least 2 points of a line, got {num!r}.")
    check_limit("num", num)
    tiles = tiles_of("plot_interpolation", fit, image_shape)
    first, last = tiles.rows("a", a), tiles.rows("b", b)
    if len(first) != len(last):
        raise ValueError(f"a, b: expected as many of each, got {len(first)} and {len(last)}.")
    ends = [tiles.seen(v) for v in (first, last)]
    start, stop = (fit.transform(v) for v in ends)
    share = np.linspace(0, 1, num)
    z = start[:, None] + share[:, None] * (stop - start)[:, None]
    left, right = (tiles.of(v)[:, None] for v in ends)
    grid = np.concatenate([left, _decoded(tiles, z), right], axis=1)
    caption = (
        "Between two data, which stand at the ends: the mean of p(x | z) at points of the straight line from "
        "the encoder's mean of z of the one to that of the other."
    )
    columns = ["a", *(f"{s:.2g}" for s in share), "b"]
    words = Words([str(i) for i in range(len(first))], columns, "share of the way", "pair")
    return draw(tiles, grid, f"Interpolation by {fit.model.describe()}", caption, words)


@styled
def plot_arithmetic(
    fit: Fit,
    x: Any,
    plus: Any,
    minus: Any,
    *,
    names: tuple[str, str] = ("plus", "minus"),
    steps: Sequence[float] = (-0.5, 0.0, 0.5, 1.0, 1.5),
    image_shape: Sequence[int] | None = None,
) -> Figure:
    """Data moved along a direction: the mean of one group's latents less that of another's.

    Each row is a datum of ``x`` (\\*image), (m, \\*image), and then the mean of p(x | z) at
    z = E q(z | x) + s (mean over ``plus`` - mean over ``minus``), for s in ``steps``; s = 0 is the reconstruction.

    Parameters
    ----------
    fit, image_shape
        As in :func:`plot_samples`.
    x, plus, minus
        The data to move, and the two groups, (k, \\*image).
    names
        What the groups are called.

    Raises
    ------
    TypeError, ValueError
        As :func:`plot_samples`; and for data of another shape, or steps that are no finite numbers.
    """
    tiles = tiles_of("plot_arithmetic", fit, image_shape)
    size = np.asarray(steps, dtype=float)
    if size.ndim != 1 or not size.size or not np.isfinite(size).all():
        raise ValueError(f"steps: expected finite numbers such as (0, 0.5, 1), got {steps!r}.")
    groups = [fit.transform(tiles.rows(n, v)).mean(0) for n, v in (("plus", plus), ("minus", minus))]
    seen = tiles.seen(tiles.rows("x", x))
    z = fit.transform(seen)[:, None] + size[:, None] * (groups[0] - groups[1])
    grid = np.concatenate([tiles.of(seen)[:, None], _decoded(tiles, z)], axis=1)
    caption = (
        f"Data, and beside each the mean of p(x | z) with s times the direction added to its latents. Direction: "
        f"mean latents of \u201c{names[0]}\u201d less those of \u201c{names[1]}\u201d."
    )
    columns = ["datum", *_numbers(size, len(size))]
    words = Words([str(i) for i in range(len(seen))], columns, "s", "datum")
    return draw(tiles, grid, f"Latent arithmetic: {names[0]} \u2212 {names[1]}", caption, words)


@styled
def plot_manifold(
    fit: Fit,
    *,
    num: int = 15,
    dims: tuple[int, int] | None = None,
    image_shape: Sequence[int] | None = None,
) -> Figure:
    """The decoded plane of two latents: a grid at quantiles of their normal prior.

    The quantiles are those of (i + 1/2) / ``num``, so that each picture stands for the same share of the prior.

    Parameters
    ----------
    fit, image_shape
        As in :func:`plot_samples`.
    dims
        Which two latents, the others at 0; may be left out where there are only two.

    Raises
    ------
    TypeError, ValueError
        As :func:`plot_samples`; and for another number of latents, with advice.
    """
    check_limit("num", num)
    tiles = tiles_of("plot_manifold", fit, image_shape)
    q = latent_dim(fit)
    if dims is None and q != 2:
        advice = "plot_traversals shows one" if q == 1 else "give dims=(0, 1), which holds the others at 0"
        raise ValueError(f"plot_manifold: is of two latents and the model has {q}; {advice}.")
    i, j = check_dims("dims", dims or (0, 1), q)
    at = np.array([NormalDist().inv_cdf((k + 0.5) / num) for k in range(num)])
    z = np.zeros((num, num, q))
    z[:, :, i], z[:, :, j] = at[None, :], at[::-1, None]
    others = " The other latents are at 0." if q > 2 else ""
    caption = (
        "Mean of p(x | z) on a grid of two latents, at equally spaced quantiles of their normal prior: each "
        f"picture stands for the same share of it.{others}"
    )
    words = Words(_numbers(at[::-1], 7), _numbers(at, 7), f"latent {i}, in prior sds", f"latent {j}")
    return draw(tiles, _decoded(tiles, z), f"Manifold of {fit.model.describe()}", caption, words, gap=0)


# ---- helpers -------------------------------------------------------------------------------------


def latent_dim(fit: Fit) -> int:
    """Number of latents of a datum, in one site."""
    own = getattr(fit.model, "latent_dim", None)
    if own is not None:
        return int(own)
    sites = fit.problem.latents() if fit.problem is not None else []
    if len(sites) != 1 or len(sites[0].shape) != 2:
        raise ValueError(
            f"{fit.model.describe()}: expected one latent site of shape (n, q), got "
            f"{ {s.name: s.shape for s in sites} }."
        )
    return int(sites[0].shape[1])


def spread_of(fit: Fit) -> np.ndarray | None:
    """Sd over the fit's data of the means of q(z | x), (q,); None for a fit without its data."""
    return None if fit.problem is None else np.asarray(fit.transform()).std(0)


def check_dims(name: str, dims: Sequence[int], q: int) -> list[int]:
    """Dimensions as integers from 0 to q - 1, no two equal."""
    found = list(dims)
    whole = all(isinstance(k, (int, np.integer)) and not isinstance(k, bool) for k in found)
    if not found or not whole or not all(0 <= k < q for k in found) or len(set(found)) < len(found):
        raise ValueError(f"{name}: expected different latent dimensions from 0 to {q - 1}, got {dims!r}.")
    return [int(k) for k in found]


def _dims(asked: Sequence[int] | None, q: int, spread: np.ndarray | None) -> list[int]:
    if asked is not None:
        return check_dims("dims", asked, q)
    order = np.arange(q) if spread is None else np.argsort(-spread, kind="stable")
    return [int(k) for k in order[:_MOST_DIMS]]


def _single(tiles: Tiles, name: str, x: Any) -> np.ndarray:
    rows = tiles.rows(name, x)
    if len(rows) != 1:
        raise ValueError(f"{name}: expected one datum, got {len(rows)}.")
    return rows


def _decoded(tiles: Tiles, z: np.ndarray) -> np.ndarray:
    """Means of p(x | z) at z (rows, columns, q), as tiles (rows, columns, h, w[, 3])."""
    found = tiles.of(tiles.fit.inverse_transform(z.reshape(-1, z.shape[-1])))
    return found.reshape(*z.shape[:2], *found.shape[1:])


def _numbers(values: np.ndarray, most: int) -> list[str]:
    """Tick labels, at most about ``most`` of them, the others empty."""
    every = -(-len(values) // most)
    first = (len(values) - 1) % every // 2
    return [number(round(float(v), 2)) if (i - first) % every == 0 else "" for i, v in enumerate(values)]


__all__ = [
    "check_dims",
    "latent_dim",
    "plot_arithmetic",
    "plot_interpolation",
    "plot_manifold",
    "plot_traversals",
    "spread_of",
]
