"""Pathfinder (Zhang, Carpenter, Gelman and Vehtari 2022, JMLR 23)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ppl_lvm.core import Engine, Problem, Run
from ppl_lvm.engines._checks import (
    backend_or_reason,
    check_count,
    no_continuous_latents,
    no_observed,
    params_without_values,
    settle_folder,
    unsummable,
)
from ppl_lvm.engines._units import units_of
from ppl_lvm.result import Fit


@dataclass(frozen=True)
class Pathfinder(Engine):
    """Weighted draws of Gaussians found along several L-BFGS paths, resampled to the posterior.

    Each path starts at a point of its own; at each of its iterations stands a Gaussian whose covariance is
    the optimiser's estimate of the inverse Hessian, and the one of the highest ELBO is kept (algorithms 1
    to 4).
    Draws come from the mixture of the paths' Gaussians and are weighed with its density, and the weights are
    Pareto-smoothed. In algorithm 5 a draw is weighed with the density of its own path, which estimates
    no evidence where paths end in different modes; with the mixture's it does.

    Runs on JAX: the twin, or the program translated.

    Parameters
    ----------
    num_paths
        Paths, from different starts.
    num_samples
        Draws of the mixture, and resampled draws in ``fit.posterior``.
    max_iter, history
        Most iterations of a path, and L-BFGS's memory (steps).
    num_elbo_draws
        Draws for the ELBO at each iteration.
    checkpoint
        A folder, written to after every path. A run whose folder holds the checkpoint
        of the same settings, program, data and seed goes on from it, to the same bits.
    """

    num_paths: int = 8
    num_samples: int = 2000
    max_iter: int = 100
    history: int = 10
    num_elbo_draws: int = 25
    checkpoint: str | None = None
    guide: ClassVar[str] = "pathfinder"  # what ImportanceSampling builds of such a fit's params

    def __post_init__(self) -> None:
        check_count("num_paths", self.num_paths)
        check_count("num_samples", self.num_samples, least=25)  # fewer have no tail to smooth
        for name in ("max_iter", "history", "num_elbo_draws"):
            check_count(name, getattr(self, name))
        settle_folder(self)

    def backend_for(self, problem: Problem) -> str:
        return "numpyro"

    def check(self, problem: Problem) -> str | None:
        return (
            no_observed("Pathfinder", problem)
            or no_continuous_latents("Pathfinder", problem)
            or unsummable("Pathfinder", problem)
            or backend_or_reason("numpyro", problem)
        )

    def run(self, problem: Problem, run: Run) -> Fit:
        from ppl_lvm.engines._jax_pathfinder import paths_and_draws

        params = params_without_values("Pathfinder", problem, run)
        with units_of(self, problem, run, params) as units:
            return paths_and_draws(self, problem, run, params, units)
