"""NUTS from a fit against NUTS from scratch: total cost to 400 effective draws of every quantity.

    python benchmarks/nuts_start.py [--seeds 2] [--warmup 150] [--case gmm ppca]

Cold: ``NUTS()`` with its default warm-up of 1000. Warm: ``SVI(guide="mean_field")`` of 1000 steps, then
``NUTS(num_warmup=150)`` with ``init=`` that fit; its cost is that of both. Short: ``NUTS(num_warmup=150)``
from scratch. Four chains each, float64, on JAX. Cost is counted twice: evaluations of the log density, with
a gradient or without one alike (``ppl_lvm.effort``; the weights of the guide's draws included), and seconds
of ``lvm.fit`` with compiled programs warm. What a run costs to 400 effective draws is its warm-up, and its
sampling times 400 over the smallest bulk effective size of its quantities (1000 draws a chain, so that this
is known); seconds are divided between the two by leapfrog steps. Quantities are sites, or what a model's
symmetries leave alone. Prints one line of JSON; ends with status 1 if means of warm and cold runs differ by
more than 4 combined errors (5, where there are more than 30 quantities), or an R-hat is beyond 1.02.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import ppl_lvm as lvm
from benchmarks.translated_models import cases, factor_data
from benchmarks.workloads import gaussian_mixture_nuts, hidden_markov
from ppl_lvm import NUTS, SVI, emissions, models
from ppl_lvm.effort import effort_of

ENOUGH = 400.0


class Run(NamedTuple):
    evaluations: float
    seconds: float
    mean: np.ndarray
    error: np.ndarray
    r_hat: float


def workloads() -> dict[str, tuple[Any, Any]]:
    plain = cases()
    twins = {k: plain[k] for k in ("eight_schools", "hierarchical_logit")}
    sequences = hidden_markov(num_sequences=8, length=100, num_states=3, num_features=2)
    return {
        "eight_schools": (_with_twin(twins["eight_schools"]), twins["eight_schools"].data),
        "gmm": (models.GaussianMixture(3, "diag"), gaussian_mixture_nuts(1000)["x"]),
        "ppca": (models.PPCA(2), factor_data(500, 10, 2)),
        "hmm": (models.HMM(3, emissions.Gaussian("diag")), sequences["x"]),
        "hierarchical_logit": (_with_twin(twins["hierarchical_logit"]), twins["hierarchical_logit"].data),
    }


def _with_twin(case: Any) -> lvm.Model:
    return lvm.Model(case.program, numpyro=case.twin)


def quantities(fit: lvm.Fit) -> np.ndarray:
    """(chain, draw, quantity), labels in the order of their first location on average."""
    draws: Mapping[str, np.ndarray] = {str(k): v.values for k, v in fit.posterior.items()}
    if fit.model.label_axes is not None:  # one order over the chains of a fit, another in the next fit
        order = np.argsort(draws["loc"][..., 0].mean((0, 1)))
        for site, axes in fit.model.label_axes.items():
            for axis in axes:
                draws = {**draws, site: np.take(draws[site], order, axis + 2)}
    if fit.model.rotation is not None and fit.model.invariants is not None:
        draws = fit.model.invariants(draws)
    kept = [v.reshape(*v.shape[:2], -1) for v in draws.values() if v.dtype.kind == "f"]
    found = np.concatenate(kept, -1)
    return found[..., found.std((0, 1)) > 0]


def judged(fit: lvm.Fit, before: tuple[float, float] = (0.0, 0.0)) -> Run:
    """A NUTS fit's cost to enough effective draws, on top of what was spent ``before``."""
    from arviz_stats.base import array_stats

    x = quantities(fit)
    axes = {"chain_axis": 0, "draw_axis": 1}
    ess = np.asarray(array_stats.ess(x, method="bulk", **axes))
    r_hat = float(np.max(array_stats.rhat(x, **axes)))
    kept = float(fit.sample_stats["n_steps"].sum())
    steps = fit.meta["warmup_steps"] + kept * ENOUGH / float(ess.min())
    seconds = fit.meta["wall_seconds"] * steps / (fit.meta["warmup_steps"] + kept)
    mean = x.mean((0, 1))
    return Run(before[0] + steps, before[1] + seconds, mean, x.std((0, 1)) / np.sqrt(ess), r_hat)


def cold(model: Any, data: Any, seed: int, warmup: int = 1000) -> Run:
    engine = NUTS(backend="numpyro", num_warmup=warmup)
    return judged(lvm.fit(model, data, engine, seed=seed, dtype="float64", progress=False))


def warm(model: Any, data: Any, seed: int, warmup: int) -> Run:
    svi = SVI(backend="numpyro", guide="mean_field", num_steps=1000, learning_rate=0.02)
    settings: dict[str, Any] = {"seed": seed, "dtype": "float64", "progress": False}
    first = lvm.fit(model, data, svi, **settings)
    spent = effort_of(first)
    engine = NUTS(backend="numpyro", num_warmup=warmup)
    fit = lvm.fit(model, data, engine, init=first, **settings)
    return judged(fit, (spent.gradients + spent.densities, first.meta["wall_seconds"]))


def compared(model: Any, data: Any, seeds: int, warmup: int) -> dict[str, Any]:
    cold(model, data, 0), warm(model, data, 0, warmup)  # compiles
    pairs = [(cold(model, data, s), warm(model, data, s, warmup)) for s in range(seeds)]
    short = [cold(model, data, s, warmup) for s in range(seeds)]
    off = [np.abs(a.mean - b.mean) / np.hypot(a.error, b.error) for a, b in pairs]

    def middle(pick: Any) -> float:
        return round(math.exp(np.mean([math.log(pick(*p)) for p in pairs])), 3)

    return {
        "quantities": len(pairs[0][0].mean),
        "cold_evaluations": middle(lambda a, b: a.evaluations),
        "warm_evaluations": middle(lambda a, b: b.evaluations),
        "short_evaluations": round(math.exp(np.mean([math.log(r.evaluations) for r in short])), 3),
        "short_r_hat": round(max(r.r_hat for r in short), 4),
        "times_evaluations": middle(lambda a, b: a.evaluations / b.evaluations),
        "cold_seconds": middle(lambda a, b: a.seconds),
        "warm_seconds": middle(lambda a, b: b.seconds),
        "times_seconds": middle(lambda a, b: a.seconds / b.seconds),
        "largest_shift_in_errors": round(float(np.max(off)), 2),
        "r_hat": [round(max(r.r_hat for r in runs), 4) for runs in zip(*pairs, strict=True)],
    }


def main() -> int:
    names = list(workloads())
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--case", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    work = workloads()
    table = {name: compared(*work[name], args.seeds, args.warmup) for name in args.case}
    for name, row in table.items():
        print(name, row, file=sys.stderr)
    means = {
        key: round(math.exp(np.mean([math.log(row[key]) for row in table.values()])), 2)
        for key in ("times_evaluations", "times_seconds")
    }
    print(json.dumps({"geometric_mean": means, "cases": table}))
    fine = all(
        r["largest_shift_in_errors"] < (5 if r["quantities"] > 30 else 4) and max(r["r_hat"]) < 1.02
        for r in table.values()
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
