"""Annealing from the prior to the posterior: sequential Monte Carlo and annealed importance sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppl_lvm.core import Engine, Evidence, Outcome, Problem, Run, Status
from ppl_lvm.engines._checks import (
    backend_or_reason,
    check_choice,
    check_count,
    check_fraction,
    no_continuous_latents,
    no_observed,
    params_without_values,
    settle_folder,
    unsummable,
)
from ppl_lvm.engines._units import units_of
from ppl_lvm.result import Fit, chain_dataset

if TYPE_CHECKING:
    from ppl_lvm.engines._jax_smc import Annealed

_UNEQUAL = (
    "labels are not exchangeable here: the modes differ in mass, and each has to be found by enough "
    "particles of the prior"
)


@dataclass(frozen=True)
class _Annealing(Engine):
    """What both engines check: they run on JAX only, on the model's twin or its translated program."""

    backend: str = "auto"
    checkpoint: str | None = None

    def backend_for(self, problem: Problem) -> str:
        return "numpyro"

    def check(self, problem: Problem) -> str | None:
        name = type(self).__name__
        reason = (
            no_observed(name, problem) or no_continuous_latents(name, problem) or unsummable(name, problem)
        )
        improper = [s.name for s in problem.latents() if not s.proper]
        if reason is None and improper:
            reason = f"{name} starts from draws of the prior, and that of {improper} is improper; use NUTS"
        return reason or backend_or_reason("numpyro", problem)


@dataclass(frozen=True)
class SMC(_Annealing):
    r"""Sequential Monte Carlo from the prior to the posterior (Del Moral, Doucet and Jasra 2006, JRSS B 68).

    Particles go through :math:`p_b(z) \propto p(z)\, p(x \mid z)^b` for b from 0 to 1: reweighted by
    :math:`p(x \mid z)^{\Delta b}`, resampled, and moved by Hamiltonian steps at every temperature; discrete
    sites are summed out. The product of the mean incremental weights is an unbiased estimate of p(x). A pilot
    run chooses temperatures, step sizes and scales, which the ``num_runs`` independent runs then hold fixed.
    ``fit.evidence`` (nats) is the log of the mean over runs, with its standard error from their spread (delta
    method); the errors in ``fit.summary()`` come from between the runs too.

    Runs on JAX (``backend`` "auto" or "numpyro"): on a twin or a translated program.

    Parameters
    ----------
    num_particles, num_runs
        Particles of a run, at least 20, and independent runs, at least 4 (for the error).
    num_moves
        Hamiltonian moves of every particle at each temperature.
    ess
        Fraction of the particles that a step to the next temperature keeps, in (0, 1); higher means more
        temperatures.
    checkpoint
        A folder, written to after every run (and the pilot). A run whose folder holds the checkpoint
        of the same settings, program, data and seed goes on from it, to the same bits.

    Raises
    ------
    ValueError, TypeError
        For settings out of range; by ``fit`` where a prior is improper, nothing is observed, or the program
        cannot be translated.
    """

    num_particles: int = 500
    num_runs: int = 16
    num_moves: int = 3
    ess: float = 0.7

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, ("auto", "numpyro"))
        check_count("num_particles", self.num_particles, least=20)
        check_count("num_runs", self.num_runs, least=4)
        check_count("num_moves", self.num_moves)
        check_fraction("ess", self.ess)
        settle_folder(self)

    def run(self, problem: Problem, run: Run) -> Fit:
        from ppl_lvm.engines._jax_smc import smc

        params = params_without_values("SMC", problem, run)
        with units_of(self, problem, run, params) as units:
            found = smc(self, problem, run, params, units)
        weights = _normalised(found.log_weights)
        runs = 1.0 / float(np.exp(2 * _normalised(found.log_evidence)).sum())  # how many carry the mean
        details = {"effective_runs": runs}
        status = _status(runs >= len(found.log_evidence) / 2, details, found)
        return _fit(self, problem, run, params, found, weights, units.status(status))


