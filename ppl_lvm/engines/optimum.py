"""The posterior's mode, as a point and as the centre of a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ppl_lvm.core import Engine, Problem, Run
from ppl_lvm.engines._checks import (
    backend_or_reason,
    check_choice,
    check_count,
    fixed_supports,
    no_continuous_latents,
    no_observed,
    params_without_values,
    settle_folder,
    twin_or_translation,
    unsummable,
)
from ppl_lvm.engines._units import units_of
from ppl_lvm.result import Fit


@dataclass(frozen=True)
class _Optimum(Engine):
    backend: str = "auto"
    num_init: int = 4
    max_iter: int = 2000
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, ("auto", "pyro", "numpyro"))
        check_count("num_init", self.num_init)
        check_count("max_iter", self.max_iter)
        settle_folder(self)

    def backend_for(self, problem: Problem) -> str:
        return self.backend if self.backend != "auto" else twin_or_translation(problem)

    def check(self, problem: Problem) -> str | None:
        name = type(self).__name__
        return (
            no_observed(name, problem)
            or no_continuous_latents(name, problem)
            or unsummable(name, problem)
            or backend_or_reason(self.backend, problem)
            or fixed_supports(name, problem, self.backend_for(problem))
        )


@dataclass(frozen=True)
class MAP(_Optimum):
    """The maximum of the posterior density in the constrained parametrisation, discrete sites summed out.

    Found by L-BFGS from several starts; a point: ``fit.params``, ``fit.log_likelihood``, no spread. The
    maximum depends on the parametrisation, and for scales with many local latents below them it may not
    exist: the density then grows without bound as the scale goes to 0.

    Parameters
    ----------
    backend
        ``"numpyro"`` (the twin, or the program translated), ``"pyro"``, or ``"auto"``: NumPyro where it can.
    num_init
        Searches from different starts; the highest end is kept.
    max_iter
        Most iterations of a search.
    checkpoint
        A folder, written to after every search. A run whose folder holds the checkpoint
        of the same settings, program, data and seed goes on from it, to the same bits.
    """

    def run(self, problem: Problem, run: Run) -> Fit:
        from ppl_lvm.engines._search import point_fit, search, session_of, status_of

        params = params_without_values("MAP", problem, run)
        backend = self.backend_for(problem)
        with session_of(backend, problem.dtype), units_of(self, problem, run, params) as units:
            surface, mode = search(self, problem, run, params, backend, units, jacobian=False)
            values = surface.values(mode.point)
        status = units.status(status_of(mode))
        return point_fit(self, problem, backend, values, params, status, mode.path, surface.size)


@dataclass(frozen=True)
class Laplace(_Optimum):
    """A Gaussian at the mode of the unconstrained posterior, with the inverse Hessian there as covariance.

    Tierney and Kadane (1986), on unconstrained space, where Jacobians are part of the density. Draws are
    independent ones of the Gaussian; the evidence is the lower bound that they give, and ``status`` has
    Laplace's own approximation of it (``laplace_evidence``, of unknown error).

    Parameters
    ----------
    backend, num_init, max_iter, checkpoint
        As for :class:`MAP`.
    num_draws
        Independent draws of the Gaussian.

    Raises
    ------
    ValueError
        In a run, where the density is not curved downwards in every direction at its mode.
    """

    num_draws: int = 1000
    guide: ClassVar[str] = "laplace"  # what ImportanceSampling builds of such a fit's params

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_draws", self.num_draws, least=2)

    def run(self, problem: Problem, run: Run) -> Fit:
        from ppl_lvm.engines._laplace import gaussian_fit
        from ppl_lvm.engines._search import search, session_of, status_of

        params = params_without_values("Laplace", problem, run)
        backend = self.backend_for(problem)
        with session_of(backend, problem.dtype), units_of(self, problem, run, params) as units:
            surface, mode = search(self, problem, run, params, backend, units, jacobian=True)
            status = units.status(status_of(mode))
            return gaussian_fit(self, problem, run, backend, surface, mode.point, params, status, mode.path)
