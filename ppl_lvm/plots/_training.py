"""How a training by epochs went: the bound and its two terms, and the schedules that changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ppl_lvm.plots._style import FAINT, Look, blank, looks, panels, styled
from ppl_lvm.plots._text import plain
from ppl_lvm.result import Fit

_PANELS = {
    "bound": "bound",
    "log_lik": "E log p(x | z)",
    "kl": "KL(q(z | x) || p(z))",
    "beta": "beta",
    "learning_rate": "learning rate",
}
_NATS = ("bound", "log_lik", "kl")


@styled
def plot_training(fits: Fit | Mapping[str, Fit]) -> Figure:
    """Bound, expected log likelihood and KL by epoch, nats per datum; beta and learning rate if they changed.

    The bound of the held-out rows is dashed. Dotted is what was maximised, where it is not the bound (beta,
    free bits): it is no bound of the evidence. The vertical axes leave out a bad start.

    Parameters
    ----------
    fits
        A fit that was trained by epochs, or several by name.

    Raises
    ------
    TypeError, ValueError
        For anything else, or if no fit was trained by epochs.
    """
    named = {"": fits} if isinstance(fits, Fit) else fits
    if not isinstance(named, Mapping) or not named or not all(isinstance(f, Fit) for f in named.values()):
        raise TypeError("fits: expected a Fit, or a mapping of names to fits such as {'vae': vae}.")
    curves = {n: _curves(f) for n, f in named.items() if "training" in f.groups}
    if not curves:
        raise ValueError("fits: none was trained by epochs; for other fits there is plot_loss.")
    look = looks(curves)
    shown = [p for p in _PANELS if p in _NATS or any(np.ptp(c[p]) > 0 for c in curves.values() if p in c)]
    caption = "By epoch, in nats per datum: the bound is the log likelihood term less the KL term."
    if any("alpha" in vars(f.engine.objective) for f in named.values() if hasattr(f.engine, "objective")):
        caption = "By epoch, in nats per datum. An importance-weighted bound is above the terms' difference."
    figure = blank("Training", caption, 2.1 * -(-len(shown) // 3) + 0.2, legend=_legend(curves, look))
    for what, axes in zip(shown, panels(figure, len(shown), 3), strict=True):
        for name, own in curves.items():
            _line(axes, own, what, look[name], marked=len(curves) > 1)
        _limits(axes, [v[k] for v in curves.values() for k in (what, *_BESIDE.get(what, ())) if k in v])
        axes.set_title(_PANELS[what])
        axes.set_ylabel("nats per datum" if what in _NATS else _PANELS[what])
        axes.set_xlabel("epoch")
        axes.locator_params(axis="both", nbins=5)
        whole: Any = axes.xaxis.get_major_locator()
        whole.set_params(integer=True)
    return figure


_BESIDE = {"bound": ("validation_bound", "objective")}


def _curves(fit: Fit) -> dict[str, np.ndarray]:
    """Figures by epoch; the objective only where it is not the bound."""
    group = fit.groups["training"]
    found = {str(k): np.asarray(v.values, dtype=float) for k, v in group.data_vars.items()}
    if np.allclose(found["objective"], found["bound"], rtol=1e-5, atol=1e-5):
        del found["objective"]
    return found


def _legend(curves: Mapping[str, Mapping[str, Any]], look: Mapping[str, Look]) -> list[tuple[Any, str]]:
    every: list[tuple[Any, str]] = [
        (Line2D([], [], color=look[n].color, marker=look[n].marker), plain(n))
        for n in curves
        if len(curves) > 1
    ]
    line: Any = {"color": FAINT}
    if any("validation_bound" in c for c in curves.values()):
        every.append((Line2D([], [], linestyle="-", **line), "training"))
        every.append((Line2D([], [], linestyle="--", **line), "validation"))
    if any("objective" in c for c in curves.values()):
        every.append((Line2D([], [], linestyle=":", **line), "what was maximised"))
    return every


def _line(axes: Axes, own: Mapping[str, np.ndarray], what: str, look: Look, *, marked: bool) -> None:
    if what not in own:
        return
    epochs = np.arange(1, len(own[what]) + 1)
    few = len(epochs) < 8
    marks: Any = {"marker": look.marker, "markevery": max(1, len(epochs) // 6)} if marked or few else {}
    axes.plot(epochs, own[what], color=look.color, **marks)
    for beside, style in zip(_BESIDE.get(what, ()), ("--", ":"), strict=False):
        if beside in own:
            axes.plot(epochs, own[beside], color=look.color, linestyle=style)


def _limits(axes: Axes, values: list[np.ndarray]) -> None:
    """From the least value after a twentieth of the run; what came before may lie outside."""
    late = np.concatenate([v[len(v) // 20 :] for v in values])
    late = late[np.isfinite(late)]
    if late.size and np.ptp(late) > 0:
        room = 0.06 * float(np.ptp(late))
        axes.set_ylim(float(late.min()) - room, float(late.max()) + room)


__all__ = ["plot_training"]
