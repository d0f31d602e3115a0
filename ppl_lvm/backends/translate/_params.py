"""The ``pyro.param`` statements of a program: their starts, and their constraints as JAX functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pyro
import torch
from pyro import poutine
from torch.distributions import constraints, transform_to

from ppl_lvm.backends._pyro_trace import to_torch
from ppl_lvm.backends.density import Param
from ppl_lvm.backends.session import torch_session
from ppl_lvm.backends.translate._graph import Analysis, Plan
from ppl_lvm.backends.translate._trace import trace
from ppl_lvm.core import Problem


class Statement(NamedTuple):
    """A ``pyro.param``: its value at the start (constrained) and its constraint."""

    start: torch.Tensor
    constraint: Any


def statements(problem: Problem) -> dict[str, Statement]:
    """All params of a program, as held or as they start. Call inside a torch session."""
    if not problem.params:
        return {}
    held = problem.model.fixed_params
    with torch.no_grad(), pyro.validation_enabled(False):
        args = to_torch(dict(problem.arguments))
        nodes: Any = poutine.trace(problem.model.pyro.model).get_trace(**args).nodes
    found = {}
    for name in problem.params:
        value = held[name] if name in held else nodes[name]["value"].detach()
        start = value.clone() if isinstance(value, torch.Tensor) else torch.as_tensor(np.array(value))
        start = start.to(torch.get_default_dtype())
        found[name] = Statement(start, nodes[name]["kwargs"].get("constraint", constraints.real))
    return found


def as_param(statement: Statement, dtype: str) -> Param:
    """The statement for an optimiser on JAX."""
    start, constraint = statement
    if constraint is constraints.real:
        return Param(start.numpy(), _same, _same)
    with torch_session(0, dtype):
        transform = transform_to(constraint)
        free = transform.inv(start)
        forward = _plan(lambda flat, mark: {"out": transform(flat[0])}, free)
        back = _plan(lambda flat, mark: {"out": transform.inv(flat[0])}, start)
    return Param(start.numpy(), forward, back)


def _same(value: Any) -> Any:
    return value


def _plan(function: Callable[..., Mapping[str, torch.Tensor]], example: torch.Tensor) -> Callable[[Any], Any]:
    plan = Plan(Analysis(trace(function, (example,))))  # type: ignore[arg-type]  # a mapping is enough
    return lambda value: plan.run((jnp.asarray(value),), ("out",))["out"]
