"""Expectation maximisation (Dempster, Laird and Rubin 1977, JRSS B 39): a point, by the exact M-step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from ppl_lvm.core import Engine, Outcome, Problem, Run, Status
from ppl_lvm.engines._checks import NUMBER, check_choice, check_count, check_positive, settle_folder
from ppl_lvm.engines._records import packed, plain, unpacked
from ppl_lvm.engines._start import starting_values
from ppl_lvm.engines._units import Units, units_of
from ppl_lvm.progress import bar
from ppl_lvm.result import Fit


@dataclass(frozen=True)
class EM(Engine):
    """Maximum likelihood (or a posteriori) by EM with restarts.

    Parameters
    ----------
    num_init
        Restarts from different starting points; the best is kept.
    tol
        Stop when the objective gains less than this, nats per datum.
    max_iter
        Most iterations of a restart.
    estimate
        ``"ml"`` or ``"map"`` (the prior's density included, in the constrained parametrisation).
    variance_floor
        Added to variances at every M-step (squared units of the data); None: 1e-6 of the mean column
        variance.
    checkpoint
        A folder, written to after every restart (of factor models: at the end). A run whose folder holds the
        checkpoint of the same settings, data and seed goes on from it, to the same bits.

    The result is a point: ``fit.params``, ``fit.log_likelihood``, ``fit.aic``, ``fit.bic``; no spread.
    """

    num_init: int = 10
    tol: float = 1e-6
    max_iter: int = 1000
    estimate: str = "ml"
    variance_floor: float | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        check_count("num_init", self.num_init)
        check_positive("tol", self.tol)
        check_count("max_iter", self.max_iter)
        check_choice("estimate", self.estimate, ("ml", "map"))
        floor = self.variance_floor
        number = isinstance(floor, NUMBER) and not isinstance(floor, bool)
        if floor is not None and not (number and 0 <= floor < np.inf):
            raise ValueError(f"variance_floor: expected a non-negative number or None, got {floor!r}.")
        settle_folder(self)

    def backend_for(self, problem: Problem) -> str:
        return "exact"

    def check(self, problem: Problem) -> str | None:
        em = getattr(problem.model.exact, "em", None)
        if em is None:
            return (
                f"{problem.model.describe()} has no closed-form EM step; use SVI, or NUTS for draws of the "
                "posterior"
            )
        if self.variance_floor is not None and "variance_floor" not in inspect.signature(em).parameters:
            return f"{problem.model.describe()} has no variance floor; leave variance_floor out"
        return None

    def run(self, problem: Problem, run: Run) -> Fit:
        exact: Any = problem.model.exact
        start = starting_values(problem, run)[0] if run.init is not None else None
        num = self.num_init if start is None else 1
        with units_of(self, problem, run, {}) as units, bar(num, "EM", run.progress) as tick:
            seen = [0]
            settings = _restarts(exact, units, num)
            if self.variance_floor is not None:
                settings["variance_floor"] = self.variance_floor

            def progress(restart: int, iteration: int, objective: float) -> None:
                if restart + 1 > seen[0]:
                    tick(restart + 1 - seen[0], f"objective {objective:.2f}")
                    seen[0] = restart + 1

            def whole() -> Any:
                return exact.em(
                    problem.arguments,
                    num_init=self.num_init,
                    tol=self.tol,
                    max_iter=self.max_iter,
                    rng=run.rng(),
                    start=start,
                    estimate=self.estimate,
                    progress=progress if run.progress else None,
                    **settings,
                )

            found = whole() if "recall" in settings else _as_one_unit(units, whole)
        return Fit(
            model=problem.model,
            engine=self,
            backend="exact",
            problem=problem,
            params={k: np.asarray(v) for k, v in found.values.items()},
            status=units.status(_status(found)),
            log_likelihood=float(found.log_likelihood),
            num_parameters=exact.num_parameters(problem.arguments),
            groups={"optimization": _history(found)},
        )


def _restarts(exact: Any, units: Units, num: int) -> dict[str, Any]:
    """The setting by which a model's EM takes restarts from the checkpoint, and stops on Ctrl-C."""
    if "recall" not in inspect.signature(exact.em).parameters:
        return {}

    def recall(number: int, compute: Callable[[], Any], make: Callable[[dict[str, Any]], Any]) -> Any | None:
        if number and units.stops("restart", number, num):
            return None
        return make(unpacked(units.one(f"restart {number}", lambda: packed(plain(compute())))))

    return {"recall": recall}


def _as_one_unit(units: Units, whole: Callable[[], Any]) -> Any:
    def compute() -> dict[str, np.ndarray]:
        found = plain(whole())
        return packed({**found, "restarts": np.zeros(len(found["restarts"]))})  # their number is what counts

    return SimpleNamespace(**{"note": None, "collapsed": (), **unpacked(units.one("run", compute))})


def _status(found: Any) -> Status:
    details = {"iterations": float(found.num_iter), "restarts": float(len(found.restarts))}
    messages = tuple(m for m in (found.note,) if m)
    if found.collapsed:
        named = ", ".join(str(c) for c in found.collapsed)
        return Status(Outcome.DEGENERATE, details, (f"collapsed components: {named}", *messages))
    return Status(Outcome.CONVERGED if found.converged else Outcome.MAX_STEPS, details, messages)


def _history(found: Any) -> Any:
    import xarray as xr

    return xr.DataArray(-np.asarray(found.trace)[None], dims=("chain", "step"), name="loss").to_dataset()
