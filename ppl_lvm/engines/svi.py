"""Stochastic variational inference (Hoffman et al. 2013, JMLR 14; Ranganath et al. 2014)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppl_lvm.core import Engine, Problem, Run
from ppl_lvm.engines._checks import (
    backend_or_reason,
    check_choice,
    check_count,
    check_flag,
    check_fraction,
    check_positive,
    no_observed,
    unsummable,
)
from ppl_lvm.families import FAMILY_NAMES, Flow, LowRank
from ppl_lvm.result import Fit


@dataclass(frozen=True)
class ELBO:
    """The evidence lower bound E_q[log p - log q], discrete sites summed out exactly.

    ``estimator`` chooses Pyro's: ``"trace"`` (sampled), ``"mean_field"`` (analytic KL terms where
    known), ``"enum"`` (discrete sites summed out), or ``"auto"``: enum where the model has discrete
    latents, mean_field where guide and model declare the same sites in the same order, else trace.
    """

    num_particles: int = 1
    estimator: str = "auto"

    def __post_init__(self) -> None:
        check_count("num_particles", self.num_particles)
        check_choice("estimator", self.estimator, ("auto", "trace", "mean_field", "enum"))


@dataclass(frozen=True)
class Renyi:
    """The variational Renyi bound (Li and Turner 2016); alpha = 0 is the IWAE bound (Burda et al. 2016).

    1 / (1 - alpha) log mean_k (p / q)**(1 - alpha) over ``num_particles`` weights with discrete sites
    summed out. A lower bound of the evidence for 0 <= alpha < 1.
    """

    alpha: float = 0.0
    num_particles: int = 10

    def __post_init__(self) -> None:
        check_count("num_particles", self.num_particles, least=2)
        number = isinstance(self.alpha, (int, float)) and not isinstance(self.alpha, bool)
        if not number or not math.isfinite(self.alpha) or self.alpha == 1:
            raise ValueError(
                f"alpha: expected a finite number other than 1 (which is the ELBO), got {self.alpha!r}."
            )


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
    learning_rate, learning_rate_decay, clip_norm
        Adam's step size, the factor it has shrunk by at the last step (exponentially), and the
        gradient norm beyond which gradients are clipped.
    num_draws
        Independent draws of the fitted guide.
    window, tolerance, early_stop
        Convergence: the mean objective of the last ``window`` steps (a tenth of the run once that is
        more) is compared with that of the window before. The fit has converged when at its end the
        gain is below ``tolerance`` nats or within two standard errors of zero; ``early_stop`` ends it
        before when twice running the gain plus two standard errors was below ``tolerance``.
    """

    backend: str = "auto"
    objective: ELBO | Renyi = ELBO()
    guide: str | Flow | LowRank | Callable[..., Any] | None = None
    num_steps: int | None = None
    num_epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = 0.03
    learning_rate_decay: float = 0.02
    clip_norm: float = 100.0
    num_draws: int = 1000
    window: int = 250
    tolerance: float = 0.2
    early_stop: bool = True

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
        for name in ("num_steps", "num_epochs", "batch_size"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.num_steps is not None and self.num_epochs is not None:
            raise ValueError("num_steps, num_epochs: give one of them, not both.")
        check_count("num_draws", self.num_draws, least=2)
        check_count("window", self.window, least=10)
        for name in ("learning_rate", "clip_norm", "tolerance"):
            check_positive(name, getattr(self, name))
        check_flag("early_stop", self.early_stop)
        if self.learning_rate_decay != 1:
            check_fraction("learning_rate_decay", self.learning_rate_decay)

    def backend_for(self, problem: Problem) -> str:
        return "pyro" if self.backend == "auto" else self.backend

    def check(self, problem: Problem) -> str | None:
        return (
            no_observed("SVI", problem)
            or unsummable("SVI", problem)
            or self._nothing_to_fit(problem)
            or self._params_on_jax(problem)
            or self._guide_on_jax(problem)
            or self._points_have_no_weights()
            or backend_or_reason(self.backend, problem)
            or self._check_batches(problem)
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

    def _guide_on_jax(self, problem: Problem) -> str | None:
        if self.backend == "numpyro" and problem.model.numpyro is None and callable(self.guide):
            return (
                f"a guide function needs a NumPyro twin, and {problem.model.describe()} is translated; use a "
                f"named family {FAMILY_NAMES}, or backend='pyro'"
            )
        return None

    def _check_batches(self, problem: Problem) -> str | None:
        size = self.batch_size
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
        if self.backend_for(problem) == "numpyro":
            from ppl_lvm.engines._jax_svi import run_svi
        else:
            from ppl_lvm.engines._pyro_svi import run_svi
        return run_svi(self, problem, run)
