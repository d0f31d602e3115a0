"""Operators on which the rules of the automatic twin are compared with torch, and how they are compared.

All operators of a group are recorded in one graph and compiled together, value and vector-Jacobian product:
one compilation in place of hundreds. Kinks, ties, zeros and the ends of domains are among the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from translation_cases import float64

from ppl_lvm.backends.session import jax_session
from ppl_lvm.backends.translate._graph import Analysis, Plan
from ppl_lvm.backends.translate._trace import trace

Function = Callable[..., Any]


@dataclass(frozen=True)
class Op:
    """One use of an operator; floating inputs are differentiated unless they are named in ``fixed``."""

    name: str
    call: Function
    inputs: tuple[Any, ...]
    fixed: tuple[int, ...] = ()
    wide: float = 1.0  # by how much torch's own rounding is larger than usual


@dataclass(frozen=True)
class Compared:
    """Differences by operator, relative to 1 + the size of torch's figure: of values and of gradients."""

    value: Mapping[str, float]
    gradient: Mapping[str, float]
    recorded: frozenset[str]


def op(name: str, call: Function, *inputs: Any, fixed: tuple[int, ...] = (), wide: float = 1.0) -> Op:
    return Op(name, call, tuple(np.asarray(i) for i in inputs), fixed, wide)


def compare(ops: list[Op], dtype: str = "float64") -> Compared:
    """Every operator by our rules and by torch, at the same inputs and cotangents."""
    with float64(), jax_session(dtype):
        torch.set_default_dtype(getattr(torch, dtype))
        flat = tuple(_tensor(i, dtype) for o in ops for i in o.inputs)
        plan = _plan(ops, flat)
        slopes = tuple(
            i for i, (o, at) in enumerate(_places(ops)) if _floating(flat[i]) and at not in o.fixed
        )
        tensors = [t.clone().requires_grad_() if i in slopes else t for i, t in enumerate(flat)]
        theirs = _outputs(ops, tensors)
        cotangents = _cotangents(theirs)
        wanted = _slopes(
            [theirs[n] for n in cotangents], [tensors[i] for i in slopes], list(cotangents.values())
        )
        values, gradients = _ours(plan, flat, slopes, cotangents)
        return _compared(ops, plan, theirs, values, dict(zip(slopes, wanted, strict=True)), gradients)


def _places(ops: list[Op]) -> list[tuple[Op, int]]:
    return [(o, at) for o in ops for at in range(len(o.inputs))]


def _tensor(value: np.ndarray, dtype: str) -> torch.Tensor:
    names = {"f": dtype, "c": {"float64": "complex128", "float32": "complex64"}[dtype]}
    return torch.as_tensor(np.array(value, names.get(value.dtype.kind, value.dtype), order="C"))


def _floating(value: torch.Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _outputs(ops: list[Op], tensors: Any) -> dict[str, torch.Tensor]:
    out: dict[str, torch.Tensor] = {}
    at = 0
    for o in ops:
        made = o.call(*tensors[at : at + len(o.inputs)])
        at += len(o.inputs)
        listed = made if isinstance(made, (tuple, list)) else (made,)
        for i, value in enumerate(listed):
            if value.is_complex():
                value = torch.view_as_real(value.resolve_conj())
            out[f"{o.name} #{i}"] = value
    return out


def _plan(ops: list[Op], flat: tuple[torch.Tensor, ...]) -> Plan:
    analysis = Analysis(trace(lambda args, mark: _outputs(ops, args), flat))
    problems = analysis.problems()
    if problems:
        raise AssertionError(f"cannot be planned: {problems}")
    return Plan(analysis)


def _slopes(outputs: Any, inputs: Any, weights: Any) -> tuple[Any, ...]:
    if not inputs:
        return ()
    found = torch.autograd.grad(outputs, inputs, weights, allow_unused=True)
    return tuple(None if f is None or f._is_zerotensor() else f for f in found)


def _cotangents(out: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    own = torch.Generator().manual_seed(5)
    return {
        n: torch.rand(v.shape, generator=own, dtype=v.dtype) + 0.5 for n, v in out.items() if v.requires_grad
    }


def _ours(plan: Plan, flat: Any, slopes: tuple[int, ...], cotangents: Any) -> tuple[Any, Any]:
    inputs = [jnp.asarray(t.detach().numpy()) for t in flat]
    pull = [jnp.asarray(c.numpy()) for c in cotangents.values()]

    def evaluate(differentiated: Any, weights: Any) -> Any:
        def run(parts: Any) -> Any:
            own = list(inputs)
            for i, part in zip(slopes, parts, strict=True):
                own[i] = part
            out = plan.run(tuple(own), tuple(plan.outputs))
            return [out[n] for n in cotangents], out

        _, back, out = jax.vjp(run, differentiated, has_aux=True)
        return out, back(weights)[0]

    values, gradients = jax.jit(evaluate)([inputs[i] for i in slopes], pull)
    return values, dict(zip(slopes, gradients, strict=True))


def _compared(ops: Any, plan: Plan, theirs: Any, values: Any, wanted: Any, gradients: Any) -> Compared:
    value = {n: _difference(values[n], v.detach().numpy()) for n, v in theirs.items()}
    gradient: dict[str, float] = {}
    for i, (o, at) in enumerate(_places(ops)):
        if i in wanted:
            expected = np.zeros(o.inputs[at].shape) if wanted[i] is None else wanted[i].resolve_conj().numpy()
            own = np.asarray(gradients[i])
            found = np.conj(own) if np.iscomplexobj(own) else own  # torch's convention for complex numbers
            gradient[f"{o.name} @{at}"] = _difference(found, expected)
    return Compared(value, gradient, frozenset(plan.operators))


def _difference(ours: Any, theirs: Any) -> float:
    """The largest, relative to 1 + the size of torch's; infinite where one alone is NaN or infinite."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        return np.inf
    if theirs.dtype.kind in "biu":
        return float((ours != theirs).any())
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(all="ignore"):
        gaps = np.where(same, 0.0, np.abs(ours - theirs) / (1.0 + np.abs(theirs)))
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0.0))
