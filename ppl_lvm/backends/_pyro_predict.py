"""Forward simulation of Pyro programs, and conditional draws of their discrete sites."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.infer import infer_discrete
from pyro.poutine.messenger import Messenger

from ppl_lvm.backends._pyro_density import EnumerateAll, particle_plate, spread
from ppl_lvm.backends._pyro_trace import HoldParams, to_torch
from ppl_lvm.core import Problem

Arrays = dict[str, np.ndarray]


class Simulate(Messenger):
    """Draw observed sites anew. (``poutine.uncondition`` would draw deterministic ones too.)"""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = set(names)

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.names:
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def observed_names(problem: Problem) -> set[str]:
    """Sites that are data: neither factors nor sites held at a value."""
    held = problem.model.held_sites
    return {n for n, s in problem.sites.items() if s.kind == "observed" and not s.is_factor and n not in held}


def forward(
    problem: Problem,
    values: Mapping[str, np.ndarray] | None,
    num: int,
    params: Mapping[str, Any] | None = None,
) -> tuple[Arrays, Arrays]:
    """Run the program ``num`` times with observations simulated: (latent, observed), leading (num,).

    ``values`` (num, ...) hold latent sites; None draws everything from the prior.
    """
    args = to_torch(problem.arguments)
    tensors = {k: to_torch(v) for k, v in (values or {}).items()}
    latent = [s.name for s in problem.sites.values() if s.kind in ("latent", "deterministic")]
    seen = [s.name for s in problem.sites.values() if s.name in observed_names(problem)]
    free = Simulate(seen)(problem.model.pyro.model)
    rows: list[dict[str, torch.Tensor]] = []
    with torch.no_grad(), HoldParams({**problem.model.fixed_params, **(params or {})}):
        for i in range(num):
            fixed = poutine.condition(free, data={k: v[i] for k, v in tensors.items()}) if tensors else free
            try:
                nodes: Any = poutine.trace(fixed).get_trace(**args).nodes
            except NotImplementedError as error:
                raise ValueError(
                    f"{problem.model.describe()}: a site cannot be simulated ({error}); give it a proper "
                    "prior."
                ) from error
            rows.append({name: nodes[name]["value"] for name in latent + seen if name in nodes})
    stacked = {k: torch.stack([r[k] for r in rows]).numpy() for k in rows[0]}
    return {k: stacked[k] for k in latent if k in stacked}, {k: stacked[k] for k in seen if k in stacked}


def deterministic(
    problem: Problem, values: Mapping[str, np.ndarray], params: Mapping[str, Any], chunk: int = 500
) -> Arrays:
    """Deterministic sites (num, ...) at draws (num, ...) of the latent ones.

    In a few runs of the program if it broadcasts over draws, else in one for each. That it does is seen by
    the first and the last draw run alone: wrong shapes may broadcast without an error.
    """
    num = len(next(iter(values.values())))
    ends = sorted({0, num - 1})
    names = [s.name for s in problem.sites.values() if s.kind == "deterministic"]
    alone, _ = forward(problem, {k: v[ends] for k, v in values.items()}, len(ends), params)
    known = {s.name for s in problem.latents(discrete=False)}
    latent = {k: to_torch(v) for k, v in values.items() if k in known}
    try:
        parts = [
            _deterministic_together(problem, {k: v[i : i + chunk] for k, v in latent.items()}, params, names)
            for i in range(0, num, chunk)
        ]
    except Exception:  # a program that does not broadcast over a plate: any error can come out of it
        parts = []
    if parts:
        found = {n: torch.cat([p[n] for p in parts]).numpy() for n in names}
        rtol = 1e-9 if problem.dtype == "float64" else 1e-4
        if all(np.allclose(found[n][ends], alone[n], rtol=rtol, atol=rtol, equal_nan=True) for n in names):
            return found
    every, _ = forward(problem, values, num, params)
    return {n: every[n] for n in names}


def _deterministic_together(problem: Problem, values: dict, params: Any, names: list[str]) -> dict:
    size = len(next(iter(values.values())))
    placed = {k: spread(v, problem.sites[k], problem.max_plate_nesting) for k, v in values.items()}
    fixed = poutine.condition(problem.model.pyro.model, data=placed)
    held = HoldParams({**problem.model.fixed_params, **params})
    with torch.no_grad(), held, poutine.trace() as seen, particle_plate(problem, size):
        fixed(**to_torch(problem.arguments))
    nodes: Any = seen.trace.nodes
    return {n: _by_draw(nodes[n]["value"], size, problem.sites[n].shape) for n in names}


def _by_draw(value: torch.Tensor, size: int, shape: tuple[int, ...]) -> torch.Tensor:
    """(size, *shape), of a value that need not depend on the draw."""
    if value.shape[:1] == (size,) and value.numel() == size * math.prod(shape):
        return value.reshape(size, *shape)
    return value.reshape(shape).expand(size, *shape)


def observed(problem: Problem) -> Arrays:
    """Observed values by site (factors left out)."""
    with torch.no_grad(), HoldParams(problem.model.fixed_params):
        nodes: Any = poutine.trace(problem.model.pyro.model).get_trace(**to_torch(problem.arguments)).nodes
    names = [s.name for s in problem.sites.values() if s.name in observed_names(problem)]
    return {n: nodes[n]["value"].numpy() for n in names}


def conditional_discrete(
    problem: Problem,
    values: Mapping[str, np.ndarray],
    params: Mapping[str, Any],
    names: list[str],
    chunk: int = 200,
) -> Arrays:
    """Draws of discrete sites given data and continuous sites at ``values`` (s, ...): (s, ...)."""
    args = to_torch(problem.arguments)
    tensors = {k: to_torch(v) for k, v in values.items()}
    num = len(next(iter(tensors.values())))
    try:
        parts = [
            _together(problem, args, {k: v[i : i + chunk] for k, v in tensors.items()}, params, names)
            for i in range(0, num, chunk)
        ]
    except Exception:  # a program that does not broadcast over a plate: any error can come out of it
        parts = [
            _one(problem, args, {k: v[i] for k, v in tensors.items()}, params, names) for i in range(num)
        ]
    return {n: torch.cat([p[n] for p in parts]).numpy() for n in names}


def _together(problem: Problem, args: Any, values: dict, params: Any, names: list[str]) -> dict:
    nesting = problem.max_plate_nesting
    size = len(next(iter(values.values())))
    placed = {k: spread(v, problem.sites[k], nesting) for k, v in values.items()}
    fixed = poutine.condition(problem.model.pyro.model, data=placed)
    plate = particle_plate(problem, size)

    def program(**kwargs: Any) -> Any:
        with plate:
            return fixed(**kwargs)

    nodes = _infer(problem, program, args, params, -2 - nesting)
    out = {}
    for name in names:
        site = problem.sites[name]
        value = nodes[name]["value"]
        want = (size,) + (1,) * (nesting - len(site.batch_shape)) + site.shape
        out[name] = value.expand(want).reshape((size, *site.shape))
    return out


def _one(problem: Problem, args: Any, values: dict, params: Any, names: list[str]) -> dict:
    fixed = poutine.condition(problem.model.pyro.model, data=values)
    nodes = _infer(problem, fixed, args, params, -1 - problem.max_plate_nesting)
    return {n: nodes[n]["value"].expand(problem.sites[n].shape)[None] for n in names}


def _infer(problem: Problem, program: Any, args: Any, params: Any, first: int) -> Any:
    with torch.no_grad(), HoldParams({**problem.model.fixed_params, **params}):
        decoded = infer_discrete(EnumerateAll()(program), first_available_dim=first, temperature=1)
        return poutine.trace(decoded).get_trace(**args).nodes
