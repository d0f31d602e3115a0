"""The restarts of an EM, which a caller may take from elsewhere (a checkpoint) or end early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Recall = Callable[[int, Callable[[], Any], Callable[[dict[str, Any]], Any]], Any]


def restart(
    recall: Recall | None, number: int, run: Callable[[], Any], make: Callable[[dict[str, Any]], Any]
) -> Any | None:
    """``run()``, or ``recall(number, run, make)`` in its place, where ``make`` takes the fields of a run.

    None ends the restarts.
    """
    return run() if recall is None else recall(number, run, make)
