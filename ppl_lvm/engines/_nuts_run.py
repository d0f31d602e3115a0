"""A run of chains in blocks of iterations: checkpoints, Ctrl-C, and what an unfinished run gives.

A run is one or more :class:`Part`\\ s that advance on their own (a chain in a thread, all chains of a vmapped
program, the chains of a block of data). Each has a checkpoint of its own, in a folder below the one that the
user named. The random numbers of an iteration do not depend on the blocks around it, so that a run in
blocks, one that is stopped and one that is resumed give the same draws.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._checkpoint import Checkpoint, digest
from ppl_lvm.engines._interrupt import Interrupt, interruptible
from ppl_lvm.progress import bar

if TYPE_CHECKING:
    from ppl_lvm.engines.chees import ChEES
    from ppl_lvm.engines.nuts import NUTS

_LOG = logging.getLogger("ppl_lvm")
Arrays = dict[str, np.ndarray]
_SECONDS = 0.2  # a block's length: how long Ctrl-C waits
_FIRST = 16  # iterations


class Part(Protocol):
    """Chains that advance together."""

    def advance(self, first: int, last: int) -> None:
        """Iterations ``first`` to ``last``, warm-up counted."""

    def arrays(self, kept: int) -> tuple[Arrays, dict[str, Any]]:
        """The whole state, with the first ``kept`` draws, as arrays and a JSON record, exactly."""

    def restore(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> float:
        """Back to what :meth:`arrays` gave; how far the log density of this model is off there (relative)."""


class Drawn(NamedTuple):
    """What came out: values by site and statistics, each (chain, draw, ...), warm-up's steps (chain,),
    and, where the user stopped the run, a sentence that says what is there."""

    values: Arrays
    stats: Arrays
    warmup_steps: np.ndarray
    stopped: str = ""


class Blocks:
    """The run of all parts: settings, the user's wish to stop, checkpoints and the progress bar."""

    def __init__(
        self, engine: NUTS | ChEES, problem: Problem, run: Run, params: Arrays, stop: Interrupt
    ) -> None:
        self.engine, self.stop = engine, stop
        self.total = engine.num_warmup + engine.num_samples
        self.tick: Callable[..., None] = lambda steps: None
        self._dtype = problem.dtype
        self._identity = _identity(engine, problem, run, params)

    def kept(self, done: int) -> int:
        """Kept draws of a part that has done so many iterations."""
        return min(max(done - self.engine.num_warmup, 0), self.engine.num_samples)

    def checkpoint(self, name: str) -> Checkpoint | None:
        """The checkpoint of a part; raises ``ValueError`` where the folder cannot be written to."""
        folder = self.engine.checkpoint
        return None if folder is None else Checkpoint(Path(folder) / name, self._identity)

    def drive(self, part: Part, checkpoint: Checkpoint | None) -> int:
        """Advance a part to the end, or until the user asks to stop; the number of iterations done."""
        done = self._resumed(part, checkpoint)
        self.tick(done)
        size, saved, every = _FIRST, done, self.engine.checkpoint_every
        while done < self.total and not self.stop.requested:
            last = min(done + size, self.total)
            if checkpoint is not None:
                last = min(last, done - done % every + every)
            began = time.perf_counter()
            part.advance(done, last)
            seconds = time.perf_counter() - began
            self.tick(last - done)
            size = _paced(last - done, size, seconds)
            done = last
            if checkpoint is not None and (done % every == 0 or done == self.total):
                saved = self._saved(part, checkpoint, done)
        if checkpoint is not None and done > saved:
            self._saved(part, checkpoint, done)
        return done

    def _resumed(self, part: Part, checkpoint: Checkpoint | None) -> int:
        found = checkpoint.load() if checkpoint is not None else None
        if checkpoint is None or found is None:
            return 0
        arrays, record = found
        done = int(record["done"])
        try:
            off = part.restore(arrays, record)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"checkpoint: {checkpoint.path} does not fit this version's sampler ({error}); remove it to "
                "start again."
            ) from None
        if not off < (1e-6 if self._dtype == "float64" else 1e-3):
            raise ValueError(
                f"checkpoint: {checkpoint.path.parent} holds another run (the log density at its last point "
                f"differs by {off:.1e} of its size, so the program is not the same); give another folder."
            )
        _LOG.info("resumed %s after iteration %d", checkpoint.path, done)
        return min(done, self.total)

    def _saved(self, part: Part, checkpoint: Checkpoint, done: int) -> int:
        arrays, record = part.arrays(self.kept(done))
        checkpoint.save_or_warn(arrays, {**record, "done": done}, "sampling")
        return done

    def longest(self, done: Sequence[int]) -> tuple[list[int], int, str]:
        """Which chains to return, how many draws of each, and a sentence where that is not all of them.

        Chains that have advanced unequally are cut to one length: the one that keeps the most draws.

        Raises
        ------
        KeyboardInterrupt
            In words, if no chain has kept a draw.
        """
        engine = self.engine
        counts = [self.kept(d) for d in done]
        if min(counts) == engine.num_samples:
            return list(range(len(counts))), engine.num_samples, ""
        if max(counts) == 0:
            raise KeyboardInterrupt(
                f"{type(engine).__name__}: stopped in warm-up, after {max(done)} of {engine.num_warmup} "
                "iterations; there are no draws yet" + self._advice()
            )
        length = max(set(counts) - {0}, key=lambda n: n * sum(c >= n for c in counts))
        chains = [i for i, c in enumerate(counts) if c >= length]
        if engine.num_starts and len(chains) < len(counts):  # one of each start, as if each had its own
            chains = list({i % engine.num_starts: i for i in reversed(chains)}.values())[::-1]
        return (
            chains,
            length,
            f"stopped with {length} of {engine.num_samples} draws in {len(chains)} of {len(counts)} "
            f"chains{self._advice()}",
        )

    def _advice(self) -> str:
        if self.engine.checkpoint is None:
            return ""
        return f"; fit again with checkpoint={self.engine.checkpoint!r} to go on"