@dataclass(frozen=True)
class AIS(_Annealing):
    r"""Annealed importance sampling (Neal 2001, *Statistics and Computing* 11): independent particles.

    Each particle starts at a draw of the prior and moves through :math:`p_b(z) \propto p(z)\, p(x \mid z)^b`,
    b from 0 to 1, one Hamiltonian move a temperature; its weight is the product of
    :math:`p(x \mid z)^{\Delta b}` on the way, an unbiased estimate of p(x). A pilot run, apart from the
    particles, tunes the path.
    ``fit.evidence`` (nats) is the log mean weight, with its standard error by the delta method; the mean log
    weight, a stochastic lower bound, is in ``fit.status.details["lower_bound"]``.

    Runs on JAX (``backend`` "auto" or "numpyro"): on a twin or a translated program.

    Parameters
    ----------
    num_particles, num_temperatures
        Independent particles, at least 25, and temperatures (moves of each), at least 2.
    checkpoint
        A folder, written to after the pilot and every tenth of the particles. A run whose folder holds the
        checkpoint of the same settings, program, data and seed goes on from it, to the same bits.

    Raises
    ------
    ValueError, TypeError
        As :class:`SMC`.
    """

    num_particles: int = 1000
    num_temperatures: int = 200

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, ("auto", "numpyro"))
        check_count("num_particles", self.num_particles, least=25)
        check_count("num_temperatures", self.num_temperatures, least=2)
        settle_folder(self)

    def run(self, problem: Problem, run: Run) -> Fit:
        from ppl_lvm.diagnostics import psis
        from ppl_lvm.engines._jax_smc import ais

        params = params_without_values("AIS", problem, run)
        with units_of(self, problem, run, params) as units:
            found = ais(self, problem, run, params, units)
        weights, khat = psis(found.log_weights)
        details = {
            "ess": 1.0 / float(np.exp(2 * weights).sum()),
            "khat": khat,
            "lower_bound": float(found.log_evidence.mean()),
        }
        trustworthy = khat < min(1 - 1 / math.log10(len(weights)), 0.7)
        status = _status(trustworthy, details, found)
        return _fit(self, problem, run, params, found, weights, units.status(status))


def log_mean_evidence(log_z: np.ndarray) -> tuple[float, float]:
    """log of the mean of exp(log_z), and its standard error by the delta method: sd / (mean sqrt(r))."""
    top = log_z.max()
    ratio = np.exp(log_z - top)
    error = float(ratio.std(ddof=1) / (ratio.mean() * math.sqrt(len(ratio))))
    return float(top + math.log(ratio.mean())), error


def _normalised(log_weights: np.ndarray) -> np.ndarray:
    out: np.ndarray = log_weights - np.logaddexp.reduce(log_weights)
    return out


def _status(trustworthy: bool, details: dict[str, float], found: Annealed) -> Status:
    path = {"num_temperatures": float(found.num_temperatures), "acceptance_rate": found.acceptance}
    return Status(Outcome.OK if trustworthy else Outcome.UNRELIABLE, details | path)


def _fit(
    engine: _Annealing,
    problem: Problem,
    run: Run,
    params: dict[str, np.ndarray],
    found: Annealed,
    weights: np.ndarray,
    status: Status,
) -> Fit:
    """Resampled draws, the weighted particles that they come from, and the evidence."""
    from ppl_lvm.engines.importance import systematic

    nats, error = log_mean_evidence(found.log_evidence)
    index = systematic(np.exp(weights), run.rng(11))
    stats = {"log_p": found.log_p[None], "log_weight": weights[None]}
    stats["resampled_index"] = index[None].astype(np.int64)
    if found.runs is not None:  # particles of a run are not independent: errors come from between the runs
        stats["run"] = found.runs[None].astype(np.int64)
    model = problem.model
    return Fit(
        model=model,
        engine=engine,
        backend="numpyro",
        problem=problem,
        draws=chain_dataset(problem, {k: v[index][None] for k, v in found.values.items()}, kind="resampled"),
        params=params,
        evidence=Evidence(
            "estimate", nats, error, (*params, *model.held_sites), _UNEQUAL if model.label_note else ""
        ),
        sample_stats=chain_dataset(None, stats, kind="resampled"),
        groups={
            "proposal": chain_dataset(problem, {k: v[None] for k, v in found.values.items()}, kind="weighted")
        },
        status=status,
        meta={"gradients_per_move": found.gradients_per_move},
    )
