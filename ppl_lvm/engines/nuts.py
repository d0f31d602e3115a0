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
    fixed_supports,
    no_continuous_latents,
    params_without_values,
    settle_folder,
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
    by_datum
        On JAX, where all latents are local and params are held (a VAE's z given its weights): chains of each
        datum, with scales, step size and trajectories of its own, all data at once. None: where that is
        possible and the model has params. ``sample_stats`` then has sums (log densities, energies, steps) and
        means over data, and the group ``per_datum`` R-hat, effective sizes and divergences of each datum.
    transport
        On JAX, with ``init=`` the fit of a flow (``SVI(guide="flow", backend="numpyro")``): sample the noise
        that the flow maps to the posterior, and map the draws back (Hoffman et al. 2019). Exact, however well
        the flow fits; for curved posteriors.
    checkpoint, checkpoint_every
        A folder for checkpoints, one of each chain, written every so many iterations, warm-up included. A run
        whose folder holds checkpoints of the same settings, data and seed goes on from them, to the same
        draws as if it had not been stopped; with a larger ``num_samples`` it goes on to that.

    With ``init=`` a fit that has draws, chains begin at different draws of it, and the mass matrix with their
    variances (covariance, where ``dense_mass``) in unconstrained space; ``num_warmup`` stays as given, and
    150 is enough where that fit is roughly right.

    Ctrl-C ends a run after its current block of iterations (about 0.2 s): it gives the draws that are there,
    with ``Outcome.INTERRUPTED``; during warm-up it raises ``KeyboardInterrupt`` in words. Either way the
    checkpoints hold the last iteration.
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
    by_datum: bool | None = None
    transport: bool = False
    checkpoint: str | None = None
    checkpoint_every: int = 100

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
        if self.by_datum is not None:
            check_flag("by_datum", self.by_datum)
        check_flag("transport", self.transport)
        if self.transport and self.by_datum:
            raise ValueError("transport: a flow carries all data at once; leave by_datum out.")
        check_count("checkpoint_every", self.checkpoint_every)
        settle_folder(self)

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
            or fixed_supports("NUTS", problem, self.backend_for(problem))
            or self._not_by_datum(problem)
            or self._not_transported(problem)
        )

    def _not_transported(self, problem: Problem) -> str | None:
        if not self.transport or self.backend_for(problem) == "numpyro":
            return None
        return "transport needs the NumPyro backend; leave it out, or use backend='numpyro'"

    def _not_by_datum(self, problem: Problem) -> str | None:
        if not self.by_datum:
            return None
        from ppl_lvm.engines._jax_nuts_rows import by_datum_reason

        if self.backend_for(problem) != "numpyro":
            return "by_datum needs the NumPyro backend; leave it out, or use backend='numpyro'"
        reason = by_datum_reason(problem)
        return f"by_datum: {reason}; leave it out" if reason else None

    def splits(self, problem: Problem) -> bool:
        """Whether a run has chains of each datum on its own."""
        if self.by_datum is not None:
            return self.by_datum
        if self.transport or not problem.params or self.backend_for(problem) != "numpyro":
            return False
        from ppl_lvm.engines._jax_nuts_rows import by_datum_reason

        return by_datum_reason(problem) is None

    def run(self, problem: Problem, run: Run) -> Fit:
        from ppl_lvm.engines._nuts_run import refuse_others

        params = params_without_values("NUTS", problem, run)
        refuse_others(self, problem, run, params)
        if self.splits(problem):
            return self._run_by_datum(problem, run, params)
        if self.backend_for(problem) == "numpyro":
            from ppl_lvm.engines._jax_nuts import sample
        else:
            from ppl_lvm.engines._pyro_nuts import sample
        values, stats, spent, stopped = sample(self, problem, run, params)
        return Fit(
            model=problem.model,
            engine=self,
            backend=self.backend_for(problem),
            problem=problem,
            draws=chain_dataset(problem, values, kind="chain"),
            sample_stats=chain_dataset(None, stats, kind="chain"),
            params=params,
            status=chain_status(stats, stopped),
            meta={"warmup_steps": int(spent.sum())},
        )

    def _run_by_datum(self, problem: Problem, run: Run, params: dict[str, np.ndarray]) -> Fit:
        from ppl_lvm.engines._jax_nuts_rows import sample_rows, totals
        from ppl_lvm.engines._per_datum import per_datum

        values, stats, spent, stopped = sample_rows(self, problem, run, params)
        draws, every = chain_dataset(problem, values, kind="chain"), totals(stats)
        return Fit(
            model=problem.model,
            engine=self,
            backend="numpyro",
            problem=problem,
            draws=draws,
            sample_stats=chain_dataset(None, every, kind="chain"),
            params=params,
            groups={"per_datum": per_datum(problem, draws, stats)},
            status=chain_status({**every, "diverging": stats["diverging"]}, stopped),
            meta={"warmup_steps": int(spent.sum())},
        )


def chain_status(stats: dict[str, np.ndarray], stopped: str = "") -> Status:
    diverging = int(stats["diverging"].sum())
    details = {
        "divergences": float(diverging),
        "acceptance_rate": float(stats["acceptance_rate"].mean()),
        "step_size": float(stats["step_size"].mean()),
    }
    if stopped:
        return Status(Outcome.INTERRUPTED, details, (stopped,))
    return Status(Outcome.DIVERGENT if diverging else Outcome.OK, details)
