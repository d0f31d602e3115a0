"""The check that is always on: a translation's value and gradient against Pyro's own at fresh points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ppl_lvm.backends.session import torch_session
from ppl_lvm.backends.translate._errors import TranslationError
from ppl_lvm.backends.translate._program import Program

# Relative to the size of the log density and of the gradient. Rounding, of sums in another order.
TOLERANCE = {"float64": 1e-8, "float32": 2e-3}
NUM_POINTS = 3
_TRIES = 60

Point = Mapping[str, np.ndarray]
ValueAndGradient = Callable[[Point], tuple[float, dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Check:
    """How well a translation agrees with Pyro at ``num_points`` points.

    ``value_error`` and ``gradient_error`` are the largest differences, relative to 1 + the size of Pyro's log
    density and gradient; ``where`` names the site of the largest difference of gradients.
    """

    num_points: int
    value_error: float
    gradient_error: float
    tolerance: float
    where: str = ""

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
    """The program itself, run by Pyro at one point: log density (with Jacobians) and its gradient."""
    z = [torch.tensor(np.asarray(point[name])).requires_grad_() for name in program.layout.sites]
    out = program.evaluate((*z, *rest))
    total = out["rest"] + out["per_datum"].sum() if "per_datum" in out else out["rest"]
    if not total.requires_grad:
        slopes: Sequence[Any] = [None] * len(z)
    else:
        slopes = torch.autograd.grad(total, z, allow_unused=True)
    found = {
        name: np.zeros(tuple(v.shape)) if g is None else g.detach().numpy()
        for name, v, g in zip(program.layout.sites, z, slopes, strict=True)
    }
    return float(total.detach()), found


def compare_at(
    program: Program, points: Sequence[Point], rest: Sequence[torch.Tensor], ours: ValueAndGradient
) -> Check:
    """Both at each point, where Pyro's own value and gradient are finite; points where not are passed over."""
    dtype = program.problem.dtype
    worst_value = worst_slope = 0.0
    where, count = "", 0
    with torch_session(0, dtype):
        for point in points:
            value, slopes = pyro_value_and_gradient(program, point, rest)
            if not _finite(value, slopes):
                continue
            count += 1
            own_value, own_slopes = ours(point)
            worst_value = max(worst_value, _error(own_value, value))
            for name, slope in slopes.items():
                error = _error(own_slopes[name], slope)
                if error > worst_slope:
                    worst_slope, where = error, name
    return Check(count, worst_value, worst_slope, TOLERANCE[dtype], where)


def check(
    program: Program,
    shapes: Mapping[str, tuple[int, ...]],
    rest: Sequence[torch.Tensor],
    ours: ValueAndGradient,
    seed: int,
) -> Check:
    """The comparison at ``NUM_POINTS`` random points (uniform on (-2, 2), nearer to 0 where that is not finite).

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
            f"{program.problem.model.describe()}: Pyro's log density or its gradient is finite at none of {_TRIES} "
            "random points, so the translation cannot be checked; check supports and scales, "
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
    """What a failed check says: the usual causes, value and gradient apart."""
    if found.value_error > found.tolerance:
        cause = (
            "the value differs, as when part of the model leaves torch (NumPy, .item() in a library), keeps "
            "state between calls, or reads a global that has changed"
        )
    else:
        cause = (
            f"the value agrees and the gradient of site {found.where!r} does not, as with a torch.no_grad() "
            "block, .data or a custom autograd function; let torch differentiate the plain computation (or "
            "detach() explicitly)"
        )
    return TranslationError(f"{model}: the translation {found}: {cause}; or run on Pyro with backend='pyro'.")
