"""Many simulations by any executor, each result kept as it comes; what fails is a result too."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from typing import Any

from ppl_lvm.calibration._batches import SIZE, in_batches, simulate_batch
from ppl_lvm.calibration._simulate import NoDrawsError, Task, simulate

Keep = Callable[[int, dict[str, Any]], None]


def run_all(task: Task, numbers: Iterable[int], executor: Executor | None, threads: bool, keep: Keep) -> None:
    """Run simulations and hand each to ``keep`` when it is finished.

    Without an executor: in batches of one program each on accelerators, else by threads where ``threads``
    says that these help. In threads the first simulation goes alone, so that the program is compiled once.
    """
    waiting = list(numbers)
    if executor is None and threads and in_batches(task):
        for first in range(0, len(waiting), SIZE):
            batch = waiting[first : first + SIZE]
            for number, record in zip(batch, simulate_batch(task, batch), strict=True):
                keep(number, record)
        return
    if executor is None and (not threads or len(waiting) < 2):
        for number in waiting:
            keep(number, simulate(task, number))
        return
    if executor is None or isinstance(executor, ThreadPoolExecutor):
        for first in waiting[:1]:
            keep(first, simulate(task, first))
        waiting = waiting[1:]
    if isinstance(executor, ProcessPoolExecutor):
        _check_picklable(task)
    if executor is not None:
        _submit(task, waiting, executor, keep)
        return
    with ThreadPoolExecutor(os.cpu_count() or 1) as own:
        _submit(task, waiting, own, keep)


def _submit(task: Task, numbers: list[int], executor: Executor, keep: Keep) -> None:
    futures: dict[Future[dict[str, Any]], int] = {}
    try:
        for i in numbers:
            futures[executor.submit(simulate, task, i)] = i
        for future in as_completed(futures):
            keep(futures[future], _result_of(future))
    finally:
        for future in futures:  # after an error or an interruption; finished ones are left as they are
            future.cancel()


def _result_of(future: Future[dict[str, Any]]) -> dict[str, Any]:
    try:
        return future.result()
    except NoDrawsError:
        raise
    except BrokenExecutor as error:
        raise RuntimeError(
            f"executor: its workers died ({error}); finished simulations are in the checkpoint, if one was "
            "given: run again with a fresh executor, and fewer workers if memory ran out."
        ) from error
    except Exception as error:  # the executor's own word on a task that it gave up
        return {"error": f"{type(error).__name__}: {error}", "seconds": float("nan")}


def _check_picklable(task: Task) -> None:
    try:
        pickle.dumps(task)
    except Exception as error:  # pickling runs the objects' own code
        raise TypeError(
            f"executor: the model, engine or data cannot be sent to another process ({error}); define "
            "functions at the top level of a module, or use threads."
        ) from None
