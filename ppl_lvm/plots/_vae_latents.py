"""Pictures of what the latents of a trained VAE mean: walks through latent space, decoded."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ppl_lvm.plots._choose import check_limit
from ppl_lvm.plots._images import Tiles, tiles_of
from ppl_lvm.plots._mosaic import Words, draw, some_numbers
from ppl_lvm.plots._style import styled
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
    words = Words(rows, some_numbers(steps, num), "value of the latent, in prior sds", "latent")
    return draw(tiles, tiles.decoded(z), f"Traversals of {fit.model.describe()}", caption, words)


@styled
def plot_manifold(
    fit: Fit,
    *,
    num: int = 15,
    dims: tuple[int, int] | None = None,
    image_shape: Sequence[int] | None = None,
) -> Figure:
    """The decoded plane of two latents: a grid at quantiles of their normal prior.

    The quantiles are those of (i + 1/2) / ``num``, so that each picture stands for the same share of the
    prior.

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
    words = Words(some_numbers(at[::-1], 7), some_numbers(at, 7), f"latent {i}, in prior sds", f"latent {j}")
    found = tiles.decoded(z)
    gap = 0 if min(found.shape[2:4]) > 16 else None  # small images have no margin of their own
    return draw(tiles, found, f"Manifold of {fit.model.describe()}", caption, words, gap=gap)


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


__all__ = [
    "check_dims",
    "latent_dim",
    "plot_manifold",
    "plot_traversals",
    "spread_of",
]
