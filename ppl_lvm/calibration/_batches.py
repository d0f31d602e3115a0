"""Simulations of NUTS in batches, each in one compiled program: for accelerators."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.calibration._simulate import Task, draw_truth, fit_and_rank, seed_words, simulate
from ppl_lvm.core import Engine, Problem, Run
from ppl_lvm.engines.nuts import NUTS, chain_status
from ppl_lvm.fitting import prepare
from ppl_lvm.result import Fit, chain_dataset

SIZE = 64
"""Simulations in one program: each has to wait for the longest trajectory of all."""


@dataclass(frozen=True, eq=False)
class Drawn(Engine):
    """Draws that are there already, so that ``fit`` does with them what it does with any."""

    engine: NUTS
    values: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]

    def check(self, problem: Problem) -> str | None:
        return self.engine.check(problem)

    def backend_for(self, problem: Problem) -> str:
        return "numpyro"

    def run(self, problem: Problem, run: Run) -> Fit:
        return Fit(
            model=problem.model,
            engine=self.engine,
            backend="numpyro",
            problem=problem,
            draws=chain_dataset(problem, self.values, kind="chain"),
            sample_stats=chain_dataset(None, self.stats, kind="chain"),
            status=chain_status(self.stats),
        )


def in_batches(task: Task) -> bool:
    """Whether simulations should share a program: on an accelerator, or with chain_method="vectorized"."""
    if not isinstance(task.engine, NUTS):
        return False
    from ppl_lvm.engines._jax_nuts_many import together

    return together(task.engine, prepare(task.model, task.data, dtype=task.dtype))


def simulate_batch(task: Task, numbers: list[int]) -> list[dict[str, Any]]:
    """The records of some simulations; one by one where a batch is not possible."""
    from ppl_lvm.engines._jax_nuts_many import sample_many

    engine: Any = task.engine
    started = time.perf_counter()
    words = [seed_words(task, i) for i in numbers]
    try:
        simulated = [draw_truth(task, w[0]) for w in words]
        problems = [prepare(task.model, raw, dtype=task.dtype) for _, raw in simulated]
        drawn = sample_many(engine, problems, [Run(w[1], task.init) for w in words])
        records = [
            fit_and_rank(task, Drawn(engine, values, stats), truth, raw, w)
            for (values, stats), (truth, raw), w in zip(drawn, simulated, words, strict=True)
        ]
    except Exception:  # whichever simulation it was, by itself it is reported and the others go on
        return [simulate(task, i) for i in numbers]
    seconds = (time.perf_counter() - started) / len(numbers)
    return [{**r, "error": "", "seconds": seconds} for r in records]
