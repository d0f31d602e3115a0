"""What each site of a Pyro program depends on, and its distribution in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer.inspect import TrackProvenance
from pyro.ops.provenance import detach_provenance, get_provenance
from pyro.poutine.messenger import Messenger
from torch.overrides import TorchFunctionMode

from ppl_lvm.backends._pyro_trace import HoldParams, _is_improper, to_torch
from ppl_lvm.core import Problem, Site
from ppl_lvm.structure import Node

_RUNS = 3
"""Runs of the program: in one alone, a value may equal another by chance (two labels, say)."""
_WRAPPERS = ("Independent", "ExpandedDistribution", "MaskedDistribution")
# Simple functions that a parameter may be of one site; tried in this order.
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp({})": torch.exp,
    "sqrt({})": torch.sqrt,
    "{}²": torch.square,
    "1 / {}": torch.reciprocal,
    "-{}": torch.neg,
    "sigmoid({})": torch.sigmoid,
    "softplus({})": torch.nn.functional.softplus,
    "tanh({})": torch.tanh,
}


class _ImproperAnywhere(Messenger):
    """Give sites with improper priors a random value: at a fixed one unequal expressions may agree."""

    def _pyro_sample(self, msg: dict) -> None:
        fn = msg["fn"]
        if _is_improper(fn) and msg["value"] is None:
            transform = torch.distributions.biject_to(fn.support)
            msg["value"] = transform(torch.randn(transform.inverse_shape(fn.batch_shape + fn.event_shape)))
            msg["done"] = True


class _Separate(TorchFunctionMode):
    """Two calls that tensors with a provenance get wrong.

    Broadcasting several tensors would give each the provenance of all. ``new`` takes an empty shape for no
    elements, where it is one number (as ``Exponential`` asks for).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.broadcast_tensors:
            shape = torch.broadcast_shapes(*(t.shape for t in args))
            return tuple(t.expand(shape) for t in args)
        if func is torch.Tensor.new and len(args) == 2 and isinstance(args[1], tuple):
            return detach_provenance(args[0]).new_empty(args[1])
        return func(*args, **(kwargs or {}))


def trace_nodes(problem: Problem) -> tuple[Node, ...]:
    """The nodes of a problem's program, in its order.

    Raises
    ------
    ValueError
        If the program cannot be run on values that carry their provenance.
    """
    args = to_torch(problem.arguments)
    program = _ImproperAnywhere()(problem.model.pyro.model)
    try:
        with (
            torch.no_grad(),
            pyro.validation_enabled(False),
            HoldParams(problem.model.fixed_params),
            _Separate(),
        ):
            traces: list[Any] = []
            for _ in range(_RUNS):
                with TrackProvenance(include_deterministic=True):
                    traces.append(poutine.trace(program).get_trace(**args).nodes)
            words = _Words([n for n in problem.sites if n in traces[0]], traces, args)
            return tuple(_node(problem.sites[n], [t[n] for t in traces], words) for n in words.names)
    except Exception as error:  # the user's own code, on tensors of a kind that it may not expect
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"model: the dependencies of {problem.model.describe()} cannot be traced ({reason})."
        ) from error


def _node(site: Site, runs: list[Mapping[str, Any]], words: _Words) -> Node:
    plates = tuple(p.name for p in site.plates)
    shape = site.shape[len(site.batch_shape) :]
    about: Any = (plates, shape, site.discrete, site.is_factor)
    if site.kind == "param":
        return Node(site.name, "param", "a parameter", (), plates, site.shape)
    bases = [_unwrapped(r["fn"]) for r in runs]
    if site.kind == "deterministic" or site.is_factor:
        values = [b.log_factor if site.is_factor else b.v for b in bases]
        statement = words.call(values) if site.is_factor else words.of(values)
        return Node(site.name, site.kind, statement, words.parents(site.name, values[:1]), *about)
    density = runs[0]["fn"].log_prob(runs[0]["value"])
    parents = words.parents(site.name, [density, *_tensors(bases[0])])
    return Node(site.name, site.kind, _statement(bases, parents, words), parents, *about)


def _statement(bases: list[Any], parents: tuple[str, ...], words: _Words) -> str:
    """A distribution with its parameters; those of one that declares none, or lacks a parent: the parents."""
    if type(bases[0]).__name__ == "TransformedDistribution":
        return "transformed " + _statement([_unwrapped(b.base_dist) for b in bases], parents, words)
    values = [_parameters(b) for b in bases]
    seen = set(words.parents("", values[0].values()))
    if set(parents) <= seen:
        names = [n for n in values[0] if all(n in v for v in values)]  # log_prob has filled in lazy ones
        inside = [words.of([v[name] for v in values]) for name in names]
    else:
        inside = list(parents)
    return f"{type(bases[0]).__name__}({', '.join(inside)})"


