r"""Simulation-based calibration: is this engine's posterior of this model the posterior?

Parameters are drawn from the prior and data from the model, the engine fits the data, and each true value
is ranked among L draws of its posterior. Where the engine is right, ranks are uniform on 0..L (Talts,
Betancourt, Simpson, Vehtari and Gelman 2018, arXiv:1804.06788):

.. math:: \theta^* \sim p(\theta), \quad x \sim p(x \mid \theta^*), \quad \theta_1, \dots, \theta_L \sim
          q(\theta \mid x), \qquad r = \sum_l [f(\theta_l, x) < f(\theta^*, x)].

Any function f of parameters and data may be ranked (Modrak et al. 2023, *Bayesian Analysis*). Here f are
the entries of the continuous sites, the model's invariants, and the log likelihood and log prior, which see
faults that no single parameter shows. Labels and factors are brought into one order and turn for the truth
and the draws together, in a way that does not know which is which (:mod:`ppl_lvm.calibration._quantities`).

A U-shaped histogram of ranks is of a posterior that is too narrow, a hump of one that is too wide, a slope of
one that is too high or too low. For variational fits ``kind="vsbc"`` ranks among all draws of the guide and
asks less (Yao, Vehtari, Simpson and Gelman 2018, ICML, section 3.2): histograms must be symmetric about 1/2
(else means are biased), and their spread is judged, but not the rest of their shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from ppl_lvm.calibration._checkpoint import Checkpoint
from ppl_lvm.calibration._quantities import DENSITIES, compared_sites, invariants_at
from ppl_lvm.calibration._result import Calibration, assemble
from ppl_lvm.calibration._running import run_all
from ppl_lvm.calibration._simulate import Task, draw_truth, match_observed
from ppl_lvm.calibration._table import gather
from ppl_lvm.core import Engine, Problem, as_model
from ppl_lvm.diagnostics import entry_label
from ppl_lvm.fitting import prepare
from ppl_lvm.progress import bar, wanted
from ppl_lvm.result import chain_dataset

FEWEST = 20
_DRAWS = {"sbc": 99, "vsbc": 999}


def calibrate(
    model: Any,
    engine: Engine,
    num_simulations: int = 200,
    *,
    data: Any,
    kind: str = "sbc",
    num_draws: int | None = None,
    quantities: Sequence[str] | None = None,
    simulator: Any = None,
    observed: Mapping[str, str] | Callable[[dict[str, np.ndarray]], Mapping[str, Any]] | None = None,
    seed: int = 0,
    init: Any = None,
    dtype: str | None = None,
    executor: Executor | None = None,
    checkpoint: str | Path | None = None,
    false_alarm: float = 0.01,
    progress: bool | None = None,
) -> Calibration:
    """Simulation-based calibration of an engine on a model (:mod:`ppl_lvm.calibration` has the maths).

    Parameters
    ----------
    model, engine
        As in :func:`ppl_lvm.fit`; every prior must be proper, and the engine must give draws.
    num_simulations
        How many, at least 20. Of a posterior whose sds are 0.7 of what they should be, 100 see most, 200 all.
    data
        Data of the shape to simulate. Only their shape, covariates, missing entries and, where a prior
        is scaled by the data, their location and scale are used.
    kind
        "sbc", or "vsbc" for variational fits.
    num_draws
        L, to how many posterior draws a fit is thinned; None: 99 ("sbc") or 999 ("vsbc"). Chains are thinned
        further where their effective size is less.
    quantities
        Sites or entries (``"tau"``, ``"theta[0]"``, ``"log_likelihood"``) to judge; None: all. Fewer
        quantities need less evidence each.
    simulator
        A model to simulate from in place of ``model``, with the same sites and arguments: whatever differs
        between the two is then found as a fault.
    observed
        For plain functions: which argument each observed site takes its value from, or a function of the
        simulated sites that returns arguments. None: the argument of the same values.
    seed
        Simulation i depends on (seed, i) only.
    init, dtype
        As in :func:`ppl_lvm.fit`, for every fit.
    executor
        Any ``concurrent.futures.Executor``: of threads, of processes (started by "spawn"), of a
        cluster (``client.get_executor(pure=False)`` of ``dask.distributed``). None: threads for engines that
        run compiled (NUTS on an accelerator, or with ``chain_method="vectorized"``: many data sets in one
        vmapped program), this thread for others. It is not shut down.
    checkpoint
        A folder for finished simulations, to go on from after an interruption, or to add simulations later.
    false_alarm
        Probability that any quantity is found off where nothing is.
    progress
        As in :func:`ppl_lvm.fit`.

    Raises
    ------
    TypeError, ValueError
        For a prior that cannot be drawn from, ``pyro.param`` statements without values, an engine that gives
        a point or cannot take the model, too few simulations, unknown quantities, another run's checkpoint.
    RuntimeError
        If the executor's workers died.
    """
    _check_settings(engine, num_simulations, kind, num_draws, seed, executor, false_alarm)
    problem = prepare(model, data, dtype=dtype)
    _check_problem(problem, engine)
    source = as_model(simulator) if simulator is not None else problem.model
    source = source.resolve(prepare(source, data).data)
    given = observed if observed is not None else match_observed(prepare(source, data, dtype=dtype))
    length = num_draws or _DRAWS[kind]
    task = Task(problem.model, source, engine, data, int(seed), length, dtype, init, given)
    _check_quantities(quantities, problem, draw_truth(task, 0)[0])
    records = _collect(task, problem, num_simulations, executor, checkpoint, wanted(progress))
    failures = {i: str(r["error"]) for i, r in sorted(records.items()) if r["error"]}
    if len(records) - len(failures) < min(FEWEST, num_simulations):
        raise ValueError(
            f"{len(failures)} of {num_simulations} simulations failed, the first with "
            f"{next(iter(failures.values()))!r}; try lvm.fit on one simulated data set."
        )
    about = {"model": problem.model.describe(), "engine": type(engine).__name__, "seed": int(seed)}
    return assemble(
        gather(records, problem, quantities),
        failures,
        kind=kind,
        false_alarm=float(false_alarm),
        num_draws=length,
        about=about,
    )


def _collect(
    task: Task,
    problem: Problem,
    count: int,
    executor: Executor | None,
    checkpoint: str | Path | None,
    show: bool,
) -> dict[int, dict[str, Any]]:
    """Every simulation's record, from the checkpoint where it has it."""
    store = Checkpoint(checkpoint, task) if checkpoint is not None else None
    records: dict[int, dict[str, Any]] = {}
    for number in range(count) if store is not None else ():
        found = store.load(number) if store is not None else None
        if found is not None:
            records[number] = found
    with bar(count, "calibrate", show) as tick:
        tick(len(records))

        def keep(number: int, record: dict[str, Any]) -> None:
            if store is not None:
                store.save(number, record)
            records[number] = record
            failed = sum(bool(r["error"]) for r in records.values())
            tick(1, f"{failed} failed" if failed else "")

        compiled = task.engine.backend_for(problem) == "numpyro"
        run_all(task, [i for i in range(count) if i not in records], executor, compiled, keep)
    return records


