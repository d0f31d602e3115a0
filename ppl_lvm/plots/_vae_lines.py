"""Straight lines in the latent space of a trained VAE, decoded: between data, and along mean differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ppl_lvm.plots._choose import check_limit
from ppl_lvm.plots._images import tiles_of
from ppl_lvm.plots._mosaic import Words, draw, some_numbers
from ppl_lvm.plots._style import styled
from ppl_lvm.result import Fit


@styled
def plot_interpolation(
    fit: Fit, a: Any, b: Any, *, num: int = 11, image_shape: Sequence[int] | None = None
) -> Figure:
    """From one datum to another: the line between their means of q(z | x), decoded at ``num`` points.

    ``a`` and ``b`` are data (\\*image), or as many of each (m, \\*image), a row for each pair; they stand at
    the ends as they are. The other arguments are as in :func:`plot_samples`.

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
    grid = np.concatenate([left, tiles.decoded(z), right], axis=1)
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
    z = E q(z | x) + s (mean over ``plus`` - mean over ``minus``), for s in ``steps``; s = 0 is the
    reconstruction.

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
    grid = np.concatenate([tiles.of(seen)[:, None], tiles.decoded(z)], axis=1)
    caption = (
        f"Data, and beside each the mean of p(x | z) with s times the direction added to its latents. "
        f"Direction: mean latents of \u201c{names[0]}\u201d less those of \u201c{names[1]}\u201d."
    )
    columns = ["datum", *some_numbers(size, len(size))]
    words = Words([str(i) for i in range(len(seen))], columns, "s, how far along the direction", "datum")
    return draw(tiles, grid, f"Latent arithmetic: {names[0]} \u2212 {names[1]}", caption, words)


__all__ = ["plot_arithmetic", "plot_interpolation"]
