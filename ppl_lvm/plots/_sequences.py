"""Pictures of sequences: decoded states over time, with the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ppl_lvm.plots._style import FAINT, INK, blank, looks, styled
from ppl_lvm.plots._text import plain
from ppl_lvm.predictive import state_means
from ppl_lvm.result import Fit


@styled
def plot_states(fit: Fit, *, sequence: int = 0, feature: int = 0, times: Any = None) -> Figure:
    """One sequence with its states: the data above, the probability of each state below.

    Marks are the data; the line is the mean of the decoded (Viterbi) state at each time. Probabilities are
    smoothed, and averaged over draws.

    Parameters
    ----------
    fit
        A fit, with its data, of a model of sequences.
    sequence, feature
        Which sequence, and which column of it.
    times
        A number for each time; None: 0, 1, ...

    Raises
    ------
    ValueError
        For a fit without its data, a model without states, or numbers out of range.
    """
    if fit.problem is None:
        raise ValueError(
            "plot_states: this fit was loaded without its data; save it with them, or fit again."
        )
    observed = fit.model.observations(fit.problem.data)
    if observed is None or observed["obs"].ndim != 3 or fit.model.label_axes is None:
        raise ValueError(f"plot_states: {fit.model.describe()} has no states over time.")
    values = observed["obs"]
    for name, at, size in (("sequence", sequence, len(values)), ("feature", feature, values.shape[2])):
        if not 0 <= at < size:
            raise ValueError(f"{name}: expected 0..{size - 1}, got {at}.")
    path, proba = _states(fit, sequence)
    length = int((path >= 0).sum())
    x, path, proba = values[sequence, :length, feature], path[:length], proba[:length]
    time = np.arange(length) if times is None else np.asarray(times, dtype=float)
    if len(time) < length:
        raise ValueError(f"times: expected {length} numbers (the length of the sequence), got {len(time)}.")
    means = state_means(fit)[:, feature]
    return _draw(fit, time[:length], x, path, proba, means, (sequence, feature, len(values)))


def _states(fit: Fit, sequence: int) -> tuple[np.ndarray, np.ndarray]:
    path, proba = fit.predict(), fit.predict_proba()
    return (path, proba) if path.ndim == 1 else (path[sequence], proba[sequence])


def _draw(
    fit: Fit,
    time: np.ndarray,
    x: np.ndarray,
    path: np.ndarray,
    proba: np.ndarray,
    means: np.ndarray,
    place: tuple[int, int, int],
) -> Figure:
    sequence, feature, count = place
    k = proba.shape[1]
    look = looks(range(k))
    legend: list[Any] = [(Patch(color=look[j].color), f"state {j} (mean {means[j]:.3g})") for j in range(k)]
    legend.append((Line2D([], [], color=INK, linewidth=1.2), "mean of the decoded state"))
    which = f", sequence {sequence} of {count}" if count > 1 else ""
    caption = (
        "Above: data, coloured by the decoded state. Below: smoothed probabilities of the states, averaged "
        "over draws."
    )
    title = f"States by {type(fit.engine).__name__} on {fit.backend}{which}"
    figure = blank(title, caption, 3.9, legend=legend)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    upper.step(time, means[path], where="mid", color=INK, linewidth=1.2)
    for j in range(k):
        own = path == j
        style: Any = {"color": look[j].color, "markersize": 4, "linestyle": "none", "clip_on": False}
        upper.plot(time[own], x[own], look[j].marker, **style)
    names = fit.problem.coords.get("feature") if fit.problem is not None else None
    upper.set_ylabel(plain(str(names[feature])) if names is not None else f"feature {feature}")
    lower.stackplot(
        time, *proba.T, colors=[look[j].color for j in range(k)], edgecolor=FAINT, linewidth=0.2, step="mid"
    )
    lower.set(xlabel="time", ylabel="probability", ylim=(0, 1))
    lower.margins(x=0.01)
    return figure


__all__ = ["plot_states"]
