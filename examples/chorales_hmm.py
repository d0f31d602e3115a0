"""How many states does a chorale need? A Bernoulli HMM over sequences of different length.

    python examples/chorales_hmm.py --out out/examples

Data: Bach's chorales as piano rolls of 88 keys by quarter notes, 229 for training, 76 for validation, 77 to
test (Boulanger-Lewandowski and others 2012). The variant ``--bundled`` takes scikit-learn's handwritten
digits, each read from the top as a sequence of rows of 8 pixels with ink or without.

At the maximum of the likelihood a key that never sounds in training has probability 0, and one such note
makes a test chorale impossible; so the fit is the mode of the posterior.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from _common import read_options, save, show
from _data import digit_images, find, unpack_bits

import ppl_lvm as lvm
from ppl_lvm import EM, emissions, models
from ppl_lvm.plots import _style

PARTS = ("train", "valid", "test")
IN_PICTURE = 8
PITCHES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")


@dataclass(frozen=True)
class Sequences:
    """Arrays (T, d) of 0 and 1 by part, and a name for each column."""

    title: str
    parts: dict[str, list[np.ndarray]]
    columns: list[str]
    column: str
    event: str


def main() -> None:
    options = read_options(__doc__)
    data = load(options)
    print(f"Data: {data.title}")
    sizes = (2, 8) if options.quick else (2, 4, 8, 16, 32, 64)
    engine = EM(num_init=1 if options.quick else 5, tol=1e-4, estimate="map")
    fits = {k: lvm.fit(models.HMM(k, emissions.Bernoulli()), data.parts["train"], engine) for k in sizes}
    scores = compare(data, fits)
    show("Log likelihood per time step (nats); held-out parts with the error of the mean", scores, decimals=3)
    best = scores["valid"].idxmax()
    print(f"best on the validation part: {best} states, {scores.loc[best, 'test']:.3f} on the test part")
    save(plot_scores(scores), options.out, "chorales_heldout")
    save(plot_columns(data, fits[IN_PICTURE]), options.out, "chorales_states")


def load(options: argparse.Namespace) -> Sequences:
    path = find("jsb_chorales/jsb_chorales.npz", bundled=options.bundled)
    if path is None:
        images = (digit_images()[0] > 7).astype(float)
        order = np.random.default_rng(0).permutation(len(images))
        cut = np.split(images[order], [len(images) * 6 // 10, len(images) * 8 // 10])
        parts = {part: list(found) for part, found in zip(PARTS, cut, strict=True)}
        return Sequences(
            "1,797 digits as 8 rows of 8 pixels",
            parts,
            [str(c) for c in range(8)],
            "pixel of the row",
            "a pixel has ink",
        )
    parts = {}
    with np.load(path) as file:
        for part in PARTS:
            frames, lengths = unpack_bits(file[f"{part}_frames"], 88), file[f"{part}_lengths"]
            parts[part] = np.split(frames, np.cumsum(lengths)[:-1])
    names = [
        f"{PITCHES[(key + 21) % 12]}{(key + 21) // 12 - 1}" for key in range(88)
    ]  # key 0 is MIDI note 21
    return Sequences("Bach chorales, 88 keys by quarter notes", parts, names, "key", "a key sounds")


def compare(data: Sequences, fits: dict[int, lvm.Fit]) -> pd.DataFrame:
    """Mean log likelihood per time step by part; errors count sequences as independent."""
    rows: dict[int, dict[str, float]] = {}
    for k, fit in fits.items():
        rows[k] = {"parameters": fit.num_parameters or 0}
        for part in PARTS:
            lengths = np.array([len(s) for s in data.parts[part]])
            scores = fit.score_samples(data.parts[part])
            mean = scores.sum() / lengths.sum()
            rows[k][part] = mean
            if part != "train":
                spread = np.sqrt(((scores - mean * lengths) ** 2).sum()) / lengths.sum()
                rows[k][f"{part} error"] = spread
        rows[k]["seconds"] = fit.meta["wall_seconds"]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("states")


@_style.styled
def plot_scores(scores: pd.DataFrame) -> Any:
    look = _style.looks(PARTS)
    legend = [(_style.key(look[part]), part) for part in PARTS]
    caption = "Parameters at the posterior mode of the training part; bars: two standard errors."
    figure = _style.blank("Held-out fit against the number of states", caption, 3.0, width=6.4, legend=legend)
    axes = figure.add_subplot()
    for part in PARTS:
        bars = 2 * scores[f"{part} error"] if part != "train" else None
        axes.errorbar(scores.index, scores[part], bars, color=look[part].color, linestyle=look[part].line,
                      marker=look[part].marker, capsize=2, elinewidth=0.9)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(scores.index, [str(k) for k in scores.index])
    axes.set(xlabel="states", ylabel="log likelihood, nats per time step")
    return figure


@_style.styled
def plot_columns(data: Sequences, fit: lvm.Fit) -> Any:
    """What each state plays: columns that are ever likely, against states by their share of the time."""
    path = fit.predict()
    share = np.bincount(path[path >= 0], minlength=fit.params["probs"].shape[0]) / (path >= 0).sum()
    order = np.argsort(-share)
    probs = fit.params["probs"][order]
    heard = np.flatnonzero(probs.max(0) > 0.05)
    used = np.arange(heard[0], heard[-1] + 1)
    caption = f"Probability that {data.event}; states by their share of the decoded steps."
    figure = _style.blank(f"{len(order)} states: {data.title}", caption, 3.0)
    axes = figure.add_subplot()
    image = axes.imshow(probs[:, used], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    step = -(-len(used) // 16)
    axes.set_xticks(range(0, len(used), step), [data.columns[c] for c in used[::step]])
    axes.set_yticks(range(len(order)), [f"{place} ({share[j]:.2f})" for place, j in enumerate(order)])
    axes.set(xlabel=data.column, ylabel="state (share)")
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="probability", shrink=0.9)
    return figure


if __name__ == "__main__":
    main()
