"""One model, every engine, compared: a mixture of three Gaussians on Fisher's iris measurements.

    python examples/iris_mixture.py --out out/demo

Fits the mixture by EM, by variational inference (ELBO and Renyi bound), by importance sampling from the
variational fit, and by NUTS on Pyro and on NumPyro; compares all with the last; writes a report, its
pictures, and every fit.
"""

from __future__ import annotations

import argparse
import math
import os
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Threads of torch beside other work spin: one is faster for data this small. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, ImportanceSampling, Renyi, models, plots

SIGNS = {"exact": "=", "lower_bound": ">=", "upper_bound": "<=", "estimate": "~"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fit a mixture to the iris data with every engine and compare."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder for the report, pictures and fits"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a fifth of the steps and draws, to see how it works"
    )
    options = parser.parse_args()
    began = time.perf_counter()

    fits = fit_all(load_iris(), scale=5 if options.quick else 1)
    comparison = lvm.compare(fits, reference="nuts")
    print_overview(comparison)
    print_verdicts(comparison)

    options.out.mkdir(parents=True, exist_ok=True)
    for name, fit in fits.items():
        fit.save(options.out / "fits" / name)
    write_pictures(comparison, options.out)
    report = comparison.to_html(options.out / "report.html")
    seconds = time.perf_counter() - began
    print(f"\nDone in {seconds:.0f} s. Open {report} in a browser; pictures and fits lie beside it.")


def load_iris() -> Any:
    """Fisher's measurements of 150 flowers, four lengths in cm (bundled with scikit-learn)."""
    from sklearn.datasets import load_iris as bundled

    return bundled(as_frame=True).data


def fit_all(x: Any, scale: int) -> dict[str, lvm.Fit]:
    """One model, six ways to infer it; later engines start from or draw on the variational fit."""
    mixture = models.GaussianMixture(num_components=3)
    fits: dict[str, lvm.Fit] = {}

    def run(name: str, engine: Any, **settings: Any) -> None:
        fits[name] = lvm.fit(mixture, x, engine, seed=0, **settings)
        print(
            f"{name:<11} {fits[name].meta['wall_seconds']:6.1f} s  {fits[name].status.outcome.value}",
            flush=True,
        )

    print(f"{mixture.describe()} on {x.shape[0]} rows of iris\n", flush=True)
    run("em", EM(num_init=10))
    run("svi", SVI(num_steps=2500 // scale, num_draws=4000))
    run("renyi", SVI(objective=Renyi(alpha=0.0, num_particles=10), num_steps=1500 // scale, num_draws=4000))
    run("importance", ImportanceSampling(num_samples=4000, proposal=fits["svi"]))
    run(
        "nuts_pyro",
        NUTS(backend="pyro", num_warmup=150 // scale, num_samples=150 // scale, num_chains=1),
        init=fits["svi"],
    )
    run("nuts", NUTS(backend="numpyro", num_warmup=1000 // scale, num_samples=2500 // scale, num_chains=4))
    return fits


def print_overview(comparison: lvm.Comparison) -> None:
    """The comparison in a row per fit: what it cost, what it says of itself, how far from the reference."""
    import pandas as pd

    worst = comparison.table.groupby(level="fit", sort=False).agg(
        bias=("bias", lambda column: column.abs().max()), least=("sd_ratio", "min"), most=("sd_ratio", "max")
    )
    overview = comparison.overview
    shown = pd.DataFrame(
        {
            "backend": overview["backend"],
            "draws": overview["draws"],
            "seconds": overview["seconds"].map("{:.1f}".format),
            "min ESS": overview["min_ess"].map(number("{:.0f}")),
            "k-hat": overview["khat"].map(number("{:.2f}")),
            "log evidence (nats)": [evidence(fit) for fit in comparison.fits.values()],
            "max |bias|": worst["bias"].map(number("{:.2f}")),
            "sd ratios": [spread(*ends) for ends in zip(worst["least"], worst["most"], strict=True)],
        }
    )
    print(f"\n{shown.to_string()}")


def spread(least: float, most: float) -> str:
    """The range of sd ratios; a point has none."""
    return "-" if math.isnan(least) else f"{least:.2f}-{most:.2f}"


def number(pattern: str) -> Callable[[float], str]:
    """How to print a column: a dash where there is no number."""
    return lambda value: "-" if math.isnan(value) else pattern.format(value)


def evidence(fit: lvm.Fit) -> str:
    """The log evidence in nats with the sign of its kind and its standard error."""
    if fit.evidence is None:
        return "-"
    return f"{SIGNS[fit.evidence.kind]} {fit.evidence.nats:.2f} +- {fit.evidence.std_error:.2f}"


def print_verdicts(comparison: lvm.Comparison) -> None:
    """Each verdict, with its sentence folded at 98 columns."""
    print(f"\nVerdicts, against {comparison.reference!r}")
    for name, verdict in comparison.verdicts.items():
        level = verdict.level.replace("_", " ")
        text = f"{name:<11}{level.upper():<19}{verdict.sentence}"
        print(textwrap.fill(text, width=98, subsequent_indent=" " * 30))


def largest_petal(x: np.ndarray) -> float:
    """The statistic of the predictive check: the longest petal of 150 flowers, in cm."""
    return float(x[:, 2].max())


def write_pictures(comparison: lvm.Comparison, folder: Path) -> None:
    """Every kind of picture as a PNG."""
    fits = dict(comparison.fits)
    reference = fits["nuts"]
    pictures = {
        "comparison": plots.plot_comparison(comparison, max_quantities=20),
        "verdicts": plots.plot_verdicts(comparison),
        "marginals": plots.plot_marginals(comparison),
        "clusters": plots.plot_clusters(reference),
        "evidence": plots.plot_evidence(fits),
        "loss": plots.plot_loss(fits),
        "trace": plots.plot_trace(reference, max_quantities=4),
        "rank": plots.plot_rank(reference),
        "khat": plots.plot_khat(fits["importance"]),
        "check": reference.check(largest_petal).plot(),
    }
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=100, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
