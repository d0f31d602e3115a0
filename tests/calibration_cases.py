"""A conjugate model whose posterior can be drawn exactly, and engines with one planted fault each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import ppl_lvm as lvm
from ppl_lvm.core import Engine, Problem, Run
from ppl_lvm.result import chain_dataset

SHAPE, RATE, TRUST = 3.0, 3.0, 1.0  # of the precision's Gamma prior; prior rows that the means are worth
COLUMNS = np.zeros((2, 3))


def normal_gamma(x: Any) -> None:
    """tau ~ Gamma(3, 3), mu_j ~ Normal(0, 1 / sqrt(tau)), x_ij ~ Normal(mu_j, 1 / sqrt(tau))."""
    precision = pyro.sample("precision", dist.Gamma(SHAPE, RATE))
    sd = precision**-0.5
    with pyro.plate("column", x.shape[1], dim=-1):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), sd / TRUST**0.5))
        with pyro.plate("row", x.shape[0], dim=-2):
            pyro.sample("obs", dist.Normal(mu, sd), obs=x)


@dataclass(frozen=True)
class Conjugate(Engine):
    """Independent draws of the normal-gamma posterior (DeGroot 1970, section 9.6), or of a wrong one."""

    num_draws: int = 100
    narrow: float = 1.0
    prior_scale: float = 1.0
    jacobian: bool = True
    kind: str = "independent"
    fails_below: float = -np.inf

    def check(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, run: Run) -> lvm.Fit:
        x, rng = problem.arguments["x"], run.rng()
        if x.mean() < self.fails_below:
            raise FloatingPointError("planted")
        n, d = x.shape
        trust = TRUST / self.prior_scale**2
        centre = n * x.mean(0) / (n + trust)
        rate = (
            RATE + 0.5 * ((x - x.mean(0)) ** 2).sum() + 0.5 * (trust * n / (trust + n) * x.mean(0) ** 2).sum()
        )
        # without its Jacobian, a density of log tau is that of tau divided by tau
        shape = SHAPE + n * d / 2 - (0.0 if self.jacobian else 1.0)
        precision = rng.gamma(shape, 1 / rate, self.num_draws)
        sd = self.narrow / np.sqrt(precision * (n + trust))
        mu = centre + sd[:, None] * rng.standard_normal((self.num_draws, d))
        draws = chain_dataset(problem, {"precision": precision[None], "mu": mu[None]}, kind=self.kind)
        return lvm.Fit(problem.model, self, "exact", problem, draws)


FAULTS = {
    "posterior sd x 0.7": Conjugate(narrow=0.7),
    "prior scale x 1.5": Conjugate(prior_scale=1.5),
    "a missing Jacobian": Conjugate(jacobian=False),
}
