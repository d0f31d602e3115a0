"""Factor analysis of nine mental tests: exploratory, confirmatory, and how many factors.

    python examples/factor_analysis.py --out out/examples

Data: Holzinger and Swineford (1939), 301 pupils, tests x1-x3 visual, x4-x6 textual, x7-x9 speed. The variant
``--bundled`` takes scikit-learn's wines; the confirmatory model then lets each measurement load on the factor
that the exploratory one gave it.
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

FACTORS = 3
TESTS = [f"x{i}" for i in range(1, 10)]


def main() -> None:
    options = read_options(__doc__)
    data = load(options)
    print(f"Data: {data.title}")
    draws = 100 if options.quick else 1000
    nuts = NUTS(num_warmup=draws, num_samples=draws, num_chains=2 if options.quick else 4)

    free = models.FactorAnalysis(latent_dim=FACTORS)
    point, posterior = lvm.fit(free, data.x, EM()), lvm.fit(free, data.x, nuts)
    print_loadings(point, posterior)

    confirmatory = models.FactorAnalysis(FACTORS, mask=choose_mask(data, point), correlated=True)
    restricted, restricted_posterior = (lvm.fit(confirmatory, data.x, engine) for engine in (EM(), nuts))
    print_points({"exploratory": point, "confirmatory": restricted})
    print_correlations(restricted, restricted_posterior)

    loo = None if options.quick else nuts  # LOO needs draws for every number of factors
    choice = lvm.choose_dimension(free, data.x, range(1, 5), loo=loo)
    show("Number of factors (nats)", choice.table)
    print("preferred:", ", ".join(f"{by} {q}" for by, q in choice.best.items()))

    save(plots.plot_loadings(posterior), options.out, "factor_loadings")
    save(plots.plot_loadings(restricted_posterior), options.out, "factor_confirmatory")
    save(plots.plot_dimension(choice), options.out, "factor_dimension")


def load(options: argparse.Namespace) -> Rows:
    path = find("holzinger_swineford/holzinger_swineford.csv", bundled=options.bundled)
    if path is None:
        return wine()
    return Rows("Holzinger and Swineford, 301 pupils, nine tests", pd.read_csv(path)[TESTS])


def choose_mask(data: Rows, point: lvm.Fit) -> Any:
    """Which variable may load on which factor, (d, q)."""
    if list(data.x.columns) == TESTS:
        return np.kron(np.eye(3), np.ones((3, 1))) > 0  # three tests for each ability
    strongest = np.abs(point.params["loadings"]).argmax(1)
    return strongest[:, None] == np.arange(FACTORS)


def print_loadings(point: lvm.Fit, posterior: lvm.Fit) -> None:
    """Loadings by EM and by NUTS side by side; both are in the varimax orientation, draws turned to one."""
    loadings = posterior.posterior["loadings"]
    mean, sd = (getattr(loadings, how)(("chain", "draw")).values for how in ("mean", "std"))
    columns = {}
    for k in range(FACTORS):
        columns[f"factor {k}", "EM"] = point.params["loadings"][:, k]
        columns[f"factor {k}", "mean"], columns[f"factor {k}", "sd"] = mean[:, k], sd[:, k]
    names = loadings.coords["feature"].values
    show("Loadings: maximum likelihood, posterior mean and sd", pd.DataFrame(columns, index=names))
    summary = posterior.summary()
    print(f"NUTS: smallest ESS {summary['ess_bulk'].min():.0f}, largest R-hat {summary['r_hat'].max():.3f}")


def print_points(fits: dict[str, lvm.Fit]) -> None:
    rows = {
        name: {"log likelihood": f.log_likelihood, "parameters": f.num_parameters, "AIC": f.aic, "BIC": f.bic}
        for name, f in fits.items()
    }
    show("Maximum likelihood", pd.DataFrame.from_dict(rows, orient="index"))


def print_correlations(point: lvm.Fit, posterior: lvm.Fit) -> None:
    """Each pair of factors once; the interval holds 89 % of the posterior, with equal tails."""
    draws = posterior.posterior["factor_corr"].values.reshape(-1, FACTORS, FACTORS)
    low, high = np.quantile(draws, [0.055, 0.945], axis=0)
    rows = {
        f"factor {i} with {j}": {
            "EM": point.params["factor_corr"][i, j],
            "posterior mean": draws[:, i, j].mean(),
            "5.5%": low[i, j],
            "94.5%": high[i, j],
        }
        for i in range(FACTORS)
        for j in range(i + 1, FACTORS)
    }
    show(
        "Correlations of the factors in the confirmatory model", pd.DataFrame.from_dict(rows, orient="index")
    )


if __name__ == "__main__":
    main()