def _check_settings(
    engine: Any, count: Any, kind: str, num_draws: Any, seed: Any, executor: Any, false_alarm: float
) -> None:
    if not isinstance(engine, Engine):
        what = f"the class {engine.__name__}" if isinstance(engine, type) else type(engine).__name__
        raise TypeError(f"engine: expected settings such as SVI() or NUTS(), got {what}.")
    if not _whole(count) or count < FEWEST:
        raise ValueError(
            f"num_simulations: expected a whole number of at least {FEWEST} (200 is usual), got {count!r}; "
            "fewer ranks cannot be told from uniform ones."
        )
    if kind not in _DRAWS:
        raise ValueError(f"kind: expected one of {tuple(_DRAWS)}, got {kind!r}.")
    if num_draws is not None and (not _whole(num_draws) or num_draws < 9):
        raise ValueError(f"num_draws: expected a whole number of at least 9, or None, got {num_draws!r}.")
    if not _whole(seed) or seed < 0:
        raise ValueError(f"seed: expected a non-negative integer, got {seed!r}.")
    if executor is not None and not (hasattr(executor, "submit") and hasattr(executor, "shutdown")):
        raise TypeError(
            f"executor: expected a concurrent.futures.Executor, got {type(executor).__name__}; of a dask "
            "client, pass client.get_executor(pure=False)."
        )
    if not 0 < false_alarm < 0.5:
        raise ValueError(f"false_alarm: expected a probability below 0.5, got {false_alarm!r}.")


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check_problem(problem: Problem, engine: Engine) -> None:
    improper = [s.name for s in problem.latents() if not s.proper]
    if improper:
        raise ValueError(
            f"model: sites {improper} have improper priors, which no parameters can be drawn from; give them "
            "proper ones."
        )
    free = [p for p in problem.params if p not in problem.model.fixed_params]
    if free:
        raise ValueError(
            f"model: params {free} have no prior, so there is nothing to draw them from; hold them at values "
            "with lvm.condition(model, fit)."
        )
    reason = engine.check(problem)
    if reason:
        raise ValueError(f"{type(engine).__name__}: {reason}.")


def _check_quantities(asked: Sequence[str] | None, problem: Problem, truth: dict[str, np.ndarray]) -> None:
    """Names of sites, of invariants and of their entries are known; asked before anything runs."""
    if asked is None:
        return
    if isinstance(asked, str) or not asked:
        raise TypeError(f"quantities: expected a list of names, got {asked!r}.")
    derived = invariants_at(problem.model, {k: v[None] for k, v in truth.items()})
    values = {**{k: truth[k] for k in compared_sites(problem)}, **{k: v[0] for k, v in derived.items()}}
    arrays = {k: np.asarray(v)[None, None] for k, v in values.items()}
    named = chain_dataset(problem, arrays, kind="prior", event_dims=problem.model.dims)
    known = {*values, *DENSITIES}
    every = known | {
        entry_label(v, index) for v in named.data_vars.values() for index in np.ndindex(*v.shape[2:])
    }
    unknown = [q for q in asked if q not in every]
    if unknown:
        raise ValueError(f"quantities: no {unknown}; there are {sorted(known)}, and their entries.")


__all__ = ["Calibration", "calibrate"]
