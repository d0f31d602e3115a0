"""The check that is always on: a translation's value and gradient against Pyro's own at fresh points."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ppl_lvm.backends.session import torch_session
from ppl_lvm.backends.translate._diagnosis import likely_cause
from ppl_lvm.backends.translate._errors import TranslationError, failed_on_pyro
from ppl_lvm.backends.translate._precision import narrowest, nudged
from ppl_lvm.backends.translate._program import Program

# Relative to the size of the log density and of the gradient. Rounding, of sums in another order.
TOLERANCE = {"float64": 1e-8, "float32": 2e-3}
_ULPS, _NUDGES, _LEAST_DIGITS = 30.0, 4, 1e-3
NUM_POINTS = 3
_TRIES = 60

Point = Mapping[str, np.ndarray]
ValueAndGradient = Callable[[Point], tuple[float, dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Check:
    """How well a translation agrees with Pyro at ``num_points`` points.

    ``value_error`` and ``gradient_error`` are the differences relative to 1 + the size of Pyro's log density
    and gradient, at the point that comes nearest to its limit ``tolerance``; ``where`` names the site of the
    largest difference of gradients there. The limit is wider where Pyro's own figures are less certain: where
    rounding the point differently moves them (see ``compare_at``). ``cause`` says what a failure is due to,
    where that was found.
    """

    num_points: int
    value_error: float
    gradient_error: float
    tolerance: float
    where: str = ""
    cause: str = ""

    @property
    def passed(self) -> bool:
        return max(self.value_error, self.gradient_error) <= self.tolerance

    def __str__(self) -> str:
        word = "agrees" if self.passed else "DISAGREES"
        return (
            f"{word} with Pyro at {self.num_points} points: value to {self.value_error:.1e}, gradient to "
            f"{self.gradient_error:.1e} (relative; limit {self.tolerance:.0e})"
        )


def pyro_value_and_gradient(
    program: Program, point: Point, rest: Sequence[torch.Tensor]
) -> tuple[float, dict[str, np.ndarray]]:
    """The program itself, run by Pyro at one point: log density (with Jacobians) and its gradient.

    Both are NaN where a matrix cannot be factorised, as they are in JAX.

    Raises
    ------
    TranslationError
        If the program cannot be run or differentiated there.
    """
    z = [torch.tensor(np.asarray(point[name])).requires_grad_() for name in program.layout.sites]
    try:
        out = program.evaluate((*z, *rest))
        total = out["rest"] + out["per_datum"].sum() if "per_datum" in out else out["rest"]
        slopes: Sequence[Any] = [None] * len(z)
        if total.requires_grad:
            slopes = torch.autograd.grad(total, z, allow_unused=True)
    except torch.linalg.LinAlgError:
        return math.nan, {name: np.full(np.shape(point[name]), math.nan) for name in program.layout.sites}
    except Exception as error:  # the user's own code: anything can come out of it
        raise failed_on_pyro(program.problem.model.describe(), error) from error
    found = {
        name: np.zeros(tuple(v.shape)) if g is None else g.detach().numpy()
        for name, v, g in zip(program.layout.sites, z, slopes, strict=True)
    }
    return float(total.detach()), found


def compare_at(
    program: Program, points: Sequence[Point], rest: Sequence[torch.Tensor], ours: ValueAndGradient
) -> Check:
    """Both at each point, where Pyro's own value and gradient are finite; points where not are passed over.

    An error beyond the tolerance still passes where it is no larger than ``_ULPS`` times what one unit in the
    last place of the point does to Pyro's own figures (nearly singular matrices: the figures have that few
    digits), and in no case beyond ``_LEAST_DIGITS``.
    """
    dtype = program.problem.dtype
    found = Check(0, 0.0, 0.0, TOLERANCE[dtype])
    finite = []
    with torch_session(0, dtype):
        for point in points:
            pyros = pyro_value_and_gradient(program, point, rest)
            if not _finite(*pyros):
                continue
            finite.append(point)
            errors = _errors_of(ours(point), pyros)
            limit = TOLERANCE[dtype]
            if not max(errors[:2]) <= limit:
                limit = max(limit, min(_ULPS * _uncertainty(program, point, rest, pyros), _LEAST_DIGITS))
            if max(errors[:2]) * found.tolerance >= max(found.value_error, found.gradient_error) * limit:
                found = Check(0, errors[0], errors[1], limit, errors[2])
        cause = "" if found.passed else _cause(program, finite, rest)
    return dataclasses.replace(found, num_points=len(finite), cause=cause)


def _errors_of(ours: tuple[float, dict], theirs: tuple[float, dict]) -> tuple[float, float, str]:
    """Errors of the value and of the gradient, and the site of the latter."""
    slopes = {name: _error(ours[1][name], slope) for name, slope in theirs[1].items()}
    where = max(slopes, key=lambda name: slopes[name], default="")
    return _error(ours[0], theirs[0]), slopes.get(where, 0.0), where


def _uncertainty(
    program: Program, point: Point, rest: Sequence[torch.Tensor], figures: tuple[float, dict]
) -> float:
    """By how much Pyro's own figures move when each coordinate moves by one unit in its last place.

    That is the last place of the least precise type in which the program computes: a ``.float()`` in it makes
    its figures those of float32. Zero for a program that does not even repeat itself: that is no matter of
    rounding.
    """
    rng = np.random.default_rng(0)
    again = pyro_value_and_gradient(program, point, rest)
    worst = 0.0
    if max(_errors_of(again, figures)[:2]) > 0:
        return worst
    dtype = narrowest(program, point, rest)
    for _ in range(_NUDGES):
        moved = pyro_value_and_gradient(program, nudged(point, dtype, rng), rest)
        if _finite(*moved):
            worst = max(worst, *_errors_of(moved, figures)[:2])
    return worst


def _cause(program: Program, points: Sequence[Point], rest: Sequence[torch.Tensor]) -> str:
    return likely_cause(program, points, rest, lambda point: pyro_value_and_gradient(program, point, rest)[0])


def check(
    program: Program,
    shapes: Mapping[str, tuple[int, ...]],
    rest: Sequence[torch.Tensor],
    ours: ValueAndGradient,
    seed: int,
) -> Check:
    """The comparison at ``NUM_POINTS`` random points, uniform on (-2, 2), nearer to 0 if that is not finite.

    Raises
    ------
    TranslationError
        If Pyro's own log density is finite at none of the points tried, so that nothing can be compared.
    """
    rng = np.random.default_rng([seed, 77])
    dtype = program.problem.dtype
    points: list[Point] = []
    with torch_session(0, dtype):
        for attempt in range(_TRIES):
            reach = 2.0 if attempt < _TRIES // 3 else 2.0 * 0.85 ** (attempt - _TRIES // 3)
            point = {k: rng.uniform(-reach, reach, s).astype(dtype) for k, s in shapes.items()}
            if _finite(*pyro_value_and_gradient(program, point, rest)):
                points.append(point)
            if len(points) == NUM_POINTS:
                break
    if not points:
        raise TranslationError(
            f"{program.problem.model.describe()}: Pyro's log density or its gradient is finite at none of "
            f"{_TRIES} random points, so the translation cannot be checked; check supports and scales, "
            "or run on Pyro with backend='pyro' and init= values that the data allow."
        )
    return compare_at(program, points, rest, ours)


def _finite(value: float, slopes: Mapping[str, np.ndarray]) -> bool:
    return math.isfinite(value) and all(np.isfinite(s).all() for s in slopes.values())


def _error(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    if not np.isfinite(ours).all():
        return math.inf
    return float(np.max(np.abs(ours - theirs), initial=0.0) / (1.0 + np.max(np.abs(theirs), initial=0.0)))


def disagreement(model: str, found: Check) -> TranslationError:
    """What a failed check says: the likely cause where one was found, else the usual ones."""
    if found.cause:
        cause = found.cause
    elif found.value_error > found.tolerance:
        cause = (
            "the value differs, as when part of the model leaves torch (NumPy, .item() in a library), keeps "
            "state between calls, or reads a global that has changed"
        )
    else:
        cause = (
            f"the value agrees and the gradient of site {found.where!r} does not, as with a torch.no_grad() "
            "block or a custom autograd function; let torch differentiate the plain computation (or detach() "
            "explicitly)"
        )
    return TranslationError(f"{model}: the translation {found}; {cause}; or run on Pyro with backend='pyro'.")
