"""Why a translation disagrees with Pyro: the program is run again and watched for the usual causes.

Tracing cannot see what leaves torch (NumPy, lists), what hides a gradient (``no_grad``, a custom backward) or
what changes between calls. The check finds that there is a difference; this finds the line.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from ppl_lvm.backends.translate._program import Program
from ppl_lvm.backends.translate._recorder import user_line

Point = Mapping[str, np.ndarray]
Evaluate = Callable[[Point], float]

_TORCH = str(Path(torch.__file__).parent)
# Frames between a user's line and the function that it called.
_FILES = ("_tensor.py", "overrides.py", "utils/_contextlib.py", "autograd/grad_mode.py")
_THIN = (*(str(Path(_TORCH, file)) for file in _FILES), str(Path(__file__).resolve()))
_LEAVES = ("numpy", "__array__", "tolist", "item", "__float__", "__int__", "__index__", "__bool__")
_SHAPES = ("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount")
_MOST_NAMED = 3


def likely_cause(
    program: Program, points: Sequence[Point], rest: Sequence[torch.Tensor], value: Evaluate
) -> str:
    """The cause in words with its source line, or nothing where none was found.

    ``value`` is Pyro's log density at a point; ``points`` are such where that is finite.
    """
    first, again = value(points[0]), value(points[0])
    if first != again and not (math.isnan(first) and math.isnan(again)):
        return (
            f"the program's own log density at one and the same point was {first:.6g} in one call and "
            f"{again:.6g} in the next: it keeps state between calls, or draws random numbers outside of "
            "torch; make it a function of its arguments and sites alone"
        )
    first_seen, *others = [_watched(program, p, rest) for p in (points[0], *_moved(points[0]))]
    found = list(dict.fromkeys(text for other in others for text in _dependent(first_seen, other)))
    return "likely cause: " + "; ".join(found[:_MOST_NAMED]) if found else ""


def _moved(point: Point) -> list[Point]:
    """Two other points, to both sides: what is compared with a latent comes out differently at one."""
    return [{k: a * np.asarray(v) + b for k, v in point.items()} for a, b in ((-1.3, 0.3), (0.5, -0.6))]


def _dependent(one: list[tuple[str, Any]], other: list[tuple[str, Any]]) -> Iterator[str]:
    """What was seen, without values that are the same at both points: they are data's, and harmless."""
    same_course = [text for text, _ in one] == [text for text, _ in other]
    for at, (text, value) in enumerate(one):
        if value is None or not same_course or not np.array_equal(value, other[at][1], equal_nan=True):
            yield text


def _watched(program: Program, point: Point, rest: Sequence[torch.Tensor]) -> list[tuple[str, Any]]:
    values = [torch.tensor(np.asarray(point[name])) for name in program.layout.sites]
    watch = _Watch()
    # What was seen before the program fails counts.
    with watch, _custom_functions(watch.seen), contextlib.suppress(Exception):
        program.evaluate((*values, *rest))
    return watch.seen


class _Watch(TorchFunctionMode):
    """Notes calls on a user's lines by which a value or a gradient is lost: (text, value or None)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = _loss(getattr(func, "__name__", ""), args)
        line = _line_of_caller() if found is not None else ""
        if found is not None and line:
            text, value = found
            self.seen.append((f"{text} ({line})", value))
        return func(*args, **(kwargs or {}))


def _loss(name: str, args: Any) -> tuple[str, Any] | None:
    if name == "_set_grad_enabled" and args and args[0] is False:
        return "torch.no_grad() hides a gradient; leave it out, or detach() what is to be constant", None
    own = args[0] if args else None
    if name in _LEAVES and isinstance(own, torch.Tensor):
        return "a value leaves torch, as to NumPy or a list; use torch's own functions", _copy(own)
    if name in _SHAPES and isinstance(own, torch.Tensor):
        return f"a shape depends on values by {name}; keep the shape and use torch.where", _copy(own)
    if name == "tensor" and isinstance(own, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in own):
        copied = torch.cat([v.detach().reshape(-1).double() for v in own if isinstance(v, torch.Tensor)])
        return "torch.tensor([...]) copies values; use torch.stack", copied.numpy()
    return None


def _copy(value: torch.Tensor) -> Any:
    with torch.no_grad(), torch._C.DisableTorchFunction():
        return value.detach().clone().numpy()


@contextlib.contextmanager
def _custom_functions(seen: list[tuple[str, Any]]) -> Iterator[None]:
    """Note applications of a user's own ``torch.autograd.Function``."""
    own: Any = torch.autograd.Function.__dict__["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not cls.__module__.startswith(("pyro.", "torch.")):
            text = f"backward of the autograd function {cls.__name__} is not the derivative of its forward"
            seen.append((f"{text}; correct it, or let torch differentiate ({user_line()})", None))
        return own.__get__(None, cls)(*args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        torch.autograd.Function.apply = own  # type: ignore[method-assign]


def _line_of_caller() -> str:
    """The user's line, unless a library called on its own account."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_THIN):
        frame = frame.f_back
    inside = ("pyro", "torch", "ppl_lvm")
    if frame is None or frame.f_globals.get("__name__", "").split(".")[0] in inside:
        return ""
    return user_line()
