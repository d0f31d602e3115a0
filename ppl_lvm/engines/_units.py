"""A run made of units (searches, paths, blocks of draws, runs of particles): checkpoints and Ctrl-C.

What a unit gives depends on the run's settings and its own number only, so that a run that takes some units
from its checkpoint gives the same bits as one that was not stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ppl_lvm.core import Engine, Outcome, Problem, Run, Status
from ppl_lvm.engines._checkpoint import Checkpoint, digest
from ppl_lvm.engines._identity import identity
from ppl_lvm.engines._interrupt import Interrupt, interruptible
from ppl_lvm.progress import bar

_LOG = logging.getLogger("ppl_lvm")
Arrays = dict[str, np.ndarray]


class Units:
    """The units of a run: those of its checkpoint, and those that are computed now."""

    def __init__(self, engine: Engine, problem: Problem, run: Run, params: Arrays, stop: Interrupt) -> None:
        self.engine, self.stop, self.progress = engine, stop, run.progress
        self.stopped = ""
        folder = getattr(engine, "checkpoint", None)
        self._checkpoint: Checkpoint | None = None
        if folder is not None:
            own = {**identity(engine, problem, run, ()), "params": digest(params)}
            self._checkpoint = Checkpoint(folder, own)
        self._kept: dict[str, Arrays] = {} if self._checkpoint is None else self._checkpoint.parts()
        if self._kept:
            _LOG.info("resumed %s with %d finished units", folder, len(self._kept))

    def one(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> Arrays:
        """A unit's arrays, by name: of the checkpoint, or computed and written to it."""
        if name not in self._kept:
            self._kept[name] = {k: np.asarray(v) for k, v in compute().items()}
            if self._checkpoint is not None:
                self._checkpoint.save_part_or_warn(name, self._kept[name], "the run")
        return self._kept[name]

    def each(
        self, kind: str, num: int, compute: Callable[[int], Mapping[str, Any]], *, least: int = 1
    ) -> list[Arrays]:
        """``num`` units of a kind, with a bar; fewer, but at least ``least``, where the user stops the run.

        Raises
        ------
        KeyboardInterrupt
            In words, if the run is stopped before ``least`` are there.
        """
        found: list[Arrays] = []
        with bar(num, type(self.engine).__name__, self.progress) as tick:
            for i in range(num):
                if self.stops(kind, len(found), num, least):
                    break
                found.append(self.one(f"{kind} {i}", functools.partial(compute, i)))
                tick(1)
        return found

    def stops(self, kind: str, done: int, num: int, least: int = 1) -> bool:
        """Whether the user asked the run to stop; raises as :meth:`each` does where too few are there."""
        if not self.stop.requested:
            return False
        kept = "; the checkpoint has what was done" if self._checkpoint is not None else ""
        if done < least:
            raise KeyboardInterrupt(
                f"{type(self.engine).__name__}: stopped after {done} of {num} {kind}s, too few for a "
                f"result{kept}"
            )
        self.stopped = f"stopped by the user: {done} of {num} {kind}s are in this result{kept}"
        return True

    def status(self, status: Status) -> Status:
        """The status of a run, or that it was stopped."""
        if not self.stopped:
            return status
        messages = (*status.messages, self.stopped)
        return dataclasses.replace(status, outcome=Outcome.INTERRUPTED, messages=messages)


@contextlib.contextmanager
def units_of(engine: Engine, problem: Problem, run: Run, params: Arrays) -> Iterator[Units]:
    """The units of a run whose params are held; within, the first Ctrl-C ends it after the unit it is in.

    Raises
    ------
    ValueError
        If the engine's ``checkpoint`` folder cannot be written to, or holds another run.
    """
    with interruptible() as stop:
        yield Units(engine, problem, run, params, stop)
