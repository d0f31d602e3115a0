"""From a problem to the mode of its density on either backend, and from a mode to a Fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ppl_lvm.core import Engine, Outcome, Problem, Run, Status
from ppl_lvm.engines._mode import Mode, Surface, find_mode
from ppl_lvm.engines._start import starting_values
from ppl_lvm.engines._units import Units
from ppl_lvm.result import Fit


class Searched(NamedTuple):
    surface: Any
    mode: Mode


@contextlib.contextmanager
def session_of(backend: str, dtype: str) -> Iterator[None]:
    """JAX's session where the backend is JAX; ``fit`` holds torch's already where it is Pyro."""
    if backend != "numpyro":
        yield
        return
    from ppl_lvm.backends.session import jax_session

    with jax_session(dtype):
        yield


def search(
    engine: Any,
    problem: Problem,
    run: Run,
    params: Mapping[str, np.ndarray],
    backend: str,
    units: Units,
    *,
    jacobian: bool,
) -> Searched:
    """The mode from ``engine.num_init`` starts; call it inside :func:`session_of`."""
    surface, starts = surface_of(problem, run, params, backend, jacobian=jacobian, num=engine.num_init)
    return Searched(surface, find_mode(surface, starts, max_iter=engine.max_iter, units=units))


def surface_of(
    problem: Problem,
    run: Run,
    params: Mapping[str, np.ndarray],
    backend: str,
    *,
    jacobian: bool,
    num: int = 1,
) -> tuple[Surface, list[np.ndarray]]:
    """The density on a backend, and ``num`` starting points in unconstrained space."""
    if backend == "numpyro":
        from ppl_lvm.backends._jax_surface import JaxSurface
        from ppl_lvm.engines._jax_start import start_points

        ours = JaxSurface(problem, params, jacobian=jacobian)
        points = start_points(problem, run, ours.density, ours.data, ours.held, num)
        return ours, [np.asarray(p, dtype=float) for p in points]
    from ppl_lvm.backends._pyro_surface import PyroSurface

    made = [
        PyroSurface(problem, params, jacobian=jacobian, begin=begin)
        for begin in starting_values(problem, run, num)
    ]
    return made[0], [m.start for m in made]


def status_of(mode: Mode) -> Status:
    """Converged unless the iterations ran out; how many searches ended at the best mode."""
    same = sum(abs(v - mode.log_density) < 1e-3 * (1 + abs(mode.log_density)) ** 0.5 for v in mode.every)
    details = {"iterations": float(mode.steps), "searches": float(len(mode.every)), "at_best": float(same)}
    return Status(Outcome.CONVERGED if mode.converged else Outcome.MAX_STEPS, details)


def point_fit(
    engine: Engine,
    problem: Problem,
    backend: str,
    values: Mapping[str, np.ndarray],
    params: Mapping[str, np.ndarray],
    status: Status,
    losses: list[float],
    size: int,
) -> Fit:
    """A point: ``values`` by site and the model's params; no draws, hence no posterior.

    The log likelihood is given where no continuous site is local: with such sites in the point it would be
    that of the data given them, which grows with their number and compares no models.
    """
    import xarray as xr

    local = any(s.local for s in problem.latents(discrete=False))
    history = xr.DataArray(np.asarray(losses)[None], dims=("chain", "step"), name="loss").to_dataset()
    return Fit(
        model=problem.model,
        engine=engine,
        backend=backend,
        problem=problem,
        params={**{k: np.asarray(v) for k, v in values.items()}, **params},
        status=status,
        log_likelihood=None if local else log_likelihood(problem, values, params),
        num_parameters=None if local else size + sum(np.size(v) for v in params.values()),
        groups={"optimization": history},
    )


def log_likelihood(
    problem: Problem, values: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]
) -> float:
    """log p(data given values), discrete sites summed out, by the Pyro program."""
    from ppl_lvm.backends._pyro_density import log_density
    from ppl_lvm.backends.session import torch_session

    one = {k: np.asarray(v)[None] for k, v in values.items()}
    held = {**problem.model.fixed_params, **params}
    with torch_session(0, problem.dtype):
        total = log_density(problem, one, held)[0] - log_density(problem, one, held, prior=True)[0]
    return float(total[0])
