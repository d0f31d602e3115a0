"""How the runs went and what they say of the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppl_lvm.core import Evidence
from ppl_lvm.plots._style import FAINT, WIDTH, Look, blank, looks, panels, styled
from ppl_lvm.plots._text import plain, shorten, wrap
from ppl_lvm.result import Fit

KINDS = {"exact": "exact", "lower_bound": "lower bound", "upper_bound": "upper bound", "estimate": "estimate"}


@styled
def plot_loss(fits: Mapping[str, Fit]) -> Figure:
    """What was maximised at every step, in nats: a bound of the evidence, or for EM the log likelihood.

    Thin: the values as they came, one draw's estimate each; thick: their running mean over a fiftieth of
    the run. The vertical axis leaves out a bad start, and the lowest half percent, which would flatten the
    rest.

    Raises
    ------
    ValueError
        If no fit has such a history (chains and importance sampling have none).
    """
    _check(fits)
    curves = {n: -_history(f) for n, f in fits.items() if _history(f) is not None}
    if not curves:
        raise ValueError("fits: none was optimised, so there is no loss to show; pass SVI or EM fits.")
    look = looks(fits)
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    caption = (
        "Thin: value at each step; thick: running mean over a fiftieth of the run. The start of a run, and "
        "single values, may lie below the axis."
    )
    figure = blank("What was maximised", caption, 1.9 * rows)
    for (name, values), axes in zip(curves.items(), panels(figure, len(curves), columns), strict=True):
        _curve(axes, values, look[name])
        axes.set_title(shorten(plain(name), (WIDTH - 0.6) / columns - 0.7))
        axes.set_ylabel(_what(fits[name]))
        axes.set_xlabel("step" if fits[name].log_likelihood is None else "iteration")
    return figure


def _check(fits: Any) -> None:
    if not isinstance(fits, Mapping) or not fits:
        raise TypeError("fits: expected a mapping of names to fits, such as {'vi': vi}.")
    for name, fit in fits.items():
        if not isinstance(fit, Fit):
            raise TypeError(f"fits[{name!r}]: expected a Fit, got {type(fit).__name__}.")


def _history(fit: Fit) -> Any:
    group = fit.groups.get("optimization")
    return None if group is None or "loss" not in group else group["loss"].values.reshape(-1)


def _what(fit: Fit) -> str:
    if fit.log_likelihood is None:
        return "bound (nats)"
    penalised = getattr(fit.engine, "estimate", "ml") == "map"
    return "log posterior (nats)" if penalised else "log likelihood (nats)"


def _curve(axes: Axes, values: np.ndarray, look: Look) -> None:
    steps = np.arange(1, len(values) + 1)
    window = max(1, len(values) // 50)
    raw: Any = {"color": look.color, "linewidth": 0.6, "alpha": 0.45, "rasterized": len(values) > 500}
    if window == 1:
        axes.plot(steps, values, color=look.color, marker=look.marker, markersize=3, linewidth=1)
        return
    smooth = np.convolve(values, np.full(window, 1 / window), mode="valid")
    axes.plot(steps, values, **raw)
    axes.plot(steps[window - 1 :], smooth, color=look.color, linewidth=1.6)
    settled = values[len(values) // 10 :]
    low, high = float(np.quantile(settled, 0.005)), float(values.max())
    room = 0.05 * (high - low)
    if np.isfinite([low, high]).all() and room > 0:
        axes.set_ylim(low - room, high + room)


@styled
def plot_evidence(fits: Mapping[str, Fit]) -> Figure:
    """The log evidence that each fit gives, in nats, with two standard errors; arrows where it is a bound.

    A lower bound's arrow points up the axis: the evidence lies there. Values that are conditional on
    parameters are marked as such, and are not comparable with others.

    Raises
    ------
    ValueError
        If no fit gives an evidence (chains and points give none).
    """
    _check(fits)
    found: dict[str, Any] = {n: f.evidence for n, f in fits.items() if f.evidence is not None}
    if not found:
        raise ValueError("fits: none gives a log evidence; pass fits by SVI or ImportanceSampling.")
    missing = [plain(n) for n in fits if n not in found]
    caption = (
        "Bars are two Monte Carlo standard errors. From a bound, an arrow points to where the evidence lies."
    )
    caption += f" No evidence: {', '.join(missing)}." if missing else ""
    labels = {n: _label(n, e) for n, e in found.items()}
    height = sum(max(0.34, 0.155 * len(t) + 0.1) for t in labels.values())
    figure = blank("Log evidence", caption, height + 0.6)
    axes = figure.add_subplot()
    look = looks(fits)
    width = _width(list(found.values()))
    for i, (name, evidence) in enumerate(found.items()):
        _value(axes, i, evidence, look[name], width)
    axes.set_ylim(len(found) - 0.45, -0.55)
    axes.set_yticks(range(len(found)), ["\n".join(t) for t in labels.values()])
    axes.set_ylabel("fit")
    axes.set_xlabel("log p(x) of the whole data set (nats)")
    axes.locator_params(axis="x", nbins=6)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(found)), [_figures(e) for e in found.values()])
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _label(name: str, evidence: Evidence) -> list[str]:
    lines = [shorten(plain(name), 2.5), KINDS[evidence.kind]]
    if evidence.conditional_on:
        lines += wrap(plain("given " + ", ".join(evidence.conditional_on)), 2.0)[:2]
    return lines


def _figures(evidence: Evidence) -> str:
    sign = {"exact": "=", "lower_bound": "\u2265", "upper_bound": "\u2264", "estimate": "\u2248"}[
        evidence.kind
    ]
    value = f"{sign} {evidence.nats:.2f}".replace("-", "\u2212")
    return value if evidence.std_error == 0 else f"{value} \u00b1 {evidence.std_error:.2f}"


def _width(found: list[Evidence]) -> float:
    """Length of a bound's arrow: an eighth of what the values span."""
    ends = [e.nats + s * 2 * e.std_error for e in found for s in (-1, 1)]
    return max((max(ends) - min(ends)) / 8, 0.05)


def _value(axes: Axes, y: int, evidence: Evidence, look: Look, width: float) -> None:
    axes.axhline(y, color=FAINT, linewidth=0.3, zorder=0)
    axes.errorbar(
        evidence.nats,
        y,
        xerr=2 * evidence.std_error,
        color=look.color,
        marker=look.marker,
        markersize=6,
        capsize=3,
    )
    way = {"lower_bound": 1, "upper_bound": -1}.get(evidence.kind, 0)
    if way:
        start = evidence.nats + way * 2 * evidence.std_error
        axes.annotate(
            "",
            xy=(start + way * width, y),
            xytext=(start, y),
            arrowprops={
                "arrowstyle": "-|>",
                "color": look.color,
                "linewidth": 1.2,
                "shrinkA": 4,
                "shrinkB": 0,
            },
        )
        axes.plot([start + way * width], [y], linestyle="none")  # the arrow's end counts for the limits


__all__ = ["plot_evidence", "plot_loss"]
