"""The copies of a point under a model's finite symmetries: orders of labels, orders and signs of factors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np

from ppl_lvm import relabel, rotation
from ppl_lvm.core import AbstractModel, Problem, Rotation

Values = Mapping[str, np.ndarray]
Copy = Callable[[Values], Values]

MOST = 120
"""Copies beyond which averaging over them is refused (5! orders of labels)."""
_ELSEWHERE = "use lvm.SMC() or lvm.AIS(), whose particles come from the prior and cover all of them"


def copies(problem: Problem, values: Values) -> list[Copy]:
    """Maps of values (s, ...) to each of their copies of equal density, the identity first.

    All preserve volume in constrained space (they permute entries and flip signs).

    Raises
    ------
    ValueError
        If there are more than 120, or the symmetry is a continuum, in words.
    """
    labels = _label_copies(problem.model, values)
    turns = _turn_copies(problem, values)
    if len(labels) * len(turns) > MOST:
        raise ValueError(
            f"fit: {problem.model.describe()} has {len(labels) * len(turns)} equal modes, and a bridge "
            f"averages over at most {MOST}; {_ELSEWHERE}."
        )
    return [lambda v, a=a, b=b: a(b(v)) for a in labels for b in turns]  # type: ignore[misc]  # defaults bind


def _same(values: Values) -> Values:
    return values


def _label_copies(model: AbstractModel, values: Values) -> list[Copy]:
    axes = model.label_axes
    if not axes:
        return [_same]
    k = relabel.num_labels(axes, values)
    _check_count(math.factorial(k), f"{k}! orders of the labels", model)
    orders = [np.array(o) for o in itertools.permutations(range(k))]
    return [lambda v, o=o: relabel.permute(v, axes, o) for o in orders]  # type: ignore[misc]  # defaults bind


def _turn_copies(problem: Problem, values: Values) -> list[Copy]:
    """Of factors: one where the sampled coordinates know no turn (triangular, positive diagonal)."""
    found, model = problem.model.rotation, problem.model
    if found is None:
        return [_same]
    free = {s.name for s in problem.latents(discrete=False)}
    turned = free & {*found.axes, *found.permuted}
    if not turned:
        if found.kind != "orthogonal":
            raise ValueError(
                f"fit: the factors of {model.describe()} may change their signs, and the "
                f"sampled sites {sorted(free & set(model.internal_sites))} are not turned with them, so that "
                f"a bridge from these draws may miss modes; {_ELSEWHERE}."
            )
        return [_same]
    q = np.asarray(values[found.by]).shape[-1]
    if found.kind == "orthogonal" and q > 1:
        raise ValueError(
            f"fit: {sorted(turned)} of {model.describe()} may be turned by any rotation, a continuum of "
            f"copies that no finite average covers; {_ELSEWHERE}."
        )
    return [_turn_copy(found, matrix) for matrix in _group(found.kind, q, model)]


def _turn_copy(found: Rotation, matrix: np.ndarray) -> Copy:
    def copy(values: Values) -> Values:
        size = len(values[found.by])
        return rotation.turn(values, found, np.broadcast_to(matrix, (size, *matrix.shape)))

    return copy


def _group(kind: str, q: int, model: AbstractModel) -> list[np.ndarray]:
    """Matrices (q, q) of the group, the identity first: 2^q signs, times q! orders where they are free."""
    permuted = kind == "signed_permutation"
    count = 2**q * (math.factorial(q) if permuted else 1)
    _check_count(count, f"{count} orders and signs of the factors", model)
    orders = list(itertools.permutations(range(q))) if permuted else [tuple(range(q))]
    signs = list(itertools.product((1.0, -1.0), repeat=q))
    return [np.eye(q)[:, list(o)] * np.array(s) for o in orders for s in signs]


def _check_count(count: int, what: str, model: AbstractModel) -> None:
    if count > MOST:
        raise ValueError(
            f"fit: {model.describe()} has {what}, {count} equal modes, and a bridge averages over at "
            f"most {MOST}; {_ELSEWHERE}."
        )


__all__ = ["MOST", "copies"]
