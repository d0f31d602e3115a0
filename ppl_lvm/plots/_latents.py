"""Latent positions of data with their uncertainty: of factor models, and of models with an encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from ppl_lvm.amortised import is_amortised
from ppl_lvm.plots._style import COLORS, FAINT, Look, blank, key, looks, styled
from ppl_lvm.plots._text import plain
from ppl_lvm.result import Fit

_MOST_ELLIPSES = 1000
_MORE = ("#000000", FAINT, "#8C564B", "#6A3D9A")
"""Colours of the seventh class to the tenth, whose marks are letters."""


@styled
def plot_latents(
    fit: Fit, data: Any = None, *, labels: Any = None, dims: tuple[int, int] | None = None
) -> Figure:
    """Posterior means of the latent positions of the rows, with ellipses of one posterior sd.

    For models with an encoder (a VAE) they are means and sds of q(z | x). Ellipses are left out for more
    than a thousand rows. Seven to ten classes with names of one or two letters are marked by these.

    Parameters
    ----------
    fit, data
        A fit whose model has continuous latents, and the rows to place (None: its own).
    labels
        A class for each row, for colours and markers.
    dims
        Which two latents; None: 0 and 1, with an encoder the two whose means vary most over these rows.
        With one latent dimension the rows' order is the horizontal axis.

    Raises
    ------
    ValueError
        For unknown dims, or labels of another length.
    """
    mean, sd = fit.transform(data, return_std=True)
    amortised = is_amortised(fit)
    a, b = _dims(mean, dims, amortised)
    classes = np.zeros(len(mean), dtype=int) if labels is None else np.asarray(labels)
    if classes.shape != (len(mean),):
        raise ValueError(f"labels: expected {len(mean)} (one per row), got shape {classes.shape}.")
    x, y, sx, sy = _positions(mean, sd, (a, b))
    known = list(dict.fromkeys(classes.tolist())) if labels is None else sorted(set(classes.tolist()))
    look = _looks(known)
    legend = [(key(look[c], line=False), f"{plain(str(c))} ({(classes == c).sum()} rows)") for c in known]
    ellipses = len(mean) <= _MOST_ELLIPSES
    title = f"Latent positions by {type(fit.engine).__name__} on {fit.backend}"
    caption = _caption(mean.shape[1], dims, amortised, ellipses)
    figure = blank(title, caption, 4.2, width=6.4, legend=legend if labels is not None else ())
    axes = figure.add_subplot()
    for c in known:
        own = classes == c
        if ellipses:
            ends = [np.column_stack([x[own] + sign * sx[own], y[own] + sign * sy[own]]) for sign in (-1, 1)]
            axes.update_datalim(np.concatenate(ends))  # autoscale sees the centres of ellipses only
            axes.add_collection(_ellipses(axes, x[own], y[own], sx[own], sy[own], look[c].color))
        letter = look[c].marker.startswith("$")
        size = (20 if letter else 16) if len(mean) <= 2000 else (12 if letter else 6)
        style: Any = {"s": size, "color": look[c].color, "marker": look[c].marker, "linewidths": 0}
        axes.scatter(x[own], y[own], rasterized=len(mean) > _MOST_ELLIPSES, **style)
    axes.autoscale_view()
    what = "latent" if amortised else "factor"
    one = mean.shape[1] == 1
    axes.set_xlabel("row" if one else f"{what} {a}, in prior sds")
    axes.set_ylabel(f"{what} {0 if one else b}, in prior sds")
    return figure


def _dims(mean: np.ndarray, asked: Sequence[int] | None, amortised: bool) -> tuple[int, int]:
    q = mean.shape[1]
    if q == 1:
        return 0, 0
    if asked is None:
        order = np.argsort(-mean.std(0), kind="stable") if amortised else np.arange(q)
        return int(min(order[:2])), int(max(order[:2]))
    if len(asked) != 2 or not all(0 <= k < q for k in asked):
        raise ValueError(f"dims: expected two of 0..{q - 1}, got {asked}.")
    return int(asked[0]), int(asked[1])


def _caption(q: int, asked: Any, amortised: bool, ellipses: bool) -> str:
    whose = "the encoder's mean of z" if amortised else "its posterior mean"
    found = f"Each mark is a row: {whose}"
    found += "; the ellipse spans one posterior sd in each direction." if ellipses else "."
    if amortised and asked is None and q > 2:
        found += f" The two latents of {q} whose means vary most."
    return found


def _looks(classes: Sequence[Any]) -> dict[Any, Look]:
    """A look for each class; beyond six, short names are their own marks."""
    found = looks(classes)
    names = [str(c) for c in classes]
    if len(COLORS) < len(classes) <= len(COLORS) + len(_MORE) and all(
        n.isalnum() and len(n) < 3 for n in names
    ):
        colours = (*COLORS, *_MORE)
        for name, own, colour in zip(names, found, colours, strict=False):
            found[own] = dataclasses.replace(found[own], color=colour, marker=rf"$\mathrm{{{name}}}$")
    return found


def _positions(mean: np.ndarray, sd: np.ndarray, dims: Sequence[int]) -> tuple[np.ndarray, ...]:
    if mean.shape[1] == 1:
        return np.arange(len(mean), dtype=float), mean[:, 0], np.full(len(mean), 0.35), sd[:, 0]
    a, b = dims
    return mean[:, a], mean[:, b], sd[:, a], sd[:, b]


def _ellipses(axes: Any, x: np.ndarray, y: np.ndarray, sx: np.ndarray, sy: np.ndarray, color: str) -> Any:
    return EllipseCollection(
        2 * sx,
        2 * sy,
        np.zeros(len(x)),
        units="xy",
        offsets=np.column_stack([x, y]),
        offset_transform=axes.transData,
        facecolors="none",
        edgecolors=color,
        alpha=float(np.clip(40 / len(x), 0.12, 0.4)),
        linewidths=0.8,
    )


__all__ = ["plot_latents"]
