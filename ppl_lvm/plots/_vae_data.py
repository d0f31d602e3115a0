"""Pictures of what a trained VAE makes: new data, and the data as they come out of encoder and decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ppl_lvm.plots._choose import check_limit
from ppl_lvm.plots._images import tiles_of
from ppl_lvm.plots._mosaic import Words, draw
from ppl_lvm.plots._style import styled
from ppl_lvm.result import Fit


@styled
def plot_samples(
    fit: Fit, num: int = 60, *, seed: int = 0, mean: bool = True, image_shape: Sequence[int] | None = None
) -> Figure:
    """New data: z from the prior, and the mean of p(x | z), or with ``mean=False`` a draw of it.

    Parameters
    ----------
    fit
        A fit of ``models.VAE``, or of an amortised model trained by epochs.
    num, seed
        How many, and the source of randomness: those of ``fit.sample(num, seed=seed)``.
    image_shape
        (h, w) or (c, h, w) for data that are flat vectors; None: the data's own shape. Images of three
        channels are drawn in colour, vectors as a column of cells each.

    Raises
    ------
    TypeError, ValueError
        For a fit without encoder and decoder, or another number of entries in ``image_shape``.
    """
    check_limit("num", num)
    tiles = tiles_of("plot_samples", fit, image_shape)
    found = tiles.of(fit.sample(num, seed=seed, mean=mean))
    columns = num if tiles.strips else _columns(num)
    what = "means of p(x | z)" if mean else "draws of p(x | z)"
    caption = f"{num} new data: z from the prior, {what}."
    words = Words(xlabel="sample", ylabel="feature") if tiles.strips else Words()
    return draw(tiles, _in_rows(found, columns), _title("Samples", fit), caption, words, draws=not mean)


@styled
def plot_reconstructions(
    fit: Fit, x: Any = None, *, num: int = 20, columns: int = 10, image_shape: Sequence[int] | None = None
) -> Figure:
    """The first ``num`` data, and below each the mean of p(x | z) at its mean of q(z | x).

    ``x`` are data, (n, \\*image); None: the fit's own. Data are shown as the encoder sees them: grey levels
    of a model that binarises as one draw of zeros and ones. The other arguments are as in
    :func:`plot_samples`.

    Raises
    ------
    TypeError, ValueError
        As :func:`plot_samples`; and for data of another shape, or none in a fit loaded without its data.
    """
    check_limit("num", num)
    check_limit("columns", columns)
    tiles = tiles_of("plot_reconstructions", fit, image_shape)
    data = tiles.seen(None if x is None else tiles.rows("x", x)[:num])[:num]
    made = fit.reconstruct(data)
    columns = min(len(data) if tiles.strips else columns, len(data))
    above, below = (_in_rows(tiles.of(v), columns) for v in (data, made))
    grid = np.stack([above, below], axis=1).reshape(-1, *above.shape[1:])
    caption = (
        "Upper rows: data; below each its reconstruction, the mean of p(x | z) at the encoder's mean of z. "
        "Where the lower one is blurred, the latents do not hold the difference."
    )
    words = Words(rows=["data", "model"] * len(above), xlabel="data in their order")
    return draw(tiles, grid, _title("Reconstructions", fit), caption, words)


def _columns(num: int) -> int:
    """About as many columns as make a picture of 7 to 5, with as few empty places as can be."""
    wish = math.sqrt(1.4 * num)
    near = range(max(1, math.floor(0.75 * wish)), math.ceil(1.4 * wish) + 1)
    return min(near, key=lambda c: (-num % c, abs(c - wish)))


def _in_rows(found: np.ndarray, columns: int) -> np.ndarray:
    """(m, h, w[, 3]) as (rows, columns, h, w[, 3]), NaN where there is none."""
    rows = -(-len(found) // columns)
    out = np.full((rows * columns, *found.shape[1:]), np.nan)
    out[: len(found)] = found
    return out.reshape(rows, columns, *found.shape[1:])


def _title(what: str, fit: Fit) -> str:
    return f"{what} of {fit.model.describe()}"


__all__ = ["plot_reconstructions", "plot_samples"]
