"""What a guide of the JAX side is.

Each offers ``init(key)``, ``draw(params, key, data)`` -> (z, log q) in unconstrained space and
``log_prob(params, z, data)``; all are pure, so that they can be vmapped over particles. ``log q`` is a
pair as in ``Density.log_joint``: what lies outside the data plate, and (n,) inside it or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl_lvm.backends.density import Tree

Drawn = tuple[Tree, tuple[Any, Any | None]]
Draw = Callable[[Tree, Any, Tree], Drawn]


class Guide(NamedTuple):
    """A family of densities on unconstrained space; ``constrain`` maps params for storing.

    ``splits`` says that log q comes split over the data plate. ``image`` gives what ``draw`` gives at the
    same arguments for noise of the other sign; None where a family has no Gaussian noise."""

    init: Callable[[Any], Tree]
    draw: Draw
    log_prob: Callable[[Tree, Tree, Tree], Any]
    constrain: Callable[[Tree], Tree]
    unconstrain: Callable[[Tree], Tree]
    splits: bool = False
    image: Draw | None = None


def symmetric(draw: Draw, centre: Callable[[Tree, Tree], Tree]) -> Draw:
    """Images of draws that are symmetric about ``centre(params, data)``: 2 * centre - z, of equal log q."""

    def image(params: Tree, key: Any, data: Tree) -> Drawn:
        z, log_q = draw(params, key, data)
        return jax.tree_util.tree_map(lambda c, v: 2 * c - v, centre(params, data), z), log_q

    return image


def standard_log_prob(noise: Any) -> Any:
    """Log density of standard normal noise, a scalar."""
    return -0.5 * (noise**2 + jnp.log(2 * jnp.pi)).sum()


def identity(tree: Tree) -> Tree:
    return tree
