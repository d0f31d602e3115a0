"""Models whose data are independent given the params: the log density of one datum, to be mapped over data.

Where every latent is local, log p(x, z) is a sum over data, and each datum may have chains, step sizes and
stopping rules of its own. What an algorithm needs is the density of *one* datum's unconstrained latents (a
vector), with the datum's row of the arguments as an argument of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._numpyro import cached, density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.core import Problem, Site


class Rows(NamedTuple):
    """One datum's density, and the data to map it over.

    ``data`` has the arguments that run along the data, (n, 1, ...) each; ``shared`` the other ones.
    """

    density: Density
    data: dict[str, Any]
    shared: dict[str, Any]
    size: int

    def log_joint(self) -> Callable[[Any, Any, Any, Any], Any]:
        """(flat (d,), row, shared, params) -> log p(x_i, z_i), Jacobians included, a scalar."""
        density = self.density

        def at(flat: Any, row: Any, shared: Any, params: Any) -> Any:
            return density.total(density.unflatten(flat), {**row, **shared}, params)

        return at

    def block(self, first: int, size: int) -> dict[str, Any]:
        """``size`` rows from ``first`` on; past the end the last row is repeated."""
        take = np.arange(first, first + size).clip(max=self.size - 1)
        return {k: v[take] for k, v in self.data.items()}


def independence_reason(problem: Problem) -> str | None:
    """Why the data of a problem cannot be taken one at a time; None if they can."""
    name = problem.model.describe()
    held = problem.model.held_sites
    if problem.data_plate is None or not problem.num_data:
        return f"{name} has no plate over data"
    if not problem.batched:
        return f"{name} has no argument along the data plate; name it in Model(batched=(...))"
    outside = [s.name for s in problem.latents() if not s.local]
    if outside:
        return f"latents {outside} of {name} lie outside the data plate and tie the data together"
    if any(s.discrete for s in problem.latents()) or not problem.latents():
        return f"{name} has discrete latents, or none"
    seen = [s for s in problem.sites.values() if s.kind == "observed" and s.name not in held]
    if not all(s.local for s in seen):
        return f"observed sites {[s.name for s in seen if not s.local]} of {name} lie outside the data plate"
    if any(_axis(s, problem.data_plate) != 0 for s in problem.latents()):
        return f"the data plate of {name} is not the outermost of its latents' dimensions"
    return None


def rows_of(problem: Problem, params: Mapping[str, Any]) -> Rows:
    """The rows of a problem; inside a session of its dtype.

    Raises
    ------
    ValueError
        If the data are not independent given the params, by structure or by value: the densities of a few
        rows on their own must be those of the rows together.
    """
    reason = independence_reason(problem)
    if reason:
        raise ValueError(f"{reason}: its data cannot be taken one at a time.")
    n = int(problem.num_data or 0)
    one, data = density_of(_part(problem, np.arange(1)))
    arrays = {k: np.asarray(v) for k, v in problem.arguments.items() if k in data}
    own = {k: jnp.asarray(v[:, None]) for k, v in arrays.items() if k in problem.batched}
    shared = {k: v for k, v in data.items() if k not in problem.batched}
    found = Rows(one, own, shared, n)
    cached(("independent", one.key), lambda: _check(problem, found, params))
    return found


def _check(problem: Problem, rows: Rows, params: Mapping[str, Any]) -> bool:
    few = min(rows.size, 3)
    whole, data = density_of(_part(problem, np.arange(few)))
    rng = np.random.default_rng(0)
    flat = jnp.asarray(rng.uniform(-1, 1, (few, rows.density.size)), problem.dtype)
    each = [rows.density.unflatten(f) for f in flat]
    z = {k: jnp.concatenate([e[k] for e in each]) for k in rows.density.shapes}
    together = whole.log_joint(z, data, params)[1]
    alone = jax.vmap(rows.log_joint(), in_axes=(0, 0, None, None))(
        flat, rows.block(0, few), rows.shared, params
    )
    close = 1e-3 if problem.dtype == "float32" else 1e-8  # of rounding in sums over the data's entries
    same = together is not None and np.allclose(together, alone, rtol=close, atol=close)
    if not same:
        raise ValueError(
            f"{problem.model.describe()}: the density of a datum changes with the rows beside it (a mean "
            "over rows, or a number of rows in the program), so that its data cannot be taken one at a time."
        )
    return True


def _part(problem: Problem, take: np.ndarray) -> Problem:
    """The problem with some of its rows."""
    arguments = {k: v[take] if k in problem.batched else v for k, v in problem.arguments.items()}
    sites = {n: _resized(s, problem.data_plate, len(take)) for n, s in problem.sites.items()}
    return dataclasses.replace(problem, arguments=arguments, sites=sites, num_data=len(take), notes={})


def _axis(site: Site, plate: str | None) -> int | None:
    """The axis of a site's value that runs along the plate."""
    found = next((p for p in site.plates if p.name == plate), None)
    return None if found is None or found.dim is None else len(site.batch_shape) + found.dim


def _resized(site: Site, plate: str | None, size: int) -> Site:
    axis = _axis(site, plate)
    if axis is None or axis >= len(site.shape):
        return site
    shape = (*site.shape[:axis], size, *site.shape[axis + 1 :])
    plates = tuple(dataclasses.replace(p, size=size) if p.name == plate else p for p in site.plates)
    return dataclasses.replace(site, shape=shape, plates=plates)


__all__ = ["Rows", "independence_reason", "rows_of"]
