"""What the sites of a NumPyro program are, and whether they are those of the Pyro program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import ImproperUniform, biject_to
from numpyro.primitives import Messenger

from ppl_lvm.backends.density import Tree
from ppl_lvm.core import Problem


class ImproperOrigin(Messenger):
    """Give sites that cannot be drawn from (improper priors) the origin of their support."""

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "sample" and msg["value"] is None and _improper(msg["fn"]):
            transform = biject_to(msg["fn"].support)
            msg["value"] = transform(jnp.zeros(transform.inverse_shape(msg["fn"].shape())))


def _improper(fn: Any) -> bool:
    return isinstance(getattr(fn, "base_dist", fn), ImproperUniform)


def trace_of(model: Callable, data: Tree) -> dict[str, Any]:
    with ImproperOrigin():
        return handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(**data)


class Sites:
    """What the sites of a NumPyro program are; known once ``look`` was traced."""

    def __init__(self, problem: Problem, model: Callable) -> None:
        self.problem, self.model = problem, model
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.supports: dict[str, str] = {}
        self.local: tuple[str, ...] = ()
        self.enumerable = self.improper = self.has_params = False

    def look(self, data: Tree) -> dict[str, tuple[Any, Any]]:
        """To be compiled: random points of either support, by site, for ``check_supports``."""
        trace = trace_of(self.model, data)
        free = {n: s for n, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}
        latent = {n: s for n, s in free.items() if not is_discrete(s)}
        _check_twin(self.problem, latent)
        self.shapes = {
            n: tuple(biject_to(s["fn"].support).inverse_shape(jnp.shape(s["value"])))
            for n, s in latent.items()
        }
        self.supports = {n: str(s["fn"].support) for n, s in latent.items()}
        self.local = tuple(n for n, s in latent.items() if _in_plate(s, self.problem.data_plate))
        self.enumerable = len(latent) < len(free)
        self.improper = any(_improper(s["fn"]) for s in latent.values())
        self.has_params = any(s["type"] == "param" for s in trace.values())
        return _points_of_supports(self.problem, latent)


def frame_of(site: Mapping[str, Any], plate: str | None) -> Any | None:
    return next((f for f in site["cond_indep_stack"] if f.name == plate), None)


def _in_plate(site: Mapping[str, Any], plate: str | None) -> bool:
    return plate is not None and frame_of(site, plate) is not None


def is_discrete(site: Mapping[str, Any]) -> bool:
    return bool(getattr(site["fn"].support, "is_discrete", False))


def _points_of_supports(problem: Problem, latent: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """By site: whether random points of Pyro's support lie in the twin's, and random points of the twin's."""
    import torch
    from torch.distributions import biject_to as torch_biject_to

    rng, found = np.random.default_rng(0), {}
    for site in problem.latents(discrete=False):
        if site.constraint is None:
            continue
        theirs, ours = latent[site.name]["fn"].support, torch_biject_to(site.constraint)
        free = 2 * rng.standard_normal((20, *ours.inverse_shape(torch.Size(site.shape))))
        here = np.asarray(ours(torch.from_numpy(free)))
        other = biject_to(theirs)
        free = 2 * rng.standard_normal((20, *other.inverse_shape(site.shape)))
        found[site.name] = jnp.all(theirs(jnp.asarray(here))), other(jnp.asarray(free))
    return found


def check_supports(
    problem: Problem, supports: Mapping[str, str], points: Mapping[str, tuple[Any, Any]]
) -> None:
    """Random points of either support must lie in the other."""
    import torch

    for site in problem.latents(discrete=False):
        if site.name not in points:
            continue
        inside, there = points[site.name]
        theirs = torch.from_numpy(np.array(there, dtype=np.float64))
        if not (bool(inside) and bool(site.constraint.check(theirs).all())):
            raise ValueError(
                f"numpyro: site {site.name!r} has the support {supports[site.name]} in the twin and "
                f"{site.support} in the Pyro program; they must be the same."
            )


def _check_twin(problem: Problem, latent: Mapping[str, Any]) -> None:
    ours = {s.name: s.shape for s in problem.latents(discrete=False)}
    theirs = {n: tuple(jnp.shape(s["value"])) for n, s in latent.items()}
    if set(ours) != set(theirs):
        raise ValueError(
            f"numpyro: the twin's continuous latent sites are {sorted(theirs)}, the Pyro program's "
            f"{sorted(ours)}; they must be the same."
        )
    for name, shape in ours.items():
        if shape != theirs[name]:
            raise ValueError(
                f"numpyro: site {name!r} has shape {theirs[name]} in the twin and {shape} in the Pyro "
                "program; they must be the same."
            )
