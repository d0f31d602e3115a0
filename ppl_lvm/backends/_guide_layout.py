"""Where each site stands in the vectors of a guide that treats the data plate's sites by datum.

g (num_outer,) holds the sites outside the data plate, u (n, num_inner) those inside it, a row for each datum,
in unconstrained space. Both libraries' arrays are taken; ``moveaxis`` is the library's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ppl_lvm.backends._dependences import Dependences
from ppl_lvm.core import Problem

Moved = Callable[[Any, int, int], Any]


class Part(NamedTuple):
    """A site's unconstrained shape, its axis along the data (None outside the plate), and its coordinates."""

    name: str
    shape: tuple[int, ...]
    axis: int | None
    begin: int
    width: int

    @property
    def others(self) -> tuple[int, ...]:
        """The shape of one datum's value."""
        return self.shape if self.axis is None else self.shape[: self.axis] + self.shape[self.axis + 1 :]


@dataclass(frozen=True)
class Layout:
    """``free`` (2, m) are rows and columns, below the diagonal, of g's triangular matrix that may differ from
    0; ``shared`` are the coordinates of g that a datum's depend on."""

    parts: tuple[Part, ...]
    num_outer: int
    num_inner: int
    num_data: int
    free: np.ndarray
    shared: np.ndarray

    @property
    def below(self) -> np.ndarray:
        """Rows and columns below the diagonal of a datum's block, (2, m)."""
        return np.stack(np.tril_indices(self.num_inner, -1))

    def by_site(self, moveaxis: Moved, g: Any, u: Any) -> dict[str, Any]:
        """Vectors (*head, num_outer) and (*head, n, num_inner) as values (*head, *shape), n as in u."""
        out = {}
        for part in self.parts:
            if part.axis is None:
                value = g[..., part.begin : part.begin + part.width]
                out[part.name] = value.reshape((*value.shape[:-1], *part.shape))
                continue
            value = u[..., part.begin : part.begin + part.width]
            head = len(value.shape) - 2
            value = value.reshape((*value.shape[:-1], *part.others))
            out[part.name] = moveaxis(value, head, head + part.axis)
        return out

    def vectors(self, xp: Any, z: Mapping[str, Any]) -> tuple[Any, Any]:
        """The inverse; None in place of a vector without coordinates."""
        outer, inner = [], []
        for part in self.parts:
            value = z[part.name]
            head = len(value.shape) - len(part.shape)
            if part.axis is None:
                outer.append(value.reshape((*value.shape[:head], part.width)))
                continue
            value = xp.moveaxis(value, head + part.axis, head)
            inner.append(value.reshape((*value.shape[: head + 1], part.width)))
        return (xp.concatenate(outer, -1) if outer else None), (xp.concatenate(inner, -1) if inner else None)


def layout_of(problem: Problem, shapes: Mapping[str, tuple[int, ...]], found: Dependences) -> Layout:
    """``shapes`` are the sites' unconstrained ones."""
    parts, at = [], {True: 0, False: 0}
    for site in problem.latents(discrete=False):
        frame = next((p for p in site.plates if p.name == problem.data_plate), None)
        axis = None
        if site.name in found.inner and frame is not None and frame.dim is not None:
            axis = len(site.batch_shape) + frame.dim
        shape = tuple(shapes[site.name])
        own = Part(site.name, shape, axis, at[axis is None], 0)
        width = math.prod(own.others)
        parts.append(own._replace(width=width))
        at[axis is None] += width
    outer = {p.name: np.arange(p.begin, p.begin + p.width) for p in parts if p.axis is None}
    mask = np.zeros((at[True], at[True]), bool)
    for name, parents in zip(found.outer, found.parents, strict=True):
        for other in (*parents, name):
            mask[np.ix_(outer[name], outer[other])] = True
    shared = [outer[name] for name in found.shared]
    return Layout(
        parts=tuple(parts),
        num_outer=at[True],
        num_inner=at[False],
        num_data=problem.num_data or 0,
        free=np.stack(np.nonzero(np.tril(mask, -1))),
        shared=np.concatenate(shared) if shared else np.zeros(0, int),
    )


__all__ = ["Layout", "Part", "layout_of"]
