"""Clusters of newsgroup postings by the words in them: a mixture of Bernoulli vectors.

    python examples/word_clusters.py --out out/examples

Data: 16,242 postings, which of 100 words each contains, from four groups of newsgroups (Roweis). The variant
``--bundled`` takes scikit-learn's 1,797 handwritten digits, in which a word is a pixel with ink.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from _common import read_options, save, show
from _data import Rows, digit_images, find, unpack_bits

import ppl_lvm as lvm
from ppl_lvm import EM, emissions, models
from ppl_lvm.plots import _style

SHOWN = 10
IN_PICTURE = 4


def main() -> None:
    options = read_options(__doc__)
    data = load(options)
    print(f"Data: {data.title}")
    engine = EM(num_init=2 if options.quick else 5, tol=1e-5)
    sizes = (4, 10) if options.quick else range(4, 11)
    fits = {k: lvm.fit(models.Mixture(k, emissions.Bernoulli()), data.x, engine) for k in sizes}

    show("Maximum likelihood (nats), and agreement with the groups", compare(data, fits), decimals=3)
    best = min(fits, key=lambda k: fits[k].bic)
    print_clusters(data, fits[best])
    save(plot_words(data, fits[best]), options.out, "word_clusters")


def load(options: argparse.Namespace) -> Rows:
    path = find("news_w100/news_w100.npz", bundled=options.bundled)
    if path is None:
        images, digit = digit_images()
        names = [f"pixel {r},{c}" for r in range(8) for c in range(8)]
        x = pd.DataFrame((images.reshape(len(images), -1) > 7).astype(float), columns=names)
        return Rows(f"digits: {len(x):,} images, 64 pixels", x, digit.astype(str))
    with np.load(path) as file:
        x = pd.DataFrame(unpack_bits(file["documents"], 100), columns=file["words"])
        return Rows(f"postings: {len(x):,}, 100 words", x, file["groups"][file["group"].astype(int) - 1])


def compare(data: Rows, fits: dict[int, lvm.Fit]) -> pd.DataFrame:
    """The adjusted Rand index is 1 where clusters and groups are the same, 0 on average for random labels."""
    from sklearn.metrics import adjusted_rand_score

    rows = {
        k: {
            "log likelihood": fit.log_likelihood,
            "parameters": fit.num_parameters,
            "BIC": fit.bic,
            "adjusted Rand index": adjusted_rand_score(data.labels, fit.predict()),
        }
        for k, fit in fits.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("clusters")


def characteristic(fit: lvm.Fit, j: int) -> np.ndarray:
    """Words by how far they set a cluster apart: p log(p / p of all), largest first."""
    probs, overall = fit.params["probs"], fit.params["weights"] @ fit.params["probs"]
    return np.argsort(-probs[j] * np.log(probs[j] / overall))


def by_size(fit: lvm.Fit) -> np.ndarray:
    return np.argsort(-fit.params["weights"])


def print_clusters(data: Rows, fit: lvm.Fit) -> None:
    """Share, groups and words of each cluster, the largest first."""
    labels, names = fit.predict(), np.array(data.x.columns)
    print(
        f"\nThe {len(by_size(fit))} clusters by BIC: share, group of most of its rows, characteristic words"
    )
    for place, j in enumerate(by_size(fit)):
        groups = pd.Series(np.asarray(data.labels)[labels == j]).value_counts(normalize=True)
        most = f"{groups.index[0]} {groups.iloc[0]:.0%}"
        words = ", ".join(names[characteristic(fit, j)[:SHOWN]])
        print(f"{place:>3}  {fit.params['weights'][j]:.3f}  {most:<12}  {words}")


@_style.styled
def plot_words(data: Rows, fit: lvm.Fit) -> Any:
    """Heat map of word probabilities: the most characteristic words of each cluster, below each other."""
    order = by_size(fit)
    words = list(dict.fromkeys(w for j in order for w in characteristic(fit, j)[:IN_PICTURE]))
    values = fit.params["probs"][order][:, words].T
    caption = (
        f"The {IN_PICTURE} most characteristic words of each cluster, from the largest; 0.10 and more "
        "written out."
    )
    figure = _style.blank(
        f"Words of {len(data.x):,} {data.title.split(':')[0]}", caption, 0.19 * len(words) + 0.7
    )
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="Blues", vmin=0, aspect="auto")
    axes.set_yticks(range(len(words)), data.x.columns[words])
    axes.set_xticks(range(len(order)), [f"{k}\n{fit.params['weights'][j]:.2f}" for k, j in enumerate(order)])
    axes.set(xlabel="cluster, and its share of the rows")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if value >= 0.1:
            light = value > 0.6 * values.max()
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5,
                      color="white" if light else _style.INK)  # fmt: skip
    figure.colorbar(image, ax=axes, label="probability of the word", shrink=0.6)
    return figure


if __name__ == "__main__":
    main()
