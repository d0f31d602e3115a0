"""Probabilistic PCA of oil-flow readings: a map with uncertainty, and missing readings filled in.

    python examples/ppca_oil.py --out out/examples

Data: 100 readings of 12 gamma-ray sensors in an oil pipe, three flow regimes (Bishop and James 1993). The
variant ``--bundled`` takes scikit-learn's wines of three cultivars.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from _common import read_options, save, show
from _data import Rows, find, wine

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, models, plots
from ppl_lvm.plots import _style

REMOVED = 0.1  # share of the entries that are taken out, to be filled in again
LEVEL = 0.89


def main() -> None:
    options = read_options(__doc__)
    data = load(options)
    print(f"Data: {data.title}")
    draws = 100 if options.quick else 1000
    nuts = NUTS(num_warmup=draws, num_samples=draws, num_chains=2 if options.quick else 4)

    point = lvm.fit(models.PPCA(2), data.x, EM())
    posterior = lvm.fit(models.PPCA(2), data.x, nuts)
    print_map(data, point, posterior)
    figure = plots.plot_latents(posterior, labels=data.labels)
    figure.axes[0].margins(0.15)  # room for the ellipses of the outermost rows
    save(figure, options.out, "ppca_latents")

    truth = data.x.to_numpy()
    gone = np.random.default_rng(0).random(truth.shape) < REMOVED
    holed = data.x.mask(gone)
    found = {"column mean": fill_with_means(holed, gone)}
    for q in (2,) if options.quick else (2, 4, 6):
        for engine in (EM(), nuts):
            fit = lvm.fit(models.PPCA(q), holed, engine)
            found[f"PPCA({q}), {type(engine).__name__}"] = summarise(fit.impute(num_draws=1000), gone)
    print_errors(found, truth[gone], spread_of(data, gone))
    best = min(found, key=lambda name: root_mean_square(found[name]["mean"] - truth[gone]))
    save(plot_imputed(found[best], truth[gone], best), options.out, "ppca_imputation")


def load(options: argparse.Namespace) -> Rows:
    path = find("oil_flow_100/oil_flow_100.npz", bundled=options.bundled)
    if path is None:
        return wine()
    with np.load(path) as file:
        x = pd.DataFrame(file["Y"], columns=[f"sensor {i + 1}" for i in range(12)])
        names = np.array([f"regime {i}" for i in file["labels"]])
    return Rows("oil flow: 100 readings of 12 sensors, three regimes", x, names)


def print_map(data: Rows, point: lvm.Fit, posterior: lvm.Fit) -> None:
    """The fit in numbers, and where each class lies on the map."""
    noise = posterior.posterior["scale"]
    print(f"\nPPCA(2): log likelihood {point.log_likelihood:.2f} nats, noise sd {point.params['scale']:.3f}")
    print(f"noise sd by NUTS: {float(noise.mean()):.3f} +- {float(noise.std()):.3f}")
    mean, sd = posterior.transform(return_std=True)
    table = pd.DataFrame({"factor 0": mean[:, 0], "factor 1": mean[:, 1], "posterior sd": sd.mean(1)})
    grouped = table.groupby(data.labels)
    show("Centre of each class on the map, in prior sds", grouped.mean().assign(rows=grouped.size()))


def fill_with_means(holed: Any, gone: np.ndarray) -> dict[str, np.ndarray]:
    """What one would do without a model: the mean and the normal interval of the column."""
    from scipy.stats import norm

    centre, sd = (np.broadcast_to(v, gone.shape)[gone] for v in (holed.mean(), holed.std()))
    half = norm.ppf((1 + LEVEL) / 2) * sd
    return {"mean": centre, "low": centre - half, "high": centre + half}


def summarise(imputed: Any, gone: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and equal-tailed interval of each entry that was removed, from draws."""
    drawn = imputed["obs"].values[0][:, gone]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {"mean": drawn.mean(0), "low": low, "high": high}


def spread_of(data: Rows, gone: np.ndarray) -> np.ndarray:
    """The sd of each removed entry's column."""
    return np.broadcast_to(data.x.std().to_numpy(), gone.shape)[gone]


def root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def print_errors(found: dict[str, Any], truth: np.ndarray, spread: np.ndarray) -> None:
    rows = {
        name: {
            "error (rms)": root_mean_square(f["mean"] - truth),
            "in column sds": root_mean_square((f["mean"] - truth) / spread),
            "interval width": float((f["high"] - f["low"]).mean()),
            "inside": float(((f["low"] <= truth) & (truth <= f["high"])).mean()),
        }
        for name, f in found.items()
    }
    title = (
        f"{len(truth)} removed entries filled in; 'inside' is the share of truths in the {LEVEL:.0%} interval"
    )
    show(title, pd.DataFrame.from_dict(rows, orient="index"), decimals=3)


@_style.styled
def plot_imputed(found: dict[str, np.ndarray], truth: np.ndarray, name: str) -> Any:
    """Imputed against true values, with intervals; colour and mark say whether the truth is inside."""
    inside = (found["low"] <= truth) & (truth <= found["high"])
    look = _style.looks(["inside", "outside"])
    counts = {"inside": inside.sum(), "outside": (~inside).sum()}
    legend = [(_style.key(look[k], line=False), f"truth {k} the interval ({counts[k]})") for k in look]
    caption = (
        f"Each mark is an entry that was removed: posterior mean and {LEVEL:.0%} interval (equal tails)."
    )
    figure = _style.blank(f"Removed entries filled in by {name}", caption, 4.0, width=6.4, legend=legend)
    axes = figure.add_subplot()
    for k, own in (("inside", inside), ("outside", ~inside)):
        bars = np.abs(np.stack([found["low"], found["high"]])[:, own] - found["mean"][own])
        axes.errorbar(truth[own], found["mean"][own], bars, fmt=look[k].marker, color=look[k].color,
                      markersize=4, elinewidth=0.6, alpha=0.7)  # fmt: skip
    axes.axline((0, 0), slope=1, color=_style.FAINT, linewidth=0.8)
    axes.set(xlabel="true value, units of the data", ylabel="imputed value, units of the data")
    return figure


if __name__ == "__main__":
    main()
