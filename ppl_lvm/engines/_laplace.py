"""The Gaussian at a mode as the params of a full-rank guide, and its draws as a Fit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.core import Problem, Run, Status
from ppl_lvm.engines._mode import Surface, curvature_root, polished
from ppl_lvm.engines._search import point_fit
from ppl_lvm.engines._svi_result import Drawn, Trained, svi_fit
from ppl_lvm.result import Fit


def fit_at(
    engine: Any,
    problem: Problem,
    run: Run,
    backend: str,
    surface: Surface,
    point: np.ndarray,
    params: Mapping[str, np.ndarray],
    status: Status,
    losses: list[float],
) -> Fit:
    """What SVI gives at the end of a point's steps: the point, or the Gaussian there."""
    if engine.guide == "delta":
        values = surface.values(point)
        return point_fit(engine, problem, backend, values, params, status, losses, surface.size)
    best = polished(surface, point, surface.value_and_gradient(point)[0])[0]
    return gaussian_fit(engine, problem, run, backend, surface, best, params, status, losses)


def gaussian_fit(
    engine: Any,
    problem: Problem,
    run: Run,
    backend: str,
    surface: Surface,
    mode: np.ndarray,
    params: Mapping[str, np.ndarray],
    status: Status,
    losses: list[float],
) -> Fit:
    """Draws of the Gaussian at ``mode`` (size,), weighed; call it inside the backend's session.

    Raises
    ------
    ValueError
        If the density is not curved downwards there.
    """
    root = curvature_root(surface, mode)
    height = surface.value_and_gradient(mode)[0]
    nats = height + 0.5 * len(mode) * math.log(2 * math.pi) + float(np.log(np.diag(root)).sum())
    status = dataclasses.replace(status, details={**status.details, "laplace_evidence": nats})
    draw = _on_jax if backend == "numpyro" else _on_pyro
    return draw(engine, problem, run, mode, root, params, status, losses)


def _on_jax(
    engine: Any,
    problem: Problem,
    run: Run,
    mode: np.ndarray,
    root: np.ndarray,
    params: Mapping[str, np.ndarray],
    status: Status,
    losses: list[float],
) -> Fit:
    import jax.numpy as jnp

    from ppl_lvm.backends._jax_guides import build_guide
    from ppl_lvm.backends._numpyro import density_of
    from ppl_lvm.engines._jax_weights import guide_functions

    density, data = density_of(problem)
    guide = build_guide(problem, density, "laplace", {}, jnp.asarray(mode, problem.dtype))
    scale = np.diag(root)
    own = {"loc": mode, "log_scale": np.log(scale), "lower": np.tril(root, -1)}
    own = {k: np.asarray(v, problem.dtype) for k, v in own.items()}
    held = {k: jnp.asarray(v) for k, v in params.items()}
    functions = guide_functions("laplace", density, guide, data, held)
    free = {k: jnp.asarray(v) for k, v in own.items()}
    values, log_p, log_q, _ = functions.draw(free, run.word(24), engine.num_draws)
    trained = Trained(engine, problem, "numpyro", {**own, **params}, status, losses)
    drawn = Drawn(values, log_p, log_q, lambda v: functions.log_q_at(free, v))
    return svi_fit(trained, log_p - log_q, drawn)


def _on_pyro(
    engine: Any,
    problem: Problem,
    run: Run,
    mode: np.ndarray,
    root: np.ndarray,
    params: Mapping[str, np.ndarray],
    status: Status,
    losses: list[float],
) -> Fit:
    import torch

    from ppl_lvm.backends import _pyro_guide as guides
    from ppl_lvm.backends._pyro_density import log_density
    from ppl_lvm.backends._pyro_trace import to_torch

    guide = guides.build_guide(problem, "laplace", {})
    scale = np.diag(root)
    own = {"loc": mode, "scale": scale, "scale_tril": root / scale[:, None]}
    stored = {f"{type(guide).__name__}.{k}": np.asarray(v, problem.dtype) for k, v in own.items()}
    with torch.no_grad():
        guide(**to_torch(problem.arguments))
        guides.load_params(problem, guide, stored)
    held = {**problem.model.fixed_params, **params, **stored}
    values, log_q = guides.draw(problem, guide, held, engine.num_draws)
    log_p = log_density(problem, values, held)[0]
    trained = Trained(engine, problem, "pyro", {**stored, **params}, status, losses)
    drawn = Drawn(values, log_p, log_q, lambda v: guides.log_q_at(problem, guide, held, v))
    return svi_fit(trained, log_p - log_q, drawn)
