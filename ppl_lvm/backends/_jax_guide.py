"""What a guide of the JAX side is.

Each offers ``init(key)``, ``draw(params, key, data)`` -> (z, log q) in unconstrained space and
``log_prob(params, z, data)``; all are pure, so that they can be vmapped over particles. ``log q`` is a
pair as in ``Density.log_joint``: what lies outside the data plate, and (n,) inside it or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from ppl_lvm.backends.density import Tree


class Guide(NamedTuple):
    """A family of densities on unconstrained space; ``constrain`` maps params for storing.

    ``splits`` says that log q comes split over the data plate. ``centre(params, data)`` is what draws are
    symmetric about, None where they are not: 2 * centre - z has z's density."""

    init: Callable[[Any], Tree]
    draw: Callable[[Tree, Any, Tree], tuple[Tree, tuple[Any, Any | None]]]
    log_prob: Callable[[Tree, Tree, Tree], Any]
    constrain: Callable[[Tree], Tree]
    unconstrain: Callable[[Tree], Tree]
    splits: bool = False
    centre: Callable[[Tree, Tree], Tree] | None = None


def standard_log_prob(noise: Any) -> Any:
    """Log density of standard normal noise, a scalar."""
    return -0.5 * (noise**2 + jnp.log(2 * jnp.pi)).sum()


def identity(tree: Tree) -> Tree:
    return tree
