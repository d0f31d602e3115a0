"""EM for a Gaussian mixture against scikit-learn (workload W2): time per iteration from the same start.

    python benchmarks/em.py [--n 100000 --runs 3]

Runs alternate between the two packages in one process, in float64, for the same number of iterations and
with scikit-learn's covariance floor on both sides. A figure is the median wall time of a whole fit over
its iterations, after one warm-up each. Prints one line of JSON; ends with status 1 if the two
log-likelihoods differ by more than rounding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from benchmarks.workloads import gaussian_mixture_fit
from ppl_lvm.models.gaussian_mixture._exact import GaussianMixtureExact

FLOOR = 1e-6  # scikit-learn's default reg_covar
AGREEMENT = 1e-9  # relative; 1e5 terms of rounding, after EM has carried them through every iteration


def shared_start(workload: dict[str, np.ndarray], covariance: str) -> dict[str, np.ndarray]:
    """Equal weights, the shared centres, and the pooled covariance in the shape of `covariances_`."""
    pooled, k = workload["init_covariance"], len(workload["init_loc"])
    variances = np.diag(pooled)
    kinds = {
        "full": np.stack([pooled] * k),
        "tied": pooled,
        "diag": np.stack([variances] * k),
        "spherical": np.full(k, variances.mean()),
    }
    return {"weights": np.full(k, 1.0 / k), "loc": workload["init_loc"], "covariance": kinds[covariance]}


def fit_sklearn(x: np.ndarray, start: dict[str, np.ndarray], covariance: str, iterations: int) -> float:
    """Total log-likelihood after `iterations` steps."""
    dense = covariance in ("full", "tied")
    model = GaussianMixture(
        len(start["weights"]),
        covariance_type=covariance,
        tol=0.0,
        max_iter=iterations,
        reg_covar=FLOOR,
        weights_init=start["weights"],
        means_init=start["loc"],
        precisions_init=np.linalg.inv(start["covariance"]) if dense else 1.0 / start["covariance"],
        init_params="random_from_data",  # the cheapest, since every parameter is given
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is fixed on purpose
        model.fit(x)
    return float(model.score(x) * len(x))


def fit_ours(x: np.ndarray, start: dict[str, np.ndarray], covariance: str, iterations: int) -> float:
    """Total log-likelihood after `iterations` steps."""
    values = {"weights": start["weights"], "loc": start["loc"]}
    if covariance in ("full", "tied"):
        tril = np.linalg.cholesky(start["covariance"])
        values["scale"] = np.sqrt((tril**2).sum(-1))
        if x.shape[1] > 1:
            values["corr_tril"] = tril / values["scale"][..., None]
    else:
        values["scale"] = np.sqrt(start["covariance"])
    model = GaussianMixtureExact(len(start["weights"]), covariance)
    result = model.em({"x": x}, start=values, tol=0.0, max_iter=iterations, variance_floor=FLOOR)
    return result.log_likelihood


def cpu_seconds() -> float | None:
    """CPU time of all processes, None where the system does not tell; the load of others spoils timings."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    user, nice, system = (float(field) for field in fields[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time both packages alternately."""
    workload = gaussian_mixture_fit(args.n, args.d, args.k)
    start = shared_start(workload, args.covariance)
    fits = {"sklearn": fit_sklearn, "ppl_lvm": fit_ours}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in fits}
    log_likelihood = {}
    busy, own, wall = cpu_seconds(), time.process_time(), time.perf_counter()
    for run in range(args.runs + 1):
        for name, fit in fits.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            log_likelihood[name] = fit(workload["x"], start, args.covariance, args.iterations)
            if run > 0:  # the first round warms caches and thread pools
                seconds[name].append((time.perf_counter() - began, time.process_time() - began_cpu))
    wall_ms, cpu_ms = (
        {
            name: 1e3 * statistics.median(run[i] for run in runs) / args.iterations
            for name, runs in seconds.items()
        }
        for i in (0, 1)
    )
    end, own, wall = cpu_seconds(), time.process_time() - own, time.perf_counter() - wall
    others = None
    if busy is not None and end is not None:
        others = round(max(0.0, end - busy - own) / (wall * (os.cpu_count() or 1)), 3)
    difference = abs(log_likelihood["ppl_lvm"] / log_likelihood["sklearn"] - 1.0)
    return {
        "workload": "W2",
        "sizes": {"n": args.n, "d": args.d, "k": args.k, "covariance": args.covariance},
        "iterations": args.iterations,
        "runs": args.runs,
        "cpus": os.cpu_count(),
        "others_cpu_share": others,
        "dtype": "float64",
        "ms_per_iteration": {name: round(value, 3) for name, value in wall_ms.items()},
        "cpu_ms_per_iteration": {name: round(value, 3) for name, value in cpu_ms.items()},
        "ratio": round(wall_ms["sklearn"] / wall_ms["ppl_lvm"], 2),
        "log_likelihood": log_likelihood,
        "relative_difference": difference,
        "agree": bool(difference < AGREEMENT),
        "sklearn": sklearn.__version__,
        "numpy": np.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=100_000, help="rows")
    parser.add_argument("--d", type=int, default=16, help="features")
    parser.add_argument("--k", type=int, default=8, help="components")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each package")
    parser.add_argument("--iterations", type=int, default=20, help="EM iterations of a run")
    parser.add_argument("--covariance", choices=("full", "tied", "diag", "spherical"), default="full")
    figures = measure(parser.parse_args())
    print(json.dumps(figures))
    if not figures["agree"]:
        sys.exit("the two log-likelihoods differ by more than rounding: the speeds are not comparable")


if __name__ == "__main__":
    main()
