"""Pictures of factor models: loadings, and the choice of dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ppl_lvm.plots._style import COLORS, FAINT, INK, blank, key, looks, styled
from ppl_lvm.plots._text import plain, shorten
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    from ppl_lvm.dimension import DimensionChoice

_MOST_NUMBERS = 150


@styled
def plot_loadings(fit: Fit, *, prob: float = 0.89) -> Figure:
    """The loadings (variables by factors) as a heat map: posterior means, or a point's values.

    Entries whose equal-tailed interval of probability ``prob`` excludes zero are in bold. Draws were turned
    to one orientation when the fit was made.

    Raises
    ------
    ValueError
        For a fit of a model without loadings.
    """
    values, clear = _loadings(fit, prob)
    variables, q = _names(fit, "feature", len(values)), values.shape[1]
    how = (
        f"Posterior means; bold: the {prob:.0%} interval (equal tails) excludes zero."
        if clear is not None
        else "The point's values, in the conventional orientation."
    )
    height = min(0.24 * len(values) + 0.7, 9.0)
    width = min(max(2.6 + 0.75 * q, 4.6), 7.6)
    figure = blank(f"Loadings by {type(fit.engine).__name__}", how, height, width=width)
    axes = figure.add_subplot()
    top = float(np.abs(values).max()) or 1.0
    image = axes.imshow(values, cmap="RdBu_r", norm=TwoSlopeNorm(0.0, -top, top), aspect="auto")
    axes.set_xticks(range(q), [str(k) for k in range(q)])
    step = -(-len(values) // 40)
    axes.set_yticks(range(0, len(values), step), [shorten(plain(v), 2.0) for v in variables[::step]])
    axes.set(xlabel="factor", ylabel="variable")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if values.size <= _MOST_NUMBERS:
        _write_numbers(axes, values, clear, top)
    figure.colorbar(image, ax=axes, label="loading, units of the variable", shrink=0.9)
    return figure


def _write_numbers(axes: Any, values: np.ndarray, clear: np.ndarray | None, top: float) -> None:
    for (f, k), value in np.ndenumerate(values):
        if value == 0.0:
            continue  # fixed by a mask
        bold = clear is not None and clear[f, k]
        axes.text(
            k,
            f,
            f"{value:.2f}".replace("-", "\u2212"),
            ha="center",
            va="center",
            color="white" if abs(value) > 0.6 * top else INK,
            fontweight="bold" if bold else "normal",
        )


def _loadings(fit: Fit, prob: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Loadings (d, q) to show, and which exclude zero (None for a point)."""
    if not 0 < prob < 1:
        raise ValueError(f"prob: expected a number between 0 and 1, got {prob!r}.")
    if fit.is_point:
        if "loadings" not in fit.params:
            raise ValueError(f"plot_loadings: {fit.model.describe()} has no loadings.")
        return np.asarray(fit.params["loadings"]), None
    if "loadings" not in fit.posterior:
        raise ValueError(f"plot_loadings: {fit.model.describe()} has no loadings.")
    draws = fit.posterior["loadings"].transpose("chain", "draw", ...).values
    flat = draws.reshape(-1, *draws.shape[2:])
    low, high = np.quantile(flat, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    return flat.mean(0), (low > 0) | (high < 0)


def _names(fit: Fit, dim: str, size: int) -> list[str]:
    found: Any = None
    if fit.problem is not None:
        found = fit.problem.coords.get(dim)
    if found is None and fit.draws is not None and dim in fit.draws.coords:
        found = fit.draws.coords[dim].values
    if found is None or len(found) != size:
        return [f"{dim} {i}" for i in range(size)]
    return [str(v) for v in found]


_CRITERIA = {
    "bic": "BIC",
    "aic": "AIC",
    "laplace_evidence": "evidence (Laplace), times -2",
    "elpd_loo": "LOO, times -2",
}


@styled
def plot_dimension(choice: DimensionChoice) -> Figure:
    """Scree of the sample covariance, and every criterion against the latent dimension (lower is better).

    Criteria are drawn as differences from their best; the best of each is a filled mark.
    """
    table = choice.table
    shown = [c for c in _CRITERIA if c in table]
    look = looks(shown)
    legend = [(key(look[c]), f"{_CRITERIA[c]}: best at {choice.best[c]}") for c in shown]
    if "ard" in choice.best:
        line = Line2D([], [], color=FAINT, linestyle=":")
        legend.append((line, f"ARD keeps {choice.best['ard']}"))
    caption = "Left: eigenvalues of the sample covariance. Right: criteria, lower is better (filled: best)."
    figure = blank("Number of latent dimensions", caption, 2.9, legend=legend)
    left, right = figure.subplots(1, 2)
    values = choice.eigenvalues
    left.plot(np.arange(1, len(values) + 1), values, marker="o", color=COLORS[0])
    left.set(xlabel="rank", ylabel="eigenvalue, squared units", ylim=(0, None))
    left.xaxis.get_major_locator().set_params(integer=True)
    for c in shown:
        score = table[c] * (1.0 if c in ("aic", "bic") else -2.0)
        gap = (score - score.min()).to_numpy()
        right.plot(table.index, gap, color=look[c].color, linestyle=look[c].line)
        right.plot(
            table.index, gap, look[c].marker, color=look[c].color, markerfacecolor="white", linestyle="none"
        )
        at = choice.best[c]
        right.plot(
            [at], [gap[list(table.index).index(at)]], look[c].marker, color=look[c].color, markersize=7
        )
    if "ard" in choice.best:
        right.axvline(choice.best["ard"], color=FAINT, linestyle=":")
    right.set(xlabel="latent dimensions", ylabel="distance from the best, 2 nats")
    right.xaxis.get_major_locator().set_params(integer=True)
    return figure


__all__ = ["plot_dimension", "plot_loadings"]
