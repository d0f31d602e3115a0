"""Optimiser steps in blocks: what is the same on both backends.

A :class:`Stepper` takes steps; :func:`take_steps` owns the stopping rule, checkpoints, progress, interrupts
and what is said when the objective stops being finite. A step's randomness comes from the seed and the
step's number, or from a state that the stepper saves, so that a run that is resumed after any step goes on as
if it had not been stopped.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ppl_lvm.core import Problem, Run, Status
from ppl_lvm.engines._checkpoint import Arrays, Checkpoint
from ppl_lvm.engines._course import Course
from ppl_lvm.engines._identity import identity
from ppl_lvm.engines._interrupt import Interrupt, interruptible
from ppl_lvm.engines._shares import is_first
from ppl_lvm.progress import bar
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI

_LOG = logging.getLogger("ppl_lvm")


class Stepper(Protocol):
    """Optimiser steps of one run, or of restarts that are taken together, on one backend."""

    num_restarts: int
    marked: Any  # what `mark` has kept; empty before

    def steps(self, first: int, count: int, begin: int | None, stop: Interrupt) -> np.ndarray:
        """Take steps ``first``, ``first + 1``, ...; losses (negative bounds, nats) by restart, (k, count).

        Fewer than ``count`` (and at least one) after an interrupt, or if the last one is not finite. From
        step ``begin`` on the mean of the params is kept beside them.
        """

    def place(self) -> np.ndarray:
        """Where the params are, unconstrained and flat, (k, size)."""

    def mark(self) -> None:
        """Remember the params (the means that are kept beside them, if any) as they are."""

    def gains(self, first: int, count: int) -> np.ndarray:
        """By how much the params (means) are better now than when they were marked: differences of losses at
        the batches of steps ``first``, ``first + 1``, ..., with equal draws; nats by restart, (k, count)."""

    def finish(self, best: int, averaged: bool) -> None:
        """Keep one restart, with the mean of its params in their place if it is there."""

    def arrays(self) -> Arrays:
        """Params, the optimiser's state and that of random generators, exactly."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Back to what :meth:`arrays` gave; raises ``ValueError`` if the params are not those."""


class Taken(NamedTuple):
    """How the steps ended, the losses of the run that is kept, and figures of all restarts."""

    status: Status
    losses: list[float]
    restarts: dict[str, Any]

    def record(self, fit: Fit) -> Fit:
        """The fit with the restarts in its ``meta``."""
        return (
            dataclasses.replace(fit, meta={**fit.meta, "restarts": self.restarts}) if self.restarts else fit
        )


def take_steps(engine: SVI, problem: Problem, run: Run, stepper: Stepper, label: str) -> Taken:
    """Run until the steps are done, the stopping rule is met or the user interrupts."""
    course = Course(engine, engine.steps_for(problem), stepper.num_restarts, _num_coordinates(problem))
    checkpoint = _resumed(engine, problem, run, stepper, course)
    with (
        interruptible(alone=not engine.distributed) as stop,
        bar(course.total, f"SVI ({label})", run.progress) as tick,
    ):
        tick(course.done)
        if course.mark is not None and 0 < course.mark <= course.done and not stepper.marked:
            stepper.mark()  # a run of a single window, which has no mark, goes on for longer
        while not course.ended:
            losses = stepper.steps(course.done, course.block(), course.begin, stop)
            if course.ends_window(losses.shape[1]):
                course.at(stepper.place(), losses.shape[1])
            course.add(losses, checkpoint)
            if course.done == course.mark:
                stepper.mark()
            tick(losses.shape[1], f"bound {-np.nanmin(losses.mean(1)):.2f} nats")
            stopped = stop.requested and not course.ended
            if (
                checkpoint is not None
                and is_first(engine)
                and (stopped or course.ended or course.done // engine.window % engine.checkpoint_every == 0)
            ):
                _save(checkpoint, stepper, course)
            if stopped:
                break
    best = course.best()
    gains = None
    if course.ended and course.mark is not None and 0 < course.mark < course.done:
        gains = stepper.gains(course.done, course.compared)[best]
    stepper.finish(best, course.begin is not None)
    return Taken(course.status(best, gains), course.watches[best].losses, course.restarts(best))


def _num_coordinates(problem: Problem) -> int:
    latents = problem.latents(discrete=False)
    return sum(int(np.prod(s.shape)) for s in latents) + len(problem.params)


def _resumed(engine: SVI, problem: Problem, run: Run, stepper: Stepper, course: Course) -> Checkpoint | None:
    """The run's checkpoint, with the stepper and the history brought to where it stands."""
    if engine.checkpoint is None:
        return None
    # the steps so far hang on their number only through the decay of their sizes, and where averages begin
    free = engine.learning_rate_decay == 1 and not engine.average
    left_out = ("num_steps", "num_epochs") if free else ()
    checkpoint = Checkpoint(engine.checkpoint, identity(engine, problem, run, left_out))
    found = checkpoint.load()
    if found is None:
        return checkpoint
    arrays, record = found
    stepper.restore({k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")})
    course.restore(arrays["history/losses"], arrays.get("history/place"), record)
    _LOG.info("resumed %s after step %d", checkpoint.path, course.done)
    return checkpoint


def _save(checkpoint: Checkpoint, stepper: Stepper, course: Course) -> None:
    arrays: dict[str, Any] = {f"state/{k}": v for k, v in stepper.arrays().items()}
    arrays["history/losses"] = np.array([w.losses for w in course.watches], dtype=float)
    if course.place is not None:
        arrays["history/place"] = course.place
    checkpoint.save_or_warn(arrays, course.record(), "the run")


def check_same_params(found: Mapping[str, np.ndarray], own: Mapping[str, Any], prefix: str) -> None:
    """Raise where a checkpoint's params have other names or shapes than the program's."""
    theirs = {k.removeprefix(prefix): np.shape(v) for k, v in found.items() if k.startswith(prefix)}
    ours = {k: tuple(np.shape(v)) for k, v in own.items()}
    if theirs != ours:
        changed = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
        raise ValueError(
            f"checkpoint: it holds another run (params {changed} have other names or shapes); give the same "
            "model and guide, or another folder."
        )
