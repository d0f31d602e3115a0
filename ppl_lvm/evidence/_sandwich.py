"""Bidirectional Monte Carlo: the evidence of simulated data between two bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.core import Evidence, Run
from ppl_lvm.engines._checks import check_count, params_without_values
from ppl_lvm.engines.smc import AIS
from ppl_lvm.evidence._simulate import simulated
from ppl_lvm.fitting import prepare
from ppl_lvm.progress import wanted

_NOTE = (
    "reverse chains start at one exact draw of the posterior; where they do not mix, the error is too small"
)


@dataclass(frozen=True)
class Sandwich:
    """Bounds of the log evidence of simulated data, the data (by argument) and the values that made them.

    ``lower`` and ``upper`` are stochastic bounds (nats): their means lie on either side of log p(x).
    """

    lower: Evidence
    upper: Evidence
    data: Mapping[str, Any]
    values: Mapping[str, np.ndarray]

    @property
    def gap(self) -> float:
        """Upper minus lower bound, nats: how wrong an annealed estimate at these settings can be."""
        return self.upper.nats - self.lower.nats

    def interval(self, num_errors: float = 2.0) -> tuple[float, float]:
        """From the lower bound less its errors to the upper bound plus its."""
        return self.lower.interval(num_errors)[0], self.upper.interval(num_errors)[1]

    def __str__(self) -> str:
        low, high = self.interval()
        return (
            f"log p(x) between {low:.2f} and {high:.2f} nats (bounds {self.gap:.2f} apart, two errors added)"
        )

    __repr__ = __str__


def sandwich(
    model: Any,
    data: Any,
    *,
    num_runs: int = 16,
    num_particles: int = 32,
    num_temperatures: int = 500,
    init: Any = None,
    dtype: str | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Sandwich:
    r"""Bound the log evidence of data simulated from the model's prior from both sides.

    Values and data are drawn from the model, in the shapes of ``data`` (whose own values serve only priors
    that depend on them). Annealed importance sampling from the prior bounds log p(x) from below, by
    :math:`E \log \frac1m \sum_i w_i \le \log p(x)`; the same path run backwards from the values that made
    the data, an exact draw of their posterior, bounds it from above, by
    :math:`E [-\log \frac1m \sum_i 1 / w_i] \ge \log p(x)` (Grosse, Ghahramani and Adams 2015,
    arXiv:1511.02543). Each bound is the mean over ``num_runs`` runs of m = ``num_particles`` weights, with
    the standard error of that mean.

    What it tells: how far annealing with such settings is from the truth, on data like these. It says
    nothing of data that the model would not produce.

    Parameters
    ----------
    model, data
        As for :func:`ppl_lvm.fit`.
    num_runs, num_particles, num_temperatures
        Runs in either direction (at least 4), weights in each, and steps of the path (at least 2).
    init
        A fit whose params (network weights) are held, where the model has some.
    dtype, seed, progress
        As for :func:`ppl_lvm.fit`.

    Raises
    ------
    ValueError
        Where AIS would refuse the model, or its observations cannot be simulated.
    """
    from ppl_lvm.backends.session import random_states_restored
    from ppl_lvm.evidence._jax_reverse import both_ways

    check_count("num_runs", num_runs, least=4)
    check_count("num_particles", num_particles)
    check_count("num_temperatures", num_temperatures, least=2)
    check_count("seed", seed, least=0)
    with random_states_restored():
        problem = prepare(model, data, dtype=dtype)
        reason = AIS().check(problem)
        if reason:
            raise ValueError(f"sandwich: {reason}.")
        run = Run(int(seed), init, wanted(progress))
        params = params_without_values("sandwich", problem, run)
        own, truth = simulated(problem, params, run.word(54))
        found = both_ways(
            own, run, params, truth, runs=num_runs, particles=num_particles, temperatures=num_temperatures
        )
    given = (*params, *problem.model.held_sites)
    low = np.logaddexp.reduce(found.forward, axis=1) - math.log(num_particles)
    high = math.log(num_particles) - np.logaddexp.reduce(-found.reverse, axis=1)
    return Sandwich(
        Evidence("lower_bound", *_mean(low, "forward"), given),
        Evidence("upper_bound", *_mean(high, "reverse"), given, _NOTE),
        dict(own.data.values),
        truth,
    )


def _mean(bounds: np.ndarray, way: str) -> tuple[float, float]:
    """Mean over runs and its standard error."""
    if not np.isfinite(bounds).all():
        raise ValueError(
            f"sandwich: a {way} run has no finite weight; raise num_particles or num_temperatures."
        )
    return float(bounds.mean()), float(bounds.std(ddof=1) / math.sqrt(len(bounds)))


__all__ = ["Sandwich", "sandwich"]