@contextmanager
def blocks(
    engine: NUTS | ChEES, problem: Problem, run: Run, params: Arrays, total: int, label: str = "NUTS"
) -> Iterator[Blocks]:
    """A run of ``total`` steps of the progress bar, which Ctrl-C stops after a block."""
    with interruptible() as stop, bar(total, label, run.progress) as tick:
        found, lock = Blocks(engine, problem, run, params, stop), threading.Lock()

        def safe_tick(steps: int) -> None:  # chains in threads move one bar
            with lock:
                tick(steps)

        found.tick = safe_tick
        yield found


def refuse_others(engine: NUTS | ChEES, problem: Problem, run: Run, params: Arrays) -> None:
    """Say at once, before anything is compiled, that a folder holds another run or cannot be written to."""
    if engine.checkpoint is None:
        return
    identity = _identity(engine, problem, run, params)
    Checkpoint(engine.checkpoint, identity).refuse_others()
    for path in sorted(Path(engine.checkpoint).glob("*/checkpoint.safetensors")):
        Checkpoint(path.parent, identity).refuse_others()


def _paced(done: int, size: int, seconds: float) -> int:
    """The next block's length: about ``_SECONDS``, and at most four times the last one's."""
    if done < size:  # cut short by a checkpoint: it says little
        return size
    return max(1, min(4 * size, int(done * _SECONDS / max(seconds, 1e-9))))


def _identity(engine: NUTS | ChEES, problem: Problem, run: Run, params: Arrays) -> dict[str, Any]:
    """What must be the same for a run to go on. A longer run has the same beginning."""
    if engine.checkpoint is None:
        return {}
    left_out = {"checkpoint", "checkpoint_every", "num_samples", "backend"}
    own = {f.name: getattr(engine, f.name) for f in dataclasses.fields(engine) if f.name not in left_out}
    return {
        **own,
        "engine": type(engine).__name__,
        "backend": engine.backend_for(problem),
        "model": problem.model.to_settings() or problem.model.describe(),
        "sites": [(s.name, s.shape, s.support) for s in problem.latents(discrete=False)],
        "seed": run.seed,
        "dtype": problem.dtype,
        "data": digest(problem.data.values),
        "params": digest({k: np.asarray(v) for k, v in params.items()}),
        "init": _init_digest(run.init),
    }


def _init_digest(init: Any) -> str:
    if init is None:
        return "none"
    if isinstance(init, Mapping):
        return digest({k: np.asarray(v) for k, v in init.items()})
    draws = {} if init.draws is None else {f"draws/{k}": v.values for k, v in init.draws.items()}
    return digest({**{k: np.asarray(v) for k, v in init.params.items()}, **draws})


def relative(found: Any, stored: Any) -> float:
    """The largest difference of log densities, as a share of one plus their size; infinite where NaN."""
    found, stored = np.asarray(found, dtype=float), np.asarray(stored, dtype=float)
    off = np.abs(found - stored) / (1.0 + np.abs(stored))
    return float(np.max(np.where(np.isnan(off), np.inf, off)))
