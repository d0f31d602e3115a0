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
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ppl_lvm.core import Outcome, Problem, Run, Status
from ppl_lvm.engines._checkpoint import Arrays, Checkpoint, save_or_warn
from ppl_lvm.engines._convergence import Watch
from ppl_lvm.engines._identity import identity
from ppl_lvm.engines._interrupt import Interrupt, interruptible
from ppl_lvm.progress import bar

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI

_LOG = logging.getLogger("ppl_lvm")


class Stepper(Protocol):
    """Optimiser steps on one backend."""

    def steps(self, first: int, count: int, stop: Interrupt) -> np.ndarray:
        """Take steps ``first``, ``first + 1``, ...; their losses (negative bounds, nats).

        Fewer than ``count`` (and at least one) after an interrupt, or if the last one is not finite.
        """

    def arrays(self) -> Arrays:
        """Params, the optimiser's state and that of random generators, exactly."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Back to what :meth:`arrays` gave; raises ``ValueError`` if the params are not those."""


def take_steps(
    engine: SVI, problem: Problem, run: Run, stepper: Stepper, label: str
) -> tuple[Status, list[float]]:
    """Run until the steps are done, the stopping rule is met or the user interrupts."""
    total, watch = engine.steps_for(problem), Watch(engine.window, engine.tolerance)
    checkpoint = _resumed(engine, problem, run, stepper, watch)
    stopped = False
    with interruptible() as stop, bar(total, f"SVI ({label})", run.progress) as tick:
        tick(len(watch.losses))
        while len(watch.losses) < total and not (engine.early_stop and watch.settled):
            done = len(watch.losses)
            # blocks end at multiples of the window, wherever they start: the stopping rule is asked there
            losses = stepper.steps(done, min(engine.window - done % engine.window, total - done), stop)
            _check_finite(engine, losses, done, checkpoint)
            watch.add(losses)
            if len(watch.losses) % engine.window == 0:
                watch.check()
            tick(len(losses), f"bound {-losses.mean():.2f} nats")
            blocks = len(watch.losses) // engine.window
            stopped = stop.requested and len(watch.losses) < total
            ended = stopped or len(watch.losses) >= total or (engine.early_stop and watch.settled)
            if checkpoint is not None and (ended or blocks % engine.checkpoint_every == 0):
                _save(checkpoint, stepper, watch)
            if stopped:
                break
    status = watch.status()
    if stopped and not (engine.early_stop and watch.settled):
        status = dataclasses.replace(status, outcome=Outcome.INTERRUPTED)
    return status, watch.losses


def _check_finite(engine: SVI, losses: np.ndarray, done: int, checkpoint: Checkpoint | None) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if not bad.size:
        return
    kept = ""
    if checkpoint is not None and checkpoint.path.exists():
        kept = f" The last good checkpoint stays in {checkpoint.path.parent}."
    raise ValueError(
        f"SVI: the objective became {losses[bad[0]]} (NaN or infinite) at step {done + int(bad[0]) + 1}; "
        f"lower learning_rate (now {engine.learning_rate:g}), pass init=, or check the data's scale.{kept}"
    )


def _resumed(engine: SVI, problem: Problem, run: Run, stepper: Stepper, watch: Watch) -> Checkpoint | None:
    """The run's checkpoint, with the stepper and the history brought to where it stands."""
    if engine.checkpoint is None:
        return None
    # the steps so far hang on the number of steps only through the decay of their sizes
    left_out = ("num_steps", "num_epochs") if engine.learning_rate_decay == 1 else ()
    checkpoint = Checkpoint(engine.checkpoint, identity(engine, problem, run, left_out))
    found = checkpoint.load()
    if found is None:
        return checkpoint
    arrays, record = found
    stepper.restore({k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")})
    watch.add(arrays["history/losses"])
    watch.quiet = int(record["quiet"])
    _LOG.info("resumed %s after step %d", checkpoint.path, len(watch.losses))
    return checkpoint


def _save(checkpoint: Checkpoint, stepper: Stepper, watch: Watch) -> None:
    arrays: dict[str, Any] = {f"state/{k}": v for k, v in stepper.arrays().items()}
    arrays["history/losses"] = np.asarray(watch.losses, dtype=float)
    save_or_warn(checkpoint, arrays, {"quiet": watch.quiet})


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
