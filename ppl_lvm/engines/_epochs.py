"""Training by epochs: what is the same on both backends.

A :class:`Trainer` takes steps and evaluates; :func:`train` owns the order of the data, schedules, validation,
early stopping, checkpoints, progress, interrupts, and what is said when numbers stop being finite. All
randomness of an epoch comes from the seed and the epoch's number, so that a run that is resumed after an
epoch goes on as if it had not been stopped.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ppl_lvm.core import Outcome, Problem, Run, Status
from ppl_lvm.engines._checkpoint import Checkpoint
from ppl_lvm.engines._identity import identity
from ppl_lvm.engines._interrupt import Interrupt, interruptible
from ppl_lvm.engines._schedules import learning_rates, weights_at
from ppl_lvm.engines._shares import is_first
from ppl_lvm.progress import bar

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI

_LOG = logging.getLogger("ppl_lvm")
Arrays = dict[str, np.ndarray]
PARTS = ("objective", "bound", "log_lik", "kl")


class Trainer(Protocol):
    """Optimiser steps and evaluation on one backend; figures are nats per datum."""

    def epoch(
        self, seed: int, order: np.ndarray, rates: np.ndarray, betas: np.ndarray, stop: Interrupt
    ) -> np.ndarray:
        """One step for each row of ``order`` (steps, b); ``PARTS`` of the steps done, (steps, 4)."""

    def validate(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """The bound of each of ``rows``, (m,)."""

    def arrays(self) -> Arrays:
        """Params and the optimiser's state, exactly."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Back to what :meth:`arrays` gave."""

    def params(self) -> Arrays:
        """Constrained params by name."""


@dataclass
class History:
    """What happened so far; ``steps`` (s, 4) as in ``PARTS``, the others one number per epoch."""

    steps: list[np.ndarray] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    betas: list[float] = field(default_factory=list)
    best: Arrays = field(default_factory=dict)
    best_epoch: int = 0

    @property
    def num_epochs(self) -> int:
        return len(self.steps)