def _unwrapped(fn: Any) -> Any:
    while type(fn).__name__ in _WRAPPERS:
        fn = fn.base_dist
    return fn


def _parameters(fn: Any) -> dict[str, Any]:
    """The parameters that a distribution was given, by name, in the order in which it declares them."""
    declared = getattr(fn, "arg_constraints", None) or {}
    if not isinstance(declared, Mapping):  # a property, on some classes
        return {}
    found = {}
    for name in declared:
        lazy = isinstance(getattr(type(fn), name, None), torch.distributions.utils.lazy_property)
        if lazy and name not in vars(fn):
            continue  # computed from another one, as logits are from probs
        value = getattr(fn, name, None)
        if isinstance(value, (torch.Tensor, int, float)):
            found[name] = value
    return found


def _tensors(fn: Any, depth: int = 3) -> list[torch.Tensor]:
    """Tensors that a distribution holds: a density of our own may be computed where no provenance goes."""
    found: list[torch.Tensor] = []
    for value in vars(fn).values():
        for item in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(item, torch.Tensor):
                found.append(item)
            elif isinstance(item, torch.distributions.Distribution) and depth:
                found += _tensors(item, depth - 1)
    return found


class _Words:
    """Names for values: of sites, of entries of sites, of data arguments; and numbers.

    A value comes as a list, from several runs of the program; an expression has to be right in all of them.
    """

    def __init__(self, names: list[str], traces: list[Any], arguments: Mapping[str, Any]) -> None:
        self.names = names
        self.values = {n: [detach_provenance(t[n]["value"]) for t in traces] for n in names}
        self.arguments = {
            k: v for k, v in arguments.items() if isinstance(v, torch.Tensor) and v.numel() and v.ndim
        }

    def parents(self, name: str, values: Iterable[Any]) -> tuple[str, ...]:
        """The sites that values were computed from, in the order of the program."""
        found: set[str] = set()
        for value in values:
            found |= set(get_provenance(value))
        return tuple(n for n in self.names if n in found and n != name)

    def call(self, runs: list[Any]) -> str:
        return f"f({', '.join(self.parents('', runs))})"

    def of(self, runs: list[Any]) -> str:
        """The simplest expression found for a value."""
        sources = self.parents("", runs)
        if not isinstance(runs[0], torch.Tensor):
            return f"{runs[0]:.4g}"
        plain = [detach_provenance(v) for v in runs]
        if not sources:
            return self._constant(plain[0])
        found = self._of_one(plain, sources[0]) if len(sources) == 1 else self._entry(plain, sources)
        return found or self.call(runs)

    def _constant(self, value: torch.Tensor) -> str:
        """One number where all entries are equal, else the data argument that it is, else its shape."""
        if value.numel() and bool((value == value.flatten()[0]).all()):
            return f"{float(value.flatten()[0]):.4g}"
        for name, argument in self.arguments.items():
            if _same(value, argument):
                return name
        if (
            value.ndim >= 2
            and value.shape[-1] == value.shape[-2]
            and _same(value, torch.eye(value.shape[-1]))
        ):
            return "I"
        return f"constants ({' × '.join(map(str, value.shape))})"

    def _of_one(self, runs: list[torch.Tensor], source: str) -> str:
        own = self.values[source]
        if _all_same(runs, own):
            return source
        if own[0].is_floating_point():
            for pattern, function in _FUNCTIONS.items():
                if _all_same(runs, [function(v) for v in own]):
                    return pattern.format(source)
        return ""

    def _entry(self, runs: list[torch.Tensor], sources: tuple[str, ...]) -> str:
        """``loc[assignment]``: rows of one site chosen by a discrete one."""
        if len(sources) != 2:
            return ""
        for table, index in (sources, sources[::-1]):
            chosen = [_rows(r, w) for r, w in zip(self.values[table], self.values[index], strict=True)]
            if all(c is not None for c in chosen) and _all_same(runs, chosen):
                return f"{table}[{index}]"
        return ""


def _rows(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor | None:
    whole = index.numel() and bool((index == index.round()).all()) and int(index.min()) >= 0
    return table[index.long()] if whole and table.ndim and int(index.max()) < len(table) else None


def _all_same(values: list[torch.Tensor], others: Sequence[Any]) -> bool:
    return all(_same(v, o) for v, o in zip(values, others, strict=True))


def _same(value: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors agree, the second spread over the first (ones at either end of its shape)."""
    for shaped in (other, other.reshape(other.shape + (1,) * (value.ndim - other.ndim))):
        try:
            spread = np.broadcast_shapes(tuple(value.shape), tuple(shaped.shape)) == tuple(value.shape)
        except ValueError:
            continue
        if spread and torch.allclose(value, shaped.to(value.dtype).expand(value.shape), rtol=1e-6, atol=0):
            return True
    return False
