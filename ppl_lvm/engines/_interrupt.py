"""Ctrl-C asks a long run to stop where it can; a second one stops it at once."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

_LOG = logging.getLogger("ppl_lvm")


class Interrupt:
    """Whether the user asked the run to stop."""

    requested = False


@contextlib.contextmanager
def interruptible(*, alone: bool = True) -> Iterator[Interrupt]:
    """Within, the first SIGINT sets ``requested``; outside the main thread, which has no signals, nothing.

    A process that is not ``alone`` is left to end as any program does: if it stopped by itself, the others
    would wait for it.
    """
    state = Interrupt()
    if not alone or threading.current_thread() is not threading.main_thread():
        yield state
        return
    before: Any = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        del number, frame
        if state.requested:
            raise KeyboardInterrupt
        state.requested = True
        _LOG.warning("stopping after the current block; press Ctrl-C again to stop at once")

    signal.signal(signal.SIGINT, ask)
    try:
        yield state
    finally:
        signal.signal(signal.SIGINT, before)
