"""What the command line says, and where."""

from __future__ import annotations

import sys

NAME = "ppl_lvm"


class BadInput(Exception):
    """Something that the user has to change; the message is one line."""


def one_line(error: BaseException) -> str:
    """An error's message on one line; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def complain(text: str) -> None:
    sys.stderr.write(f"{NAME}: {text}\n")
    sys.stderr.flush()


def progress(text: str, *, quiet: bool = False) -> None:
    """A line on standard error, where bars go too."""
    if not quiet:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def result(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


__all__ = ["NAME", "BadInput", "complain", "one_line", "progress", "result"]
