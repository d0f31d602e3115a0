"""The course of a run in steps: when it has settled, where averages of its params begin, the best restart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.core import Outcome, Status
from ppl_lvm.engines._checkpoint import Checkpoint
from ppl_lvm.engines._convergence import Watch

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI


class Course:
    """Histories of the restarts of a run (one, as a rule), and where averaging began (None: not yet).

    Averaging of iterates (Polyak and Juditsky 1992; for variational inference Dhaka et al. 2020) begins when
    the objective has settled, at the latest after half of the steps, and lasts as long as what was before.
    """

    def __init__(self, engine: SVI, total: int, num_restarts: int, size: int) -> None:
        """``size`` is the number of coordinates that are fitted."""
        self.engine, self.total = engine, total
        self.watches = [Watch(engine.window, engine.tolerance, size) for _ in range(num_restarts)]
        self.alive = np.ones(num_restarts, bool)
        self.begin: int | None = None

    @property
    def done(self) -> int:
        return len(self.watches[0].losses)

    @property
    def settled(self) -> bool:
        """Whether the objective of every restart stands still."""
        return all(w.settled for w, alive in zip(self.watches, self.alive, strict=True) if alive)

    @property
    def ended(self) -> bool:
        if self.done >= self.total:
            return True
        if self.engine.average:
            return self.engine.early_stop and self.begin is not None and self.done >= 2 * self.begin
        return self.engine.early_stop and self.settled

    @property
    def mark(self) -> int | None:
        """The step whose params those at the end are compared with: on minibatches, a window before the last
        step, or half way through the averages; None where that is not known yet."""
        if self.engine.batch_size is None:
            return None
        if not self.engine.average:
            return self.total - max(self.engine.window, self.total // 10)
        if self.begin is None:
            return None
        end = min(self.total, 2 * self.begin) if self.engine.early_stop else self.total
        return (self.begin + end) // 2

    @property
    def compared(self) -> int:
        """At how many batches; beside the run these are few."""
        return min(max(self.engine.window, self.total // 20), max(10, self.total // 5))

    def block(self) -> int:
        """Steps till the stopping rule is asked: windows end at their multiples, wherever a run starts."""
        window, half = self.engine.window, self.total // 2
        ends = [self.total, self.done + window - self.done % window]
        if self.engine.average and self.begin is None:
            ends.append(half)
        ends.append(self.mark or 0)
        return min(end - self.done for end in ends if end > self.done)

    def add(self, losses: np.ndarray, checkpoint: Checkpoint | None) -> None:
        """Losses of the next steps by restart; raises where no restart is left whose losses are finite."""
        finite = np.isfinite(losses).all(1)
        if not (self.alive & finite).any():
            raise ValueError(self._broken(losses[np.flatnonzero(self.alive)[0]], checkpoint))
        self.alive &= finite
        for watch, found in zip(self.watches, losses, strict=True):
            watch.add(found)
        if self.done % self.engine.window == 0:
            for watch in self._living():
                watch.check()
        if self.engine.average and self.begin is None and (self.settled or 2 * self.done >= self.total):
            self.begin = self.done

    def _living(self) -> list[Watch]:
        return [w for w, alive in zip(self.watches, self.alive, strict=True) if alive]

    def _broken(self, losses: np.ndarray, checkpoint: Checkpoint | None) -> str:
        first = int(np.flatnonzero(~np.isfinite(losses))[0])
        kept = ""
        if checkpoint is not None and checkpoint.path.exists():
            kept = f" The last good checkpoint stays in {checkpoint.path.parent}."
        return (
            f"SVI: the objective became {losses[first]} (NaN or infinite) at step {self.done + first + 1}; "
            f"lower learning_rate (now {self.engine.learning_rate:g}), pass init=, or check the data's scale."
            + kept
        )

    # ---- at the end ------------------------------------------------------------------------------

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The objective of each restart in its last window, and its error; NaN for those that broke off."""
        levels = np.array([w.level() for w in self.watches])
        levels[~self.alive] = np.nan
        return -levels[:, 0], levels[:, 1]

    def best(self) -> int:
        if len(self.watches) == 1:
            return 0
        return int(np.nanargmax(self._bounds()[0]))

    def restarts(self, best: int) -> dict[str, Any]:
        """``bound`` and ``error`` by restart (nats), and which is ``kept``; nothing for a single run."""
        if len(self.watches) == 1:
            return {}
        bounds, errors = self._bounds()
        return {"bound": bounds.tolist(), "error": errors.tolist(), "kept": best}

    def status(self, best: int, gains: np.ndarray | None = None) -> Status:
        status = self.watches[best].status(gains)
        details = dict(status.details)
        if self.begin is not None:
            details["averaged_steps"] = float(self.done - self.begin)
        outcome = status.outcome if self.ended else Outcome.INTERRUPTED
        messages = (*status.messages, *self._disagreement(best)) if self.ended else self._disagreement(best)
        return dataclasses.replace(status, outcome=outcome, details=details, messages=messages)

    def _disagreement(self, best: int) -> tuple[str, ...]:
        """What to say of restarts that ended elsewhere: lower by more than the tolerance and three errors."""
        if len(self.watches) == 1:
            return ()
        bounds, errors = self._bounds()
        gaps = bounds[best] - bounds
        lower = gaps > np.maximum(self.engine.tolerance, 3 * np.hypot(errors, errors[best]))
        said = []
        if lower.any():
            said.append(
                f"{int(lower.sum())} of {len(gaps)} restarts ended lower, by up to {gaps[lower].max():.1f} "
                "nats: the objective has several optima, and the highest found is kept"
            )
        if not self.alive.all():
            said.append(f"{int((~self.alive).sum())} of {len(gaps)} restarts broke off (NaN)")
        return tuple(said)

    # ---- checkpoints -----------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        return {"quiet": [w.quiet for w in self.watches], "begin": self.begin}

    def restore(self, losses: np.ndarray, record: Mapping[str, Any]) -> None:
        for watch, found, quiet in zip(self.watches, losses, record["quiet"], strict=True):
            watch.add(found)
            watch.quiet = int(quiet)
        self.alive = np.isfinite(losses).all(1)
        self.begin = record["begin"]
