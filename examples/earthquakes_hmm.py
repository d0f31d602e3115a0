"""How many regimes have the world's large earthquakes? A Poisson HMM of annual counts.

    python examples/earthquakes_hmm.py --out out/examples

Data: earthquakes of magnitude 7 or more, 1900-2006, the running example of Zucchini, MacDonald and Langrock,
*Hidden Markov Models for Time Series* (2016), whose published log likelihoods stand in the table. The variant
``--bundled`` reads scikit-learn's images of the digit 3 from the top, as sequences of 8 counts of ink.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from _common import read_options, save, show
from _data import digit_images, find
from matplotlib.lines import Line2D

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, emissions, models, plots
from ppl_lvm.plots import _style

PUBLISHED = {("free", 1): -391.9189, ("free", 2): -341.8787, ("free", 3): -328.5275,
             ("stationary", 1): -391.9189, ("stationary", 2): -342.3183, ("stationary", 3): -329.4603,
             ("stationary", 4): -327.8316}  # fmt: skip
STEPS = 5


@dataclass(frozen=True)
class Series:
    """``x`` as the model takes it, the sequence to forecast, its times, and what to call them."""

    title: str
    x: Any
    last: Any
    times: np.ndarray
    unit: str
    counted: str
    published: dict[tuple[str, int], float]


def main() -> None:
    options = read_options(__doc__)
    data = load(options)
    print(f"Data: {data.title}")
    show("Maximum likelihood (nats)", compare_states(data, options.quick))

    draws = 150 if options.quick else 1000
    nuts = NUTS(num_warmup=draws, num_samples=draws, num_chains=2 if options.quick else 4)
    fit = lvm.fit(models.HMM(3, emissions.Poisson()), data.x, nuts)
    print_states(fit)
    save(plots.plot_states(fit, times=data.times), options.out, "hmm_states")

    ahead = fit.forecast(data.last, steps=STEPS, num_draws=2000)["obs"].values[0, :, 0, :, 0]
    low, middle, high = np.quantile(ahead, [0.055, 0.5, 0.945], axis=0)
    later = data.times[len(data.last) - 1] + 1 + np.arange(STEPS)
    table = pd.DataFrame({"median": middle, "5.5%": low, "94.5%": high, "mean": ahead.mean(0)}, index=later)
    show(f"Forecast by {data.unit}: {data.counted}", table)
    save(plot_forecast(data, later, ahead), options.out, "hmm_forecast")


def load(options: argparse.Namespace) -> Series:
    path = find("earthquakes/earthquakes.csv", bundled=options.bundled)
    if path is not None:
        frame = pd.read_csv(path, index_col="year")
        counted = "earthquakes of magnitude 7 or more"
        return Series(
            f"{counted}, 1900-2006", frame, frame, frame.index.to_numpy(), "year", counted, PUBLISHED
        )
    images, digit = digit_images()
    ink = images[digit == 3].sum(2)[:, :, None]
    title = f"{len(ink)} images of the digit 3, ink in each of 8 rows"
    return Series(title, ink, ink[0, : 8 - STEPS], np.arange(8), "row", "ink in a row of pixels", {})


def compare_states(data: Series, quick: bool) -> pd.DataFrame:
    """A line for each start distribution and number of states; 100 restarts, for there are local optima."""
    rows = {}
    for initial in ("free", "stationary"):
        for k in range(1, 4 if quick else 5):
            model = models.HMM(k, emissions.Poisson(), initial=initial)
            fit = lvm.fit(model, data.x, EM(num_init=5 if quick else 100))
            rows[initial, k] = {
                "log likelihood": fit.log_likelihood,
                "published": data.published.get((initial, k), math.nan),
                "parameters": fit.num_parameters,
                "AIC": fit.aic,
                "BIC": fit.bic,
                "states' means": " ".join(f"{m:.1f}" for m in sorted(fit.params["rate"][:, 0])),
            }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(index=["start", "states"])
    return table if data.published else table.drop(columns="published")


def print_states(fit: lvm.Fit) -> None:
    """Rates and transitions by posterior mean and sd, and how many steps each state is decoded to."""
    rate, transition = fit.posterior["rate"], fit.posterior["transition"]
    over = ("chain", "draw")
    decoded = np.bincount(fit.predict().ravel(), minlength=3)
    table = pd.DataFrame({"rate": rate.mean(over).values[:, 0], "sd": rate.std(over).values[:, 0]})
    for j in range(3):
        table[f"to {j}"] = transition.mean(over).values[:, j]
    table = table.assign(decoded=decoded).rename_axis(index="state").sort_values("rate")
    show("Three states by NUTS, posterior means", table)
    summary = fit.summary()
    print(f"smallest ESS {summary['ess_bulk'].min():.0f}, largest R-hat {summary['r_hat'].max():.3f}")


@_style.styled
def plot_forecast(data: Series, later: np.ndarray, ahead: np.ndarray) -> Any:
    """The end of the sequence, and bands of its continuation."""
    legend = [
        (Line2D([], [], color=_style.INK, marker="o"), "observed"),
        (Line2D([], [], color=_style.COLORS[0], marker="s"), "median of the forecast"),
        (Line2D([], [], color=_style.COLORS[5], linewidth=6), "50% and 89% intervals (equal tails)"),
    ]
    caption = f"The next {STEPS} steps: 2,000 draws of parameters, states and counts from the posterior."
    figure = _style.blank(f"Forecast of {data.counted}", caption, 2.8, legend=legend)
    axes = figure.add_subplot()
    past = np.asarray(data.last).ravel()[-30:]
    times = data.times[: len(data.last)][-30:]
    axes.plot(times, past, color=_style.INK, marker="o")
    for least, alpha in ((0.055, 0.35), (0.25, 0.6)):
        band = np.quantile(ahead, [least, 1 - least], axis=0)
        axes.fill_between(later, *band, color=_style.COLORS[5], alpha=alpha, linewidth=0)
    axes.plot(later, np.median(ahead, axis=0), color=_style.COLORS[0], marker="s")
    axes.set(xlabel=data.unit, ylabel="count", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


if __name__ == "__main__":
    main()