def split_rows(engine: SVI, problem: Problem, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows held out for validation."""
    n = problem.num_data or 0
    held = round(n * engine.validation) if engine.validation else 0
    order = run.rng(31).permutation(n) if held else np.arange(n)
    return np.sort(order[held:]), np.sort(order[:held])


def train(
    engine: SVI, problem: Problem, run: Run, trainer: Trainer, label: str
) -> tuple[Arrays, Status, History]:
    """Run the epochs; the params at the end (the best ones, where there is a validation set)."""
    rows, held = split_rows(engine, problem, run)
    size = min(int(engine.batch_size or 0), len(rows))
    plan = _Plan(engine, run, rows, held, size)
    history, checkpoint = _resumed(engine, problem, run, trainer)
    outcome, seconds = Outcome.OK, time.perf_counter()
    with (
        interruptible(alone=not engine.distributed) as stop,
        bar(plan.total, f"SVI ({label})", run.progress) as tick,
    ):
        tick(history.num_epochs * plan.steps)
        while history.num_epochs < plan.epochs:
            if _out_of_patience(engine, history):
                outcome = Outcome.CONVERGED
                break
            _one_epoch(plan, trainer, history, checkpoint, stop, tick)
            if stop.requested:
                outcome = Outcome.INTERRUPTED
                break
            last = history.num_epochs == plan.epochs
            if (
                checkpoint is not None
                and is_first(engine)
                and (last or history.num_epochs % engine.checkpoint_every == 0)
            ):
                _save(checkpoint, trainer, history)
    params = history.best if history.best else trainer.params()
    details = {"epochs": float(history.num_epochs), "steps": float(sum(len(s) for s in history.steps))}
    if history.validation:
        details |= {"best_epoch": float(history.best_epoch), "validation_bound": max(history.validation)}
    seconds = time.perf_counter() - seconds
    done = sum(len(s) for s in history.steps) * size
    details["rows_per_second"] = round(done / seconds, 1) if seconds > 0 else 0.0
    return params, Status(outcome, details), history


class _Plan:
    """Numbers of steps and epochs, and the order of rows in each."""

    def __init__(self, engine: SVI, run: Run, rows: np.ndarray, held: np.ndarray, size: int) -> None:
        self.engine, self.run, self.rows, self.held, self.size = engine, run, rows, held, size
        self.steps = len(rows) // size
        self.epochs = int(engine.num_epochs or 0)
        self.total = self.steps * self.epochs

    def order(self, epoch: int) -> np.ndarray:
        """(steps, b): the rows in random order; those that do not fill a batch wait for another epoch."""
        drawn = np.random.default_rng([self.run.seed, 32, epoch]).permutation(self.rows)
        return drawn[: self.steps * self.size].reshape(self.steps, self.size)

    def rates(self, epoch: int) -> np.ndarray:
        e: Any = self.engine
        first = epoch * self.steps
        settings = (e.learning_rate, e.learning_rate_decay, e.schedule, e.warmup_steps)
        return learning_rates(*settings, first, self.steps, self.total)

    def betas(self, epoch: int) -> np.ndarray:
        return weights_at(getattr(self.engine.objective, "beta", 1.0), epoch, self.steps)

    def word(self, epoch: int) -> int:
        return int(np.random.SeedSequence([self.run.seed, 33, epoch]).generate_state(1)[0] >> 1)


def _one_epoch(
    plan: _Plan, trainer: Trainer, history: History, checkpoint: Checkpoint | None, stop: Interrupt, tick: Any
) -> None:
    epoch = history.num_epochs
    order, rates, betas = plan.order(epoch), plan.rates(epoch), plan.betas(epoch)
    parts = trainer.epoch(plan.word(epoch), order, rates, betas, stop)
    _check_finite(plan, parts, order, epoch, checkpoint)
    history.steps.append(parts)
    history.rates.append(float(rates[-1]))
    history.betas.append(float(betas[-1]))
    note = "bound {1:.2f} = {2:.2f} - KL {3:.2f} nats a datum".format(*parts.mean(0)) if len(parts) else ""
    if len(plan.held):
        bounds = trainer.validate(plan.held, plan.word(-1 % 2**31))
        history.validation.append(float(bounds.mean()))
        note += f", validation {history.validation[-1]:.2f}"
        if history.validation[-1] >= max(history.validation):
            history.best, history.best_epoch = trainer.params(), epoch + 1
    tick(len(parts), note)


def _out_of_patience(engine: SVI, history: History) -> bool:
    return (
        engine.patience is not None
        and bool(history.validation)
        and history.num_epochs - history.best_epoch >= engine.patience
    )


def _check_finite(
    plan: _Plan, parts: np.ndarray, order: np.ndarray, epoch: int, checkpoint: Checkpoint | None
) -> None:
    bad = np.flatnonzero(~np.isfinite(parts).all(1))
    if not bad.size:
        return
    step = int(bad[0])
    rows = ", ".join(map(str, order[step][:8])) + (", ..." if plan.size > 8 else "")
    kept = "" if checkpoint is None else f" The last good checkpoint stays in {checkpoint.path.parent}."
    raise ValueError(
        f"SVI: the objective became NaN or infinite at step {step + 1} of epoch {epoch + 1} (rows {rows}); "
        f"lower learning_rate (now {plan.engine.learning_rate:g}), set clip_norm, or check the scale of "
        f"these rows.{kept}"
    )


# ---- checkpoints -----------------------------------------------------------------------------------


def _left_out(engine: SVI) -> tuple[str, ...]:
    """Settings that may change when a run goes on."""
    if engine.learning_rate_decay == 1:  # the plan so far does not depend on how long the run is
        return ("patience", "num_epochs")
    return ("patience",)


def _resumed(engine: SVI, problem: Problem, run: Run, trainer: Trainer) -> tuple[History, Checkpoint | None]:
    if engine.checkpoint is None:
        return History(), None
    checkpoint = Checkpoint(engine.checkpoint, identity(engine, problem, run, _left_out(engine)))
    found = checkpoint.load()
    if found is None:
        return History(), checkpoint
    arrays, record = found
    trainer.restore({k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")})
    best = {k.removeprefix("best/"): v for k, v in arrays.items() if k.startswith("best/")}
    steps = np.split(arrays["history/steps"], np.cumsum(record["steps"])[:-1]) if record["steps"] else []
    history = History(
        list(steps), record["validation"], record["rates"], record["betas"], best, int(record["best_epoch"])
    )
    _LOG.info("resumed %s after epoch %d", checkpoint.path, history.num_epochs)
    return history, checkpoint


def _save(checkpoint: Checkpoint, trainer: Trainer, history: History) -> None:
    arrays = {f"state/{k}": v for k, v in trainer.arrays().items()}
    arrays |= {f"best/{k}": v for k, v in history.best.items()}
    arrays["history/steps"] = np.concatenate(history.steps)
    record = {
        "steps": [len(s) for s in history.steps],
        "validation": history.validation,
        "rates": history.rates,
        "betas": history.betas,
        "best_epoch": history.best_epoch,
    }
    checkpoint.save_or_warn(arrays, record, "training")


def starting_params(problem: Problem, run: Run, known: Mapping[str, np.ndarray]) -> Arrays:
    """Where params start: the programs' own values, the model's draw, or ``init`` (a fit or values by name).

    Raises
    ------
    ValueError
        For names or shapes in ``init`` that the programs do not have.
    """
    rng = np.random.default_rng([run.seed, 34])
    drawn = problem.model.initial_params(problem.arguments, rng) or {}
    given = getattr(run.init, "params", run.init) or {}
    unknown = sorted(set(given) - set(known)) if isinstance(run.init, Mapping) else []
    if unknown:
        raise ValueError(f"init: unknown params {unknown}; the programs have {sorted(known)}.")
    out: Arrays = {}
    for name, value in known.items():
        chosen = np.asarray(given.get(name, drawn.get(name, value)))
        if chosen.shape != np.shape(value):
            raise ValueError(f"init: {name!r} has shape {chosen.shape}, and {np.shape(value)} in this model.")
        if not np.isfinite(chosen).all():
            raise ValueError(f"init: {name!r} has NaN or infinite values.")
        out[name] = chosen
    return out


def mean_error(values: np.ndarray) -> float:
    """Standard error of the mean of independent values."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
