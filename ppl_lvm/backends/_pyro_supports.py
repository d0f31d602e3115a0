"""Which latent sites of a Pyro program have a support that other sites move."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine

from ppl_lvm.backends._pyro_trace import HoldParams, ImproperOrigin, to_torch
from ppl_lvm.backends.session import torch_session
from ppl_lvm.core import Problem


def moving_supports(problem: Problem) -> list[str]:
    """Names of continuous latent sites whose bounds differ between two draws of the prior.

    Pyro's guides and its NUTS take the transform of a site's support from one run of the program and keep
    it: with bounds that depend on other sites they work on a density that is not the model's.
    """
    names = [s.name for s in problem.latents(discrete=False)]
    first, second = (_bounds(problem, names, seed) for seed in (0, 1))
    return [n for n in names if not _same(first.get(n), second.get(n))]


def _bounds(problem: Problem, names: list[str], seed: int) -> dict[str, list[torch.Tensor]]:
    model = problem.model
    with torch_session(seed, problem.dtype), torch.no_grad(), HoldParams(model.fixed_params):
        run = poutine.trace(ImproperOrigin()(model.pyro.model))
        nodes = run.get_trace(**to_torch(problem.arguments)).nodes
        found: dict[str, Any] = {n: nodes[n]["fn"] for n in names if n in nodes}
        return {n: _of_support(fn.support) for n, fn in found.items()}


def _of_support(support: Any) -> list[torch.Tensor]:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    found = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return [torch.as_tensor(v) for v in found if v is not None]


def _same(first: list[torch.Tensor] | None, second: list[torch.Tensor] | None) -> bool:
    if first is None or second is None:
        return first is second
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(a.shape == b.shape and bool((a == b).all()) for a, b in pairs)


def supports_by_datum(problem: Problem, names: list[str]) -> list[str]:
    """Which of these sites have bounds that are not one number for all data."""
    bounds = {n: _of_support(problem.sites[n].constraint) for n in names}
    return [n for n, found in bounds.items() if any(v.unique().numel() > 1 for v in found)]
