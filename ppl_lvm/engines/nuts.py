"""The No-U-Turn sampler (Hoffman and Gelman 2014, JMLR 15; multinomial as in Betancourt 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppl_lvm.core import Engine, Outcome, Problem, Run, Status
from ppl_lvm.engines._checks import (
    backend_or_reason,
    check_choice,
    check_count,
    check_flag,
    check_fraction,
    no_continuous_latents,
    params_without_values,
    twin_or_translation,
    unsummable,
)
from ppl_lvm.result import Fit, chain_dataset


@dataclass(frozen=True)
class NUTS(Engine):
    """Draws of the posterior of the continuous latent sites, discrete sites summed out.

    Parameters
    ----------
    backend
        ``"pyro"`` (chains one after another, in process, seeded), ``"numpyro"`` (compiled: the twin where
        there is one, else the Pyro program translated) or ``"auto"``: NumPyro, or Pyro where the program
        cannot be translated.
    num_warmup, num_samples, num_chains
        Adaptation steps (dropped) and kept draws of each chain, and the number of chains.
    num_starts
        Number of starting points, each shared by as many chains (a divisor of ``num_chains``): for many short
        chains, whose agreement nested R-hat then tells. None: every chain has its own.
    target_accept
        Acceptance rate that step size adaptation aims at, in (0, 1).
    max_tree_depth
        Trajectories are at most 2**max_tree_depth steps.
    dense_mass
        Adapt a full mass matrix instead of a diagonal one.
    kernel
        On JAX, whose NUTS step: ``"blackjax"`` or ``"numpyro"``. Run in one compiled loop the two are
        within a third of each other in effective draws per second, either way round by model.
    chain_method
        On JAX: ``"threads"`` (one compiled chain in Python threads), ``"vectorized"`` (one program for
        all chains; every chain waits for the longest trajectory), ``"sequential"``, or ``"auto"``:
        threads on CPU, vectorized on an accelerator.
    """

    backend: str = "auto"
    num_warmup: int = 1000
    num_samples: int = 1000
    num_chains: int = 4
    num_starts: int | None = None
    target_accept: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False
    kernel: str = "blackjax"
    chain_method: str = "auto"

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, ("auto", "pyro", "numpyro"))
        check_choice("kernel", self.kernel, ("blackjax", "numpyro"))
        check_choice("chain_method", self.chain_method, ("auto", "threads", "vectorized", "sequential"))
        check_count("num_warmup", self.num_warmup, least=0)
        check_count("num_samples", self.num_samples)
        check_count("num_chains", self.num_chains)
        check_count("max_tree_depth", self.max_tree_depth)
        self._check_starts()
        check_fraction("target_accept", self.target_accept)
        check_flag("dense_mass", self.dense_mass)

    def _check_starts(self) -> None:
        if self.num_starts is None:
            return
        check_count("num_starts", self.num_starts, least=2)
        if self.num_chains % self.num_starts:
            raise ValueError(
                f"num_starts: expected a divisor of num_chains ({self.num_chains}), got {self.num_starts}."
            )

    def backend_for(self, problem: Problem) -> str:
        if self.backend != "auto":
            return self.backend
        return twin_or_translation(problem)

    def check(self, problem: Problem) -> str | None:
        return (
            no_continuous_latents("NUTS", problem)
            or unsummable("NUTS", problem)
            or backend_or_reason(self.backend, problem)
        )

    def run(self, problem: Problem, run: Run) -> Fit:
        params = params_without_values("NUTS", problem, run)
        if self.backend_for(problem) == "numpyro":
            from ppl_lvm.engines._jax_nuts import sample
        else:
            from ppl_lvm.engines._pyro_nuts import sample
        values, stats = sample(self, problem, run, params)
        return Fit(
            model=problem.model,
            engine=self,
            backend=self.backend_for(problem),
            problem=problem,
            draws=chain_dataset(problem, values, kind="chain"),
            sample_stats=chain_dataset(None, stats, kind="chain"),
            params=params,
            status=_status(stats),
        )


def _status(stats: dict[str, np.ndarray]) -> Status:
    diverging = int(stats["diverging"].sum())
    details = {
        "divergences": float(diverging),
        "acceptance_rate": float(stats["acceptance_rate"].mean()),
        "step_size": float(stats["step_size"].mean()),
    }
    return Status(Outcome.DIVERGENT if diverging else Outcome.OK, details)
