"""``python -m ppl_lvm``: fit, compare and report from the command line (:mod:`ppl_lvm.command_line`)."""

from __future__ import annotations

import os
import sys

from ppl_lvm.command_line import main


def run() -> int:
    """The command of this process, in a process of its own; returns the exit code."""
    # Threads of torch beside other work spin: one is faster for small data. Set before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return main()


if __name__ == "__main__":
    sys.exit(run())
