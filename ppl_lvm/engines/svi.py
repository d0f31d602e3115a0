"""Stochastic variational inference (Hoffman et al. 2013, JMLR 14; Ranganath et al. 2014)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppl_lvm.core import Engine, Problem, Run
from ppl_lvm.engines._batch_reasons import batches_reason
from ppl_lvm.engines._checks import (
    NUMBER,
    backend_or_reason,
    check_choice,
    check_count,
    check_flag,
    check_fraction,
    check_positive,
    fixed_supports,
    no_observed,
    settle_folder,
    unsummable,
)
from ppl_lvm.engines._guide_checks import amortized_reason, check_guide, mirror_reason
from ppl_lvm.engines._rows import first_rows
from ppl_lvm.engines._schedules import SCHEDULES
from ppl_lvm.engines._shares import is_first, not_shared
from ppl_lvm.engines.objectives import ELBO, Annealing, Renyi
from ppl_lvm.families import FAMILY_NAMES, Amortized, Flow, LowRank
from ppl_lvm.result import Fit
from ppl_lvm.streams import in_memory

_ELBO = ELBO()


@dataclass(frozen=True)
class SVI(Engine):
    """A guide fitted by stochastic gradient ascent on a bound; then independent draws of it.

    Parameters
    ----------
    backend
        ``"pyro"`` (also what ``"auto"`` means) or ``"numpyro"`` (compiled: the twin, else the Pyro program
        translated, with a named guide family).
    objective
        :class:`ELBO` or :class:`Renyi`.
    guide
        None (the model's own guide, else mean field), a family by name, or a guide program of the backend.
        Gaussians on unconstrained space: ``"mean_field"``, ``"full_rank"``, ``"low_rank"`` (or
        :class:`LowRank`), ``"laplace"`` (at the mode, with the inverse Hessian there as covariance). Flows:
        ``"flow"``, ``"spline"`` (or :class:`Flow`). ``"delta"`` gives a point: the posterior mode in the
        constrained parametrisation.

        ``"structured"`` is a Gaussian with the sparsity of the model's posterior. Sites outside the data
        plate come in the program's order, each with a full block and linear in those earlier ones that it is
        tied to once all later sites have been integrated out (the faithful inverse of the program's graph,
        Webb et al. 2018). The sites of each datum are a full block, linear in those outside: loc_n + A_n (g -
        loc) + L_n eps (Tan and Nott 2018). It is exact for linear-Gaussian hierarchies, and its params grow
        with the number of data and not with its square.

        ``"amortized"`` (or :class:`Amortized`) is the same with an encoder of the datum in place of params
        of each; it takes ``batch_size``.
    num_steps, num_epochs
        Optimiser steps (default 3000), or passes over the data (with ``batch_size``).
    batch_size
        Rows per step; None uses all. Arguments that run along the data plate are sliced and the sites
        inside it scaled by n / batch_size, in model and guide.
        A training by epochs takes 128 rows at a time by default, and drops the rows that do not fill a batch
        (others in each epoch).
    learning_rate, learning_rate_decay, schedule, warmup_steps
        Adam's step size (default 0.03; 0.001 for trainings by epochs), the factor it has shrunk by at the
        last step (default 0.02; 1 for trainings by epochs), along an "exponential", "cosine" or "linear"
        curve, after ``warmup_steps`` in which it grows from 0.
    clip_norm
        The norm beyond which the gradient of a param is clipped. None: 10 times its running root mean
        square (no clipping in trainings by epochs). A fixed norm that noise exceeds moves the optimum: with
        many rows guides come out too wide. Trainings by epochs clip the gradient of all params together.
    validation, patience
        Trainings by epochs: the share of rows held out, chosen by the seed, and for how many epochs their
        bound may fail to reach a new maximum before the run stops. The params of the best epoch are kept.
    checkpoint, checkpoint_every
        A folder for checkpoints, written every so many blocks of ``window`` steps (trainings by epochs: every
        so many epochs). A run whose folder holds a checkpoint of the same settings, program, data and seed
        goes on from it, to the same result as if it had not been stopped.
    average
        Whether the fitted params are the mean over the steps after the objective has settled (at the latest
        over the second half; Polyak and Juditsky 1992; Dhaka et al. 2020). None: on minibatches. Means are
        taken in unconstrained space.
    num_restarts
        Runs from different starts, taken together on JAX; the one with the highest objective is kept, and
        ``fit.meta["restarts"]`` has the objective of each with its error.
    num_draws
        Independent draws of the fitted guide.
    num_devices
        On JAX: devices of this process that share the rows of each step (all rows, or those of a batch, which
        it has to divide). Params are on all of them, and gradients are those of one device to rounding.
    distributed
        On Pyro: processes started by ``torchrun`` share the rows of each step in the same way, by
        ``torch.distributed``. Every process returns the same fit; the first one shows progress and writes
        checkpoints. ``batch_size`` counts the rows of all processes.
    window, tolerance, early_stop
        Convergence: the mean objective of the last ``window`` steps (a tenth of the run once that is
        more) is compared with that of the window before. The fit has converged when at its end the
        gain is below ``tolerance`` nats or within two standard errors of zero, and these hide no gain that
        matters (more than ten times ``tolerance`` and an eighth of a nat per coordinate, which half an sd in
        each is worth). On minibatches, whose objective is noisier than that, the gain is that of the params
        at the end over those a window before (of averages: half way), at equal rows and draws.
        ``early_stop`` ends a run before when twice running the gain plus two standard errors was below
        ``tolerance``.
    """

    backend: str = "auto"
    objective: ELBO | Renyi = _ELBO
    guide: str | Flow | LowRank | Amortized | Callable[..., Any] | None = None
    num_steps: int | None = None
    num_epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    learning_rate_decay: float | None = None
    clip_norm: float | None = None
    num_draws: int = 1000
    window: int = 250
    tolerance: float = 0.2
    early_stop: bool = True
    schedule: str = "exponential"
    warmup_steps: int = 0
    validation: float = 0.0
    patience: int | None = None
    checkpoint: str | None = None
    checkpoint_every: int = 1
    average: bool | None = None
    num_restarts: int = 1
    num_devices: int = 1
    distributed: bool = False

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, ("auto", "pyro", "numpyro"))
        if not isinstance(self.objective, (ELBO, Renyi)):
            raise TypeError(f"objective: expected ELBO(...) or Renyi(...), got {self.objective!r}.")
        check_guide(self.guide)
        for name in ("num_steps", "num_epochs", "batch_size", "patience"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.num_steps is not None and self.num_epochs is not None:
            raise ValueError("num_steps, num_epochs: give one of them, not both.")
        check_count("num_draws", self.num_draws, least=2)
        check_count("window", self.window, least=10)
        for name in ("learning_rate", "clip_norm"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        check_positive("tolerance", self.tolerance)
        check_flag("early_stop", self.early_stop)
        if self.average is not None:
            check_flag("average", self.average)
        check_count("num_restarts", self.num_restarts)
        check_count("num_devices", self.num_devices)
        check_flag("distributed", self.distributed)
        if self.learning_rate_decay is not None and not _is_number(self.learning_rate_decay, 1):
            check_fraction("learning_rate_decay", self.learning_rate_decay)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_count("warmup_steps", self.warmup_steps, least=0)
        check_count("checkpoint_every", self.checkpoint_every)
        if not _is_number(self.validation, 0):
            check_fraction("validation", self.validation)
        settle_folder(self)

    def backend_for(self, problem: Problem) -> str:
        own = problem.model.only_backend or "pyro"
        return own if self.backend == "auto" else self.backend

    def check(self, problem: Problem) -> str | None:
        from ppl_lvm.engines._training import by_epochs, training_reason

        reason = no_observed("SVI", problem) or training_reason(self, problem)
        if reason or by_epochs(self, problem):
            return reason or not_shared(self, problem)
        return (
            no_observed("SVI", problem)
            or unsummable("SVI", problem)
            or self._nothing_to_fit(problem)
            or self._params_on_jax(problem)
            or self._guide_on_jax(problem)
            or self._restarts_on_pyro(problem)
            or self._points_have_no_weights()
            or self._too_few_weights()
            or self._amortized(problem)
            or mirror_reason(self)
            or batches_reason(self, problem)
            or backend_or_reason(self.backend, first_rows(self, problem))
            or self._moving_supports(first_rows(self, problem))
            or not_shared(self, problem)
        )

    def _nothing_to_fit(self, problem: Problem) -> str | None:
        if not problem.latents(discrete=False) and not problem.params:
            return (
                f"{problem.model.describe()} has no continuous latent sites and no params to fit; "
                "fit.latents gives draws of discrete ones"
            )
        return None

    def _params_on_jax(self, problem: Problem) -> str | None:
        if self.backend != "numpyro":
            return None
        if not problem.latents(discrete=False):
            return (
                f"{problem.model.describe()} has params but no continuous latent sites, and is fitted on "
                "Pyro only; use backend='pyro'"
            )
        networks = [n for n in problem.params if "$$$" in n and n not in problem.model.fixed_params]
        if networks and problem.model.numpyro is not None:
            return f"the twin's networks ({networks[0]}, ...) are trained on Pyro only; use backend='pyro'"
        return None

    def _points_have_no_weights(self) -> str | None:
        if self.guide in ("delta", "laplace") and isinstance(self.objective, Renyi):
            return f"guide={self.guide!r} seeks a mode, and the Renyi objective needs draws; use ELBO()"
        return None

    def _amortized(self, problem: Problem) -> str | None:
        batches, backend = self.batch_size is not None, self.backend_for(problem)
        return amortized_reason(self.guide, problem, backend, batches=batches)

    def _too_few_weights(self) -> str | None:
        particles = self.objective.num_particles
        if isinstance(self.objective, Renyi) and self.num_draws < 2 * particles:
            return (
                f"num_draws is {self.num_draws}, and a Renyi bound of {particles} particles needs two groups "
                f"of draws for its error; use num_draws={2 * particles} or more"
            )
        return None

    def _guide_on_jax(self, problem: Problem) -> str | None:
        if self.backend == "numpyro" and problem.model.numpyro is None and callable(self.guide):
            return (
                f"a guide function needs a NumPyro twin, and {problem.model.describe()} is translated; use a "
                f"named family {FAMILY_NAMES}, or backend='pyro'"
            )
        return None

    def _moving_supports(self, problem: Problem) -> str | None:
        own = callable(self.guide) or (self.guide is None and problem.model.pyro.guide is not None)
        return None if own else fixed_supports("SVI", problem, self.backend_for(problem))

    def _restarts_on_pyro(self, problem: Problem) -> str | None:
        if self.num_restarts > 1 and self.backend_for(problem) == "pyro":
            return (
                "restarts are taken together on JAX only; use backend='numpyro', or fits with different seeds"
            )
        return None

    def steps_for(self, problem: Problem) -> int:
        """Number of optimiser steps; an epoch's rows that do not fill a batch are left out of it."""
        if self.num_epochs is not None and self.batch_size and problem.num_data:
            return self.num_epochs * max(1, problem.num_data // self.batch_size)
        return self.num_steps if self.num_steps is not None else 3000

    def run(self, problem: Problem, run: Run) -> Fit:
        from ppl_lvm.engines._training import by_epochs, settled

        backend, engine = self.backend_for(problem), settled(self, problem)
        run = dataclasses.replace(run, progress=run.progress and is_first(engine))
        if by_epochs(self, problem):
            from ppl_lvm.engines._svi_amortised import run_epochs

            held = in_memory(problem.arguments, problem.dtype)  # rows are taken at random, by either backend
            problem = dataclasses.replace(problem, arguments=held)
            return run_epochs(engine, problem, run, backend)
        if backend == "numpyro":
            from ppl_lvm.engines._jax_svi import run_svi
        else:
            from ppl_lvm.engines._pyro_svi import run_svi
        fit = run_svi(engine, problem, run)
        meta = {**fit.meta, "mirrored": True} if getattr(engine.objective, "mirrored", None) else fit.meta
        return dataclasses.replace(fit, engine=self, meta=meta)


def _is_number(value: Any, expected: int) -> bool:
    return isinstance(value, NUMBER) and not isinstance(value, bool) and bool(value == expected)


__all__ = ["ELBO", "FAMILY_NAMES", "SVI", "Annealing", "Renyi"]
