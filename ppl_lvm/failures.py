"""What other libraries say when a run fails, in words of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import CodeType
from typing import Any

from ppl_lvm.core import AbstractModel

_NO_MEMORY = ("can't allocate memory", "not enough memory", "RESOURCE_EXHAUSTED", "Unable to allocate")


def in_our_words(error: Exception, model: AbstractModel) -> str | None:
    """A sentence for what a run ended in; None where the words are ours already, or the fault is.

    It speaks of what a user can change: the program, its data and starting values, and the size of the run.
    """
    said, who = str(error), model.describe()
    if isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY):
        return f"{who}: not enough memory for this run; ask for fewer draws, particles or rows at a time."
    if "cannot find valid initial params" in said:
        return (
            f"{who}: no starting point with a finite density was found; pass init= with values that the data "
            "allow, and check the data against the supports of the sites they are observed at."
        )
    if said.startswith("Error while computing log_prob"):
        return (
            f"{who}: {_one_line(said)}; check the data against the supports of the sites they are observed "
            "at, or pass init= with values that they allow."
        )
    if isinstance(error, ValueError) and said.startswith("Expected "):
        return f"{who}: {_one_line(said)}; check the scales of data and priors, or pass init=."
    if _within(error, model):
        return (
            f"{who}: {type(error).__name__} at values that were tried: {_one_line(said)}; check the data's "
            "types and shapes against the program."
        )
    return None


def check_labels(dims: Any, coords: Any) -> None:
    """Raise ``TypeError`` unless names and labels of dimensions are mappings of sequences."""
    for name, given in (("dims", dims), ("coords", coords)):
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise TypeError(f"{name}: expected a mapping by name, got {given!r}.")
        for key, value in given.items():
            if isinstance(value, str) or not (isinstance(value, Sequence) or getattr(value, "ndim", 0) == 1):
                raise TypeError(f"{name}[{key!r}]: expected a sequence, got {value!r}.")


def _within(error: Exception, model: AbstractModel) -> bool:
    """Whether the error comes out of a user's program, or of the log density of one of its sites."""
    if model.to_settings() is not None:
        return False
    programs = [f for p in (model.pyro, model.numpyro) if p is not None for f in (p.model, p.guide)]
    codes = {code for f in programs if (code := _code(f)) is not None}
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code in codes or (code.co_name == "log_prob" and "distributions" in code.co_filename):
            return True
        trace = trace.tb_next
    return False


def _code(program: Any) -> CodeType | None:
    function = getattr(program, "forward", program)
    found: CodeType | None = getattr(getattr(function, "__func__", function), "__code__", None)
    return found


def _one_line(text: str, most: int = 300) -> str:
    """Without line breaks, and without the values that torch prints."""
    line = " ".join(text.partition("but found invalid values")[0].split()).rstrip(", ")
    return line if len(line) <= most else line[:most] + " ..."
