"""The narrow waist of the JAX side: a log density as pure functions of unconstrained values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Tree = Mapping[str, Any]


class Param(NamedTuple):
    """A ``param`` statement: where it starts, and the maps between its support and unconstrained values."""

    start: Any
    constrain: Callable[[Any], Any]
    unconstrain: Callable[[Any], Any]


@dataclass(frozen=True)
class Density:
    """A joint log density of unconstrained values z, with data and parameters as arguments.

    All functions are pure and may be jitted, differentiated and vmapped. ``z`` maps site names to
    arrays of ``shapes``; ``data`` holds the array arguments of the program, ``params`` the values of
    its ``param`` statements. Discrete sites are summed out, Jacobians of the transforms included.

    Attributes
    ----------
    log_joint
        (z, data, params) -> (log density outside the data plate, (n,) inside it). The second part is
        None where the source cannot split, and then the first is the total.
    log_prior
        (z, data, params) -> log density of the latent sites alone.
    sample_prior
        (key, data, params) -> z, or None for improper priors, and where only ``draw_prior`` is there.
    draw_prior
        (seed, num, params) -> z with a leading axis, on the host at the data at hand (a translated program
        draws by Pyro), or None.
    constrain, unconstrain
        (z | values, data, params) -> values by site in their supports, and back.
    log_jacobian
        (z, data, params) -> log absolute determinant of the map from z to the constrained values.
    site_jacobians
        The same by site, in the sites' batch shapes.
    shapes
        Unconstrained shapes by site, in the order of the program.
    local
        Sites inside the data plate.
    params
        The program's ``param`` statements that are free to be optimised.
    """

    key: Any
    log_joint: Callable[[Tree, Tree, Tree], tuple[Any, Any | None]]
    log_prior: Callable[[Tree, Tree, Tree], Any]
    sample_prior: Callable[[Any, Tree, Tree], Tree] | None
    constrain: Callable[[Tree, Tree, Tree], Tree]
    unconstrain: Callable[[Tree, Tree, Tree], Tree]
    log_jacobian: Callable[[Tree, Tree, Tree], Any]
    site_jacobians: Callable[[Tree, Tree, Tree], Mapping[str, Any]]
    shapes: Mapping[str, tuple[int, ...]]
    local: tuple[str, ...] = ()
    draw_prior: Callable[[int, int, Mapping[str, Any]], Tree] | None = None
    params: Mapping[str, Param] = field(default_factory=dict)

    def total(self, z: Tree, data: Tree, params: Tree) -> Any:
        """The whole log density, a scalar."""
        rest, per_datum = self.log_joint(z, data, params)
        return rest if per_datum is None else rest + per_datum.sum()

    def compile_slope(self) -> Any:
        """Jitted (flat, data, params) -> (log density or NaN if anything is not finite, gradient)."""
        import jax
        import jax.numpy as jnp

        def slope_at(flat: Any, data: Tree, params: Tree) -> Any:
            value, slope = jax.value_and_grad(lambda f: self.total(self.unflatten(f), data, params))(flat)
            return jnp.where(jnp.isfinite(value) & jnp.isfinite(slope).all(), value, jnp.nan), slope

        return jax.jit(slope_at)

    @property
    def size(self) -> int:
        """Number of unconstrained coordinates."""
        return sum(_prod(shape) for shape in self.shapes.values())

    def unflatten(self, flat: Any) -> dict[str, Any]:
        """A vector (size,) as z."""
        out, at = {}, 0
        for name, shape in self.shapes.items():
            width = _prod(shape)
            out[name] = flat[at : at + width].reshape(shape)
            at += width
        return out

    def flatten(self, z: Tree) -> Any:
        """z as a vector (size,); of NumPy arrays a NumPy array."""
        if all(isinstance(z[name], np.ndarray) for name in self.shapes):
            return np.concatenate([np.ravel(z[name]) for name in self.shapes])
        import jax.numpy as jnp

        return jnp.concatenate([jnp.ravel(z[name]) for name in self.shapes])


def _prod(shape: tuple[int, ...]) -> int:
    out = 1
    for size in shape:
        out *= size
    return out
