"""Pictures that show the data: predictive checks and clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ppl_lvm.plots._style import COLORS, Look, blank, looks, styled
from ppl_lvm.plots._text import number, plain, wrap
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    from ppl_lvm.predictive import PredictiveCheck

MOST_FEATURES = 6


@styled
def plot_check(predictive_check: PredictiveCheck) -> Figure:
    """Histogram of the statistic of replicated data, and the line where the observed data have it.

    The title has p = P(T(x_rep) >= T(x)) with its Monte Carlo standard error.
    """
    name = plain(predictive_check.name.replace("<lambda>", "statistic").replace("_", " "))
    p = f"{predictive_check.p_value:.3f} \u00b1 {predictive_check.std_error:.3f}"
    caption = f"p = P(T(replicated) \u2265 T(observed)) = {p}. Near 0 or 1 the model does not make such data."
    bars = Patch(color=COLORS[5])
    line = Line2D([], [], color="black", linewidth=1.6, linestyle="--", marker="v")
    legend = [
        (bars, f"{len(predictive_check.replicated)} replicated data sets"),
        (line, f"observed: {number(predictive_check.observed)}"),
    ]
    figure = blank(f"Predictive check: {name}", caption, 2.4, width=6.0, legend=legend)
    axes = figure.add_subplot()
    axes.hist(predictive_check.replicated, bins="auto", color=COLORS[5], edgecolor="white", linewidth=0.5)
    axes.axvline(predictive_check.observed, color="black", linewidth=1.6, linestyle="--")
    axes.plot(
        [predictive_check.observed], [0.97], marker="v", color="black", transform=axes.get_xaxis_transform()
    )
    axes.set_xlabel(f"{name} of the data")
    axes.set_ylabel("number of data sets")
    return figure


@styled
def plot_clusters(fit: Fit, *, features: Sequence[Any] | None = None) -> Figure:
    """Scatter matrix of the data, each row coloured and shaped by the component it most probably belongs to.

    Size is certainty: the probability of that component, averaged over draws. With one feature, certainty
    is the vertical axis.

    Parameters
    ----------
    fit
        A fit, with its data, of a model that predicts labels.
    features
        Names or numbers of columns; None: the first six.

    Raises
    ------
    ValueError
        For a fit without its data, a model without labels, or unknown features.
    """
    matrix, names = _matrix(fit)
    shown = _features(names, features)
    proba = fit.predict_proba()
    labels, certainty = proba.argmax(-1), proba.max(-1)
    look = looks(range(proba.shape[1]))
    legend = [
        (
            Line2D([], [], color=look[k].color, marker=look[k].marker, linestyle="none"),
            f"component {k} ({(labels == k).sum()} rows)",
        )
        for k in look
    ]
    note = (
        f" The first {MOST_FEATURES} of {len(names)} features."
        if features is None and len(shown) < len(names)
        else ""
    )
    caption = (
        f"Each mark is a row; colour and shape are its most probable component, size its certainty.{note}"
    )
    draw = _Scatter(matrix, names, labels, certainty, look)
    count = max(len(shown) - 1, 1)
    title = f"Clusters by {type(fit.engine).__name__} on {fit.backend}"
    if len(shown) == 1:
        figure = blank(title, caption, 2.6, legend=legend)
        axes = figure.add_subplot()
        draw.panel(axes, matrix[:, shown[0]], certainty)
        axes.set(xlabel=plain(names[shown[0]]), ylabel="probability of the component", ylim=(0, 1.05))
        return figure
    figure = blank(title, caption, max(1.6 * count, 2.8) + 0.3, legend=legend)
    grid = figure.add_gridspec(count, count)
    for i in range(count):
        for j in range(i + 1):
            axes = figure.add_subplot(grid[i, j])
            draw.panel(axes, matrix[:, shown[j]], matrix[:, shown[i + 1]])
            axes.tick_params(labelbottom=i == count - 1, labelleft=j == 0)
            axes.locator_params(nbins=4)
            if i == count - 1:
                axes.set_xlabel("\n".join(wrap(plain(names[shown[j]]), 6.6 / count)))
            if j == 0:
                axes.set_ylabel("\n".join(wrap(plain(names[shown[i + 1]]), 1.4)))
    return figure


class _Scatter:
    def __init__(
        self,
        matrix: np.ndarray,
        names: list[str],
        labels: np.ndarray,
        certainty: np.ndarray,
        look: dict[Any, Look],
    ) -> None:
        self.labels, self.certainty, self.look = labels, certainty, look
        self.many = len(matrix) > 2000

    def panel(self, axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
        """Size is 6 points at a certainty of 1/k, 24 at 1 (areas, square points)."""
        least = 1 / max(len(self.look), 2)
        sure = np.clip((self.certainty - least) / (1 - least), 0, 1)
        for k, look in self.look.items():
            own = self.labels == k
            axes.scatter(
                x[own],
                y[own],
                s=(5 + 17 * sure[own] ** 2) / (3 if self.many else 1),
                color=look.color,
                marker=look.marker,
                alpha=0.75,
                linewidths=0,
                rasterized=self.many,
            )


def _matrix(fit: Fit) -> tuple[np.ndarray, list[str]]:
    """The data (n, d), and names of its columns."""
    problem = fit.problem
    if problem is None:
        raise ValueError(
            "plot_clusters: this fit was loaded without its data; save it with them, or fit again."
        )
    arrays = [problem.arguments[k] for k in problem.batched if np.ndim(problem.arguments[k]) in (1, 2)]
    if not arrays:
        raise ValueError(f"plot_clusters: {problem.model.describe()} has no rows of numbers to show.")
    matrix = np.asarray(arrays[0], dtype=float).reshape(len(arrays[0]), -1)
    dims = [
        problem.dims[s.name]
        for s in problem.sites.values()
        if s.kind == "observed" and s.shape == matrix.shape
    ]
    labels = problem.coords.get(dims[0][-1]) if dims else None
    if labels is None or len(labels) != matrix.shape[1]:
        labels = [f"feature {i}" for i in range(matrix.shape[1])]
    return matrix, [str(v) for v in labels]


def _features(names: list[str], asked: Sequence[Any] | None) -> list[int]:
    if asked is None:
        return list(range(min(len(names), MOST_FEATURES)))
    found = []
    for feature in asked:
        if isinstance(feature, (int, np.integer)) and 0 <= feature < len(names):
            found.append(int(feature))
        elif str(feature) in names:
            found.append(names.index(str(feature)))
        else:
            raise ValueError(f"features: no {feature!r}; the features are {names}.")
    if not found:
        raise ValueError("features: expected at least one name or number.")
    return found


__all__ = ["plot_check", "plot_clusters"]
