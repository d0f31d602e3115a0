"""Progress bars: one style, shown on a terminal, silent elsewhere unless asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator

logger = logging.getLogger("ppl_lvm")


def wanted(progress: bool | None) -> bool:
    """What ``progress=None`` means: a bar on a terminal or in a notebook, none in CI."""
    if progress is not None:
        return progress
    if os.environ.get("CI"):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextlib.contextmanager
def bar(total: int, label: str, show: bool) -> Iterator[Callable[..., None]]:
    """A callable ``tick(steps, note="")`` that moves a bar of ``total`` steps."""
    if not show:
        yield lambda steps, note="": None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=label, leave=True, dynamic_ncols=True, unit="step") as shown:

        def tick(steps: int, note: str = "") -> None:
            if note:
                shown.set_postfix_str(note, refresh=False)
            shown.update(steps)

        yield tick
