"""The page of a single fit with encoder and decoder: what was fitted, how it went, and its pictures."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np

from ppl_lvm import plots
from ppl_lvm.predictive import observed_values, problem_at
from ppl_lvm.report._context import _data, _run, _setting, _site, _versions
from ppl_lvm.report._figures import Picture, Wanted, svg_source
from ppl_lvm.report._story import story_of
from ppl_lvm.report._tables import KINDS, SIGNS, evidence, show
from ppl_lvm.result import Fit

logger = logging.getLogger("ppl_lvm")
MOST_ROWS = 2000
"""Rows of the data that are encoded for pictures."""


@dataclass(frozen=True)
class Shown:
    """What the pictures show: some rows (None where there are none), their labels, how data are drawn."""

    fit: Fit
    rows: np.ndarray | None
    labels: np.ndarray | None
    image_shape: tuple[int, ...] | None

    def need(self) -> np.ndarray:
        if self.rows is None:
            raise ValueError("the fit was loaded without its data; pass data to to_html.")
        return self.rows

    def group(self, at: int) -> tuple[str, np.ndarray]:
        """Name and rows of the most frequent class, of the next, ..."""
        if self.labels is None:
            raise ValueError("there are no labels to make groups of; pass labels to to_html.")
        names, counts = np.unique(self.labels, return_counts=True)
        if len(names) < 2:
            raise ValueError("labels: expected at least two classes.")
        name = names[np.argsort(-counts, kind="stable")[at]]
        return str(name), self.need()[self.labels == name]


def shown_of(fit: Fit, data: Any, labels: Any, image_shape: Any) -> Shown:
    """The first rows of the data given, else of the fit's own, with their labels.

    Raises
    ------
    ValueError
        For labels of another length than the data, or without data.
    """
    rows, classes = None, None
    if data is not None or fit.problem is not None:
        rows = next(iter(observed_values(problem_at(fit, data)).values()))
    if labels is not None:
        classes = np.asarray(labels)
        if rows is None or classes.shape != (len(rows),):
            raise ValueError(
                f"labels: expected one for each of the {0 if rows is None else len(rows)} rows, got shape "
                f"{classes.shape}."
            )
        classes = classes[:MOST_ROWS]
    return Shown(fit, None if rows is None else rows[:MOST_ROWS], classes, image_shape)


def vae_page_of(shown: Shown) -> dict[str, Any]:
    """Everything that the template names."""
    fit = shown.fit
    alone: Any = SimpleNamespace(fits={"fit": fit})  # the tables of a comparison are of the fits it has
    pictures, missing = _drawn(shown)
    return {
        "title": f"Fit by {type(fit.engine).__name__} on {fit.backend}",
        "model": fit.model.describe(),
        "story": story_of(fit.model),
        "data": _data(alone),
        "sites": [] if fit.problem is None else _weights_last(fit),
        "weights": _weights(fit),
        "model_settings": _model_settings(fit),
        "status": _sentence(str(fit.status)),
        "ok": fit.status.ok,
        "evidence": [row | {"given": _given(fit)} for row in evidence(alone)],
        "headline": _headline(fit),
        "figures": _figures(fit),
        "pictures": pictures,
        "missing": missing,
        "run": _run("fit", fit),
        "versions": _versions(alone),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }  # fmt: skip


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


# ---- figures -------------------------------------------------------------------------------------


def _headline(fit: Fit) -> str:
    """The evidence in a sentence, whole and per datum."""
    found, n = fit.evidence, fit.meta.get("num_data")
    if found is None:
        return "This fit gives no log evidence."
    error = f" ± {found.std_error:.2f}" if found.std_error else ""
    each = f", {found.nats / n:.3f} per datum" if n else ""
    text = f"log p(x) {SIGNS[found.kind]} {found.nats:.2f}{error} nats{each}: {KINDS[found.kind]}."
    return text.replace("-", "\u2212")


def _given(fit: Fit) -> str:
    """What the evidence is conditional on, a network counting as one."""
    names = fit.evidence.conditional_on if fit.evidence is not None else ()
    return ", ".join(dict.fromkeys(n.partition("$$$")[0] for n in names)) or "–"


def _figures(fit: Fit) -> list[tuple[str, str]]:
    """The last epoch's figures, nats per datum, and the best epoch's bound of the held-out rows."""
    group = fit.groups.get("training")
    if group is None or not group.sizes.get("epoch"):
        return []
    words = {"bound": "bound", "log_lik": "expected log likelihood", "kl": "KL(q(z | x) || p(z))"}
    rows = [("epochs", show(int(group.sizes["epoch"])))]
    rows += [(w, show(float(group[k].values[-1]), 5)) for k, w in words.items()]
    if "validation_bound" in group:
        values = group["validation_bound"].values
        best = int(values.argmax())
        rows.append((f"held-out bound, best (epoch {best + 1})", show(float(values[best]), 5)))
    return rows


def _weights(fit: Fit) -> str:
    total = sum(int(np.size(v)) for v in fit.params.values())
    return f"{total:,} weights in {len(fit.params)} arrays".replace(",", "\u202f")


def _weights_last(fit: Fit) -> list[dict[str, str]]:
    """Latent and observed sites; the weights are counted instead."""
    problem: Any = fit.problem
    return [_site(s, problem) for s in problem.sites.values() if s.kind != "param"]


def _model_settings(fit: Fit) -> list[tuple[str, str]]:
    model: Any = fit.model
    if not dataclasses.is_dataclass(model):
        return []
    return [(f.name, _setting(getattr(model, f.name))) for f in dataclasses.fields(model) if f.init]


# ---- pictures ------------------------------------------------------------------------------------


def _drawn(shown: Shown) -> tuple[list[Picture], list[str]]:
    made, missing = [], []
    for wanted in _wanted(shown):
        try:
            figure = wanted.make()
        except ValueError as reason:
            logger.info("report: %s is left out: %s", wanted.name, reason)
            missing.append(f"{wanted.name}: {reason}")
            continue
        width, height = (round(96 * inches) for inches in figure.get_size_inches())
        made.append(Picture(wanted.name, wanted.caption, wanted.alt, svg_source(figure), width, height))
    return made, missing


def _wanted(shown: Shown) -> Iterator[Wanted]:
    fit = shown.fit
    look: dict[str, Any] = {"image_shape": shown.image_shape}
    yield Wanted(
        "Training",
        lambda: plots.plot_training(fit),
        "A bound that still rises has not converged; a held-out one that falls has been overfitted.",
        "Bound, expected log likelihood and KL by epoch, in nats per datum.",
    )
    yield Wanted(
        "Samples",
        lambda: plots.plot_samples(fit, **look),
        "What the model makes without data. Better reconstructions than samples mean that the encoder does "
        "not fill the prior.",
        "A grid of 60 new data decoded from draws of the prior.",
    )
    yield Wanted(
        "Reconstructions",
        lambda: plots.plot_reconstructions(fit, shown.need(), **look),
        "What is left of data that go through the latents.",
        "Twenty data, and below each its reconstruction.",
    )
    yield Wanted(
        "Latent positions",
        lambda: plots.plot_latents(fit, shown.need(), labels=shown.labels),
        "Where the data lie under the encoder; the prior has mean 0 and sd 1.",
        f"Scatter plot of {0 if shown.rows is None else len(shown.rows)} data by two latents.",
    )
    yield Wanted(
        "Traversals",
        lambda: plots.plot_traversals(fit, **look),
        "What each latent changes; a row of equal pictures is a latent that the model does not use.",
        "A row of decoded pictures for each latent dimension.",
    )
    yield from _of_lines(shown)
    if getattr(fit.model, "latent_dim", 0) == 2:
        yield Wanted(
            "Manifold",
            lambda: plots.plot_manifold(fit, **look),
            "Everything that the model can make, by its share of the prior.",
            "A grid of decoded pictures over the plane of the two latents.",
        )


def _of_lines(shown: Shown) -> Iterator[Wanted]:
    fit = shown.fit
    look: dict[str, Any] = {"image_shape": shown.image_shape}

    def arithmetic() -> Any:
        (plus, those), (minus, these) = shown.group(0), shown.group(1)
        return plots.plot_arithmetic(fit, these[:5], those, these, names=(plus, minus), **look)

    yield Wanted(
        "Interpolation",
        lambda: plots.plot_interpolation(fit, *_pairs(shown), **look),
        "Pictures on the way that are no data of any kind show holes between the encoder's clusters.",
        "Rows of decoded pictures between pairs of data.",
    )
    yield Wanted(
        "Latent arithmetic",
        arithmetic,
        "The difference of two classes as a direction, added to data of the second.",
        "Rows of data, and decoded pictures of their latents moved along a direction.",
    )


def _pairs(shown: Shown) -> tuple[np.ndarray, np.ndarray]:
    """Up to five data, and as many others: of other classes, where these are known."""
    rows = shown.need()
    if shown.labels is None:
        half = min(5, len(rows) // 2)
        if half == 0:
            raise ValueError("there is one datum only, and nothing to go to from it.")
        return rows[:half], rows[half : 2 * half]
    firsts = [rows[shown.labels == c][0] for c in np.unique(shown.labels)[:10]]
    half = len(firsts) // 2
    if half == 0:
        raise ValueError("labels: expected at least two classes.")
    return np.stack(firsts[:half]), np.stack(firsts[half : 2 * half])


__all__ = ["Shown", "shown_of", "vae_page_of"]
