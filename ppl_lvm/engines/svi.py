"""Stochastic variational inference (Hoffman et al. 2013, JMLR 14; Ranganath et al. 2014)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppl_lvm.core import Engine, Problem, Run
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
from ppl_lvm.engines._rows import first_rows
from ppl_lvm.engines._schedules import SCHEDULES
from ppl_lvm.engines._sources import streamed
from ppl_lvm.engines.objectives import ELBO, Annealing, Renyi
from ppl_lvm.families import FAMILY_NAMES, Flow, LowRank
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
        The gradient norm beyond which gradients are clipped (default 100; none in trainings by epochs, where
        gradients are those of the mean over a batch).
    validation, patience
        Trainings by epochs: the share of rows held out, chosen by the seed, and for how many epochs their
        bound may fail to reach a new maximum before the run stops. The params of the best epoch are kept.
    checkpoint, checkpoint_every
        A folder for checkpoints, written every so many blocks of ``window`` steps (trainings by epochs: every
        so many epochs). A run whose folder holds a checkpoint of the same settings, program, data and seed
        goes on from it, to the same result as if it had not been stopped.
    average
        Whether the fitted params are the mean over the steps after the objective has settled (at the latest
        over the second half), with a constant step size unless ``learning_rate_decay`` says otherwise
        (Polyak and Juditsky 1992; Dhaka et al. 2020). Means are taken in unconstrained space.
    num_restarts
        Runs from different starts, taken together on JAX; the one with the highest objective is kept, and
        ``fit.meta["restarts"]`` has the objective of each with its error.
    num_draws
        Independent draws of the fitted guide.
    window, tolerance, early_stop
        Convergence: the mean objective of the last ``window`` steps (a tenth of the run once that is
        more) is compared with that of the window before. The fit has converged when at its end the
        gain is below ``tolerance`` nats or within two standard errors of zero; ``early_stop`` ends it
        before when twice running the gain plus two standard errors was below ``tolerance``.
    """

    backend: str = "auto"
    objective: ELBO | Renyi = _ELBO
    guide: str | Flow | LowRank | Callable[..., Any] | None = None
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
    average: bool = False
    num_restarts: int = 1

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, ("auto", "pyro", "numpyro"))
        if not isinstance(self.objective, (ELBO, Renyi)):
            raise TypeError(f"objective: expected ELBO(...) or Renyi(...), got {self.objective!r}.")
        if isinstance(self.guide, str):
            check_choice("guide", self.guide, FAMILY_NAMES)
        elif (
            self.guide is not None
            and not isinstance(self.guide, (Flow, LowRank))
            and not callable(self.guide)
        ):
            raise TypeError(
                f"guide: expected None, one of {FAMILY_NAMES}, Flow(...), LowRank(...) or a callable, got "
                f"{self.guide!r}."
            )
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
        check_flag("average", self.average)
        check_count("num_restarts", self.num_restarts)
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
            return reason
        return (
            no_observed("SVI", problem)
            or unsummable("SVI", problem)
            or self._nothing_to_fit(problem)
            or self._params_on_jax(problem)
            or self._guide_on_jax(problem)
            or self._restarts_on_pyro(problem)
            or self._points_have_no_weights()
            or self._too_few_weights()
            or self._check_batches(problem)
            or backend_or_reason(self.backend, first_rows(self, problem))
            or self._moving_supports(first_rows(self, problem))
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

    def _check_batches(self, problem: Problem) -> str | None:
        size, rows = self.batch_size, first_rows(self, problem).num_data
        if self.num_epochs is not None and size is None:
            return "num_epochs needs batch_size (or give num_steps)"
        if size is None:
            return None
        n = problem.num_data
        if n is None:
            return "batch_size needs a data plate: put the observed sites in a pyro.plate"
        if size > n:
            return f"batch_size is {size}, but there are only {n} rows"
        if not problem.batched and problem.model.num_data(problem.data) is not None:
            return (
                f"{problem.model.describe()} uses sufficient statistics, so that a step costs the same for "
                "any number of rows; leave out batch_size"
            )
        if not problem.batched:
            return "batch_size finds no argument along the data plate; name them in Model(batched=(...))"
        if "stream" in problem.notes and rows != size:
            return f"batch_size is {size}, and the stream's first batch has {rows} rows; make them equal"
        if "stream" in problem.notes and self.checkpoint is not None:
            return (
                "checkpoint needs data with random access, and a stream cannot be taken up in its middle; "
                "give an array (a memory-mapped one will do), or leave out checkpoint"
            )
        if streamed(problem) and self.guide in ("delta", "laplace"):
            return f"guide={self.guide!r} ends in a search on all data, which have to be in memory for it"
        local = [s.name for s in problem.latents(discrete=False) if s.local]
        outside = [s.name for s in problem.latents() if not s.local]
        shared = [s.name for s in problem.latents(discrete=True) if not s.local]
        if shared:
            return (
                f"discrete sites {shared} lie outside the data plate, so their sum over values does not "
                "split over batches; leave out batch_size"
            )
        own_guide = self.guide if self.guide is not None else problem.model.pyro.guide
        if local and not callable(own_guide):
            return (
                f"sites {local} have a value per datum, and a guide family would need new parameters for "
                "every batch; give an amortised guide (a function of the batch), or leave out batch_size"
            )
        if isinstance(self.objective, Renyi) and outside:
            return (
                f"the Renyi objective under minibatches is no bound while latents outside the data plate "
                f"({outside}) share the weights; use objective=ELBO(), or leave out batch_size"
            )
        return None

    def steps_for(self, problem: Problem) -> int:
        """Number of optimiser steps, from num_steps or num_epochs."""
        if self.num_epochs is not None and self.batch_size and problem.num_data:
            return self.num_epochs * -(-problem.num_data // self.batch_size)
        return self.num_steps if self.num_steps is not None else 3000

    def run(self, problem: Problem, run: Run) -> Fit:
        from ppl_lvm.engines._training import by_epochs, settled

        backend, engine = self.backend_for(problem), settled(self, problem)
        if by_epochs(self, problem):
            from ppl_lvm.engines._svi_amortised import run_epochs

            held = in_memory(problem.arguments, problem.dtype)  # rows are taken at random, by either backend
            problem = dataclasses.replace(problem, arguments=held)
            return run_epochs(engine, problem, run, backend)
        if backend == "numpyro":
            from ppl_lvm.engines._jax_svi import run_svi
        else:
            from ppl_lvm.engines._pyro_svi import run_svi
        return dataclasses.replace(run_svi(engine, problem, run), engine=self)


def _is_number(value: Any, expected: int) -> bool:
    return isinstance(value, NUMBER) and not isinstance(value, bool) and bool(value == expected)


__all__ = ["ELBO", "FAMILY_NAMES", "SVI", "Annealing", "Renyi"]
