"""Latent classes behind yes-or-no items: how many, how large, and how each answers.

    python examples/latent_classes.py --out out/examples

Data: two published tables. Stouffer and Toby (1951): 216 answers to four role conflicts (Goodman 1974,
*Biometrika* 61). Landis and Koch (1977): 118 slides judged by seven pathologists, 1 = carcinoma (Agresti,
*Categorical Data Analysis*, 2002). The variant ``--bundled`` takes scikit-learn's breast tumours: ten
measurements, each cut at its median.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from _common import read_options, save, show
from _data import Rows, find

import ppl_lvm as lvm
from ppl_lvm import EM, emissions, models
from ppl_lvm.plots import _style

CLASSES = (1, 2, 3)


def main() -> None:
    options = read_options(__doc__)
    found = {}
    for data in load(options):
        print(f"\nData: {data.title}")
        fits = {k: fit_classes(data, k, num_init=3 if options.quick else 50) for k in CLASSES}
        print_fits(data, fits)
        for k in CLASSES[1:]:
            print_classes(data, fits[k])
            found[data.title, k] = (data, fits[k])
    save(plot_profiles(list(found.values())), options.out, "latent_classes")


def load(options: argparse.Namespace) -> list[Rows]:
    tables = {
        "values": "role conflicts: 216 respondents, 4 items, 1 = second category",
        "carcinoma": "carcinoma: 118 slides, 7 pathologists, 1 = yes",
    }
    paths = {name: find(f"lca_tables/{name}.csv", bundled=options.bundled) for name in tables}
    if None not in paths.values():
        return [Rows(tables[name], expand(pd.read_csv(path))) for name, path in paths.items()]
    from sklearn.datasets import load_breast_cancer

    means = load_breast_cancer(as_frame=True).data.iloc[:, :10]
    high = (means > means.median()).astype(int).rename(columns=lambda c: c.removeprefix("mean "))
    return [Rows("breast tumours: 569 tumours, 10 items, 1 = above the median", high)]


def expand(table: pd.DataFrame) -> pd.DataFrame:
    """A row per person or slide from a table of patterns and counts; categories 1, 2 become 0, 1."""
    return table.loc[table.index.repeat(table["count"])].drop(columns="count").reset_index(drop=True) - 1


def fit_classes(data: Rows, k: int, num_init: int) -> lvm.Fit:
    return lvm.fit(models.Mixture(k, emissions.Bernoulli()), data.x, EM(num_init=num_init, tol=1e-9))


def print_fits(data: Rows, fits: dict[int, lvm.Fit]) -> None:
    """A line per number of classes; the deviance G2 is against the table with a cell per pattern."""
    counts = data.x.value_counts().to_numpy()
    saturated = float((counts * np.log(counts / counts.sum())).sum())
    rows = {}
    for k, fit in fits.items():
        log_likelihood: Any = fit.log_likelihood
        rows[k] = {
            "log likelihood": log_likelihood,
            "parameters": fit.num_parameters,
            "G2": 2 * (saturated - log_likelihood),
            "AIC": fit.aic,
            "BIC": fit.bic,
            "sizes of the classes": " ".join(f"{w:.3f}" for w in -np.sort(-fit.params["weights"])),
        }
    show("Maximum likelihood (nats)", pd.DataFrame.from_dict(rows, orient="index").rename_axis("classes"))


def profiles(fit: lvm.Fit) -> tuple[np.ndarray, np.ndarray]:
    """Sizes (k,) and probabilities of a 1 (k, d), classes in the order of their overall probability."""
    order = np.argsort(fit.params["probs"].mean(1))
    return fit.params["weights"][order], fit.params["probs"][order]


def print_classes(data: Rows, fit: lvm.Fit) -> None:
    sizes, probs = profiles(fit)
    index = [f"class {j}" for j in range(len(sizes))]
    table = pd.DataFrame(probs, index=index, columns=data.x.columns)
    table.insert(0, "size", sizes)
    show(f"Probability of a 1 in each of {len(sizes)} classes", table)


@_style.styled
def plot_profiles(found: list[tuple[Rows, lvm.Fit]]) -> Any:
    """A panel per data set and number of classes: items across, probability of a 1 upwards."""
    look = _style.looks(range(CLASSES[-1]))
    legend = [(_style.key(look[j]), f"class {j}") for j in look]
    caption = "Maximum likelihood; classes in the order of their mean. Panels name their shares."
    rows = -(-len(found) // 2)
    figure = _style.blank("Probability of a 1 by class", caption, 2.4 * rows, legend=legend)
    for axes, (data, fit) in zip(_style.panels(figure, len(found), 2), found, strict=True):
        sizes, probs = profiles(fit)
        at = np.arange(probs.shape[1])
        for j, line in enumerate(probs):
            axes.plot(at, line, color=look[j].color, linestyle=look[j].line, marker=look[j].marker)
        shares = ", ".join(f"{w:.2f}" for w in sizes)
        axes.set_title(f"{data.title.split(':')[0]}, shares {shares}")
        names = [str(c) for c in data.x.columns]
        long = max(map(len, names)) > 3
        axes.set_xticks(at, names, rotation=40 if long else 0, ha="right" if long else "center")
        axes.set(ylim=(-0.04, 1.04), ylabel="probability of a 1", xlabel="" if long else "item")
    return figure


if __name__ == "__main__":
    main()
