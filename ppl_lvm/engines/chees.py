"""ChEES-HMC (Hoffman, Radul and Sountsov 2021, AISTATS): many chains that adapt together."""

from __future__ import annotations

from dataclasses import dataclass

from ppl_lvm.core import Engine, Problem, Run
from ppl_lvm.engines._checks import (
    backend_or_reason,
    check_choice,
    check_count,
    check_fraction,
    no_continuous_latents,
    params_without_values,
    settle_folder,
    unsummable,
)
from ppl_lvm.engines.nuts import chain_status
from ppl_lvm.result import Fit, chain_dataset


@dataclass(frozen=True)
class ChEES(Engine):
    r"""Draws of the posterior by an ensemble of many short Hamiltonian chains, discrete sites summed out.

    All chains take trajectories of one length, whose mean is moved in warm-up up the gradient of

    .. math:: \tfrac14\, \mathrm{E}\left[\left(\lVert z' - \mathrm{E} z\rVert^2
              - \lVert z - \mathrm{E} z\rVert^2\right)^2\right],

    the change in the estimator of the expected square (ChEES); their step size goes to an acceptance rate,
    and in the second half of warm-up the variances of their places become the mass matrix. Averages are over
    the chains, so that a few hundred iterations are enough. Then all three are held. Each trajectory is that
    length times a number of a Halton sequence. No chain waits for another's tree, as in NUTS, which makes
    this the engine for accelerators. The rules of adaptation and the moves are BlackJAX's.

    Runs on JAX (``backend`` "auto" or "numpyro"): on a twin or a translated program. Chains are spread over
    as many of the process's devices as divide their number.

    Parameters
    ----------
    num_chains
        At least 16: averages over fewer are too noisy to adapt by.
    num_warmup, num_samples
        Adaptation steps (dropped) and kept draws of each chain. Without warm-up, trajectories have one step
        of 0.1 in scaled coordinates.
    num_starts
        Number of starting points, each shared by as many chains (a divisor of ``num_chains``): chains are too
        short for R-hat, so that nested R-hat tells from them whether starts are forgotten. None: every chain
        has its own.
    target_accept
        Acceptance rate (harmonic mean over chains) that step size adaptation aims at, in (0, 1).
    max_steps
        Trajectories are at most so many steps.
    checkpoint, checkpoint_every
        A folder for checkpoints, written every so many iterations, as for NUTS.

    With ``init=`` a fit that has draws, chains begin at different draws of it, in coordinates divided by
    their standard deviations. Ctrl-C ends a run as it does for NUTS.

    Raises
    ------
    ValueError, TypeError
        For settings out of range; by ``fit`` for models without continuous latents, params without values,
        or programs that cannot be translated.
    """

    backend: str = "auto"
    num_chains: int = 128
    num_warmup: int = 400
    num_samples: int = 100
    num_starts: int | None = 16
    target_accept: float = 0.651
    max_steps: int = 1000
    checkpoint: str | None = None
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, ("auto", "numpyro"))
        check_count("num_chains", self.num_chains, least=16)
        check_count("num_warmup", self.num_warmup, least=0)
        check_count("num_samples", self.num_samples)
        if self.num_starts is not None:
            check_count("num_starts", self.num_starts, least=2)
            if self.num_chains % self.num_starts:
                raise ValueError(
                    f"num_starts: expected a divisor of num_chains ({self.num_chains}) or None, got "
                    f"{self.num_starts}."
                )
        check_fraction("target_accept", self.target_accept)
        check_count("max_steps", self.max_steps)
        check_count("checkpoint_every", self.checkpoint_every)
        settle_folder(self)

    def backend_for(self, problem: Problem) -> str:
        return "numpyro"

    def check(self, problem: Problem) -> str | None:
        return (
            no_continuous_latents("ChEES", problem)
            or unsummable("ChEES", problem)
            or backend_or_reason("numpyro", problem)
        )

    def run(self, problem: Problem, run: Run) -> Fit:
        from ppl_lvm.engines._jax_chees import sample
        from ppl_lvm.engines._nuts_run import refuse_others

        params = params_without_values("ChEES", problem, run)
        refuse_others(self, problem, run, params)
        values, stats, spent, stopped = sample(self, problem, run, params)
        return Fit(
            model=problem.model,
            engine=self,
            backend="numpyro",
            problem=problem,
            draws=chain_dataset(problem, values, kind="chain"),
            sample_stats=chain_dataset(None, stats, kind="chain"),
            params=params,
            status=chain_status(stats, stopped),
            meta={"warmup_steps": int(spent.sum())},
        )
