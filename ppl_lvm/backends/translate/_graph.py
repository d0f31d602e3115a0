"""A traced graph made ready for JAX: dependences, what must be refused, constants folded, a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch
from torch import fx

from ppl_lvm.backends.translate._recorder import example, getitem, origin_of
from ppl_lvm.backends.translate._trace import Traced
from ppl_lvm.backends.translate.rules import find_rule, name_of, user_rule
from ppl_lvm.backends.translate.rules._types import has_jax_dtype, jax_dtype
from ppl_lvm.backends.translate.rules.indexing import fills

_CONCRETE = ("aten._local_scalar_dense", "aten.item", "aten.is_nonzero")
_SHAPED_BY_VALUES = (
    "aten.nonzero", "aten.masked_select", "aten.unique", "aten._unique2", "aten.unique_dim",
    "aten.unique_consecutive", "aten.bincount", "aten.repeat_interleave", "aten.histc", "aten.nonzero_numpy",
)  # fmt: skip
_NOTHING = frozenset[int]()
_KINDS = {
    "aten.expand.default": "expand",
    "aten.view.default": "view",
    "aten.bmm.default": "product",
    "aten.matmul.default": "product",
}
_POINTWISE = (
    "ppl_lvm.safe_log.default",
    "aten.detach.default",
    "aten.clone.default",
    "aten._to_copy.default",
)


class _Ref(int):
    """The position of an earlier value in a plan."""


@dataclass(frozen=True)
class _Step:
    """One operator: its rule, arguments with references in place of nodes, and the dtypes that torch had."""

    rule: Callable[..., Any]
    args: Any
    kwargs: Mapping[str, Any]
    dtypes: Any
    needs: tuple[int, ...]
    kind: str  # "pointwise", "expand", "view", "product" or "other"
    shape: tuple[int, ...] | None


class _Wide(NamedTuple):
    """An array that stands for its broadcast to ``shape``.

    Libraries expand parameters to the shape of the data before they take logs and squares of them. Kept
    narrow until an operator looks along an axis, that work is done for each parameter, not for each datum.
    """

    base: Any
    shape: tuple[int, ...]

    def full(self) -> Any:
        return jnp.broadcast_to(self.base, self.shape)


@dataclass(frozen=True)
class Problems:
    """Nodes that JAX cannot follow, by reason."""

    concrete: tuple[fx.Node, ...]
    shaped: tuple[fx.Node, ...]
    random: tuple[fx.Node, ...]
    missing: tuple[fx.Node, ...]
    foreign: tuple[fx.Node, ...] = ()  # of a dtype or layout that JAX does not have

    def __bool__(self) -> bool:
        return bool(self.concrete or self.shaped or self.random or self.missing or self.foreign)


class Analysis:
    """Which inputs every node of a graph depends on, and which nodes any output needs."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        places = {node: i for i, node in enumerate(traced.inputs)}
        self.depends: dict[fx.Node, frozenset[int]] = {}
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                self.depends[node] = frozenset({places[node]})
            else:
                parts = [self.depends[n] for n in node.all_input_nodes]
                self.depends[node] = frozenset().union(*parts) if parts else _NOTHING
        self.live = self._reach(n for n in traced.outputs.values() if isinstance(n, fx.Node))

    def _reach(self, roots: Iterable[fx.Node]) -> set[fx.Node]:
        seen: set[fx.Node] = set()
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                stack.extend(node.all_input_nodes)
        return seen

    def baked(self, allowed: frozenset[int]) -> frozenset[int]:
        """Inputs among ``allowed`` whose values decide the course of the program or a shape."""
        found: set[int] = set()
        for node in self._calls():
            if self._is_concrete(node) or self._is_shaped(node):
                found |= self._deciding(node)
        return frozenset(found & allowed)

    def problems(self) -> Problems:
        calls = [n for n in self._calls() if self.depends[n]]
        # Whether a latent that went to a list matters is for the check to find: it names the line, too.
        concrete = [n for n in calls if self._is_concrete(n) and not origin_of(n).left]
        shaped = [n for n in calls if n in self.live and self._is_shaped(n)]
        random = [n for n in self._calls() if n in self.live and _is_random(n)]
        blocked = {*concrete, *shaped, *random}
        missing = [
            n
            for n in calls
            if n in self.live and n not in blocked and not _is_getitem(n) and find_rule(n.target) is None
        ]
        foreign = [n for n in self.live if is_foreign(example(n)) and self._enters(n)]
        return Problems(tuple(concrete), tuple(shaped), tuple(random), tuple(missing), tuple(foreign))

    def _enters(self, node: fx.Node) -> bool:
        """Whether a node's value is JAX's business: not that of a constant that torch folds into another."""
        return bool(self.depends[node]) or any(self.depends.get(user) for user in node.users)

    def _calls(self) -> list[fx.Node]:
        return [n for n in self.traced.graph.nodes if n.op == "call_function"]

    def _is_concrete(self, node: fx.Node) -> bool:
        return bool(self.depends[node]) and name_of(node.target).startswith(_CONCRETE)

    def _is_shaped(self, node: fx.Node) -> bool:
        if not self.depends[node]:
            return False
        name = name_of(node.target)
        if name.rsplit(".", 1)[0] in _SHAPED_BY_VALUES and find_rule(node.target) is None:
            return True
        return bool(self._deciding(node)) and name.startswith(("aten.index.", "aten.index_put"))

    def _deciding(self, node: fx.Node) -> frozenset[int]:
        """The inputs whose values matter: those of boolean index masks, or all of another operator's."""
        if not name_of(node.target).startswith(("aten.index.", "aten.index_put")):
            return self.depends[node]
        if name_of(node.target).startswith("aten.index_put") and _fills(node):
            return _NOTHING
        masks = [i for i in node.args[1] if isinstance(i, fx.Node) and _is_mask(example(i))]  # type: ignore[union-attr]
        return frozenset().union(*(self.depends[m] for m in masks)) if masks else _NOTHING


def _fills(node: fx.Node) -> bool:
    """Whether a write by a mask has a ``where`` for its rule, so that no shape depends on the mask."""
    indices = [None if i is None else example(i) for i in node.args[1]]  # type: ignore[union-attr]
    into, values = example(node.args[0]), example(node.args[2])
    known = all(isinstance(v, torch.Tensor) for v in (into, values, *(i for i in indices if i is not None)))
    return known and fills(into, indices, values)


def _is_mask(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bool, torch.uint8)


def is_foreign(value: Any) -> bool:
    """Whether JAX has no counterpart of a tensor, or of one in a tuple: by its dtype, or not strided."""
    if isinstance(value, (list, tuple)):
        return any(is_foreign(v) for v in value)
    if not isinstance(value, torch.Tensor):
        return False
    return value.layout != torch.strided or not has_jax_dtype(value.dtype)


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _is_getitem(node: fx.Node) -> bool:
    return node.target is getitem


class Plan:
    """The graph as a list of JAX steps; ``run`` evaluates the named outputs and what they need.

    Whatever depends on no input was evaluated once, by torch, and is a NumPy constant.
    """

    def __init__(self, analysis: Analysis) -> None:
        traced = analysis.traced
        self.num_inputs = len(traced.inputs)
        self.steps: list[_Step] = []
        self.operators: list[str] = []
        self._step_places: dict[int, int] = {}
        self.constants: dict[int, np.ndarray] = {}
        self.places: dict[fx.Node, _Ref] = {n: _Ref(i) for i, n in enumerate(traced.inputs)}
        self._next = self.num_inputs
        self._digest = hashlib.sha256()
        folded = _folded(analysis)
        for node in traced.graph.nodes:
            if node in self.places or node.op in ("output", "placeholder") or node not in analysis.live:
                continue
            if node in folded:
                self._add_constant(node, folded[node])
            elif analysis.depends[node]:
                self._add_step(node)
        self.outputs = {name: self._output(value) for name, value in traced.outputs.items()}
        self._digest.update(repr({k: v for k, v in self.outputs.items() if isinstance(v, _Ref)}).encode())
        self.digest = self._digest.hexdigest()
        self._orders: dict[tuple[str, ...], list[int]] = {}

    @property
    def num_ops(self) -> int:
        return len(self.steps)

    def run(self, inputs: tuple, names: tuple[str, ...]) -> dict[str, Any]:
        """The outputs ``names`` at the inputs, in the order of the traced function's arguments."""
        values: dict[int, Any] = dict(enumerate(inputs))
        for at in self._order(names):
            values[self._step_places[at]] = self._apply(self.steps[at], values)
        return {name: self._value(self.outputs[name], values) for name in names}

    def _apply(self, step: _Step, values: Mapping[int, Any]) -> Any:
        if step.kind in ("view", "product") and (narrow := self._narrow(step, values)) is not None:
            return narrow
        if step.kind not in ("pointwise", "expand") or step.shape is None:
            args, kwargs = (_resolve(t, values, self.constants, _full) for t in (step.args, step.kwargs))
            return _as_recorded(step.rule(*args, **kwargs), step.dtypes)
        args, kwargs = (_resolve(t, values, self.constants, _base) for t in (step.args, step.kwargs))
        result = args[0] if step.kind == "expand" else step.rule(*args, **kwargs)
        result = _as_recorded(result, step.dtypes)
        return result if jnp.shape(result) == step.shape else _Wide(result, step.shape)

    def _narrow(self, step: _Step, values: Mapping[int, Any]) -> Any | None:
        """A view that changes nothing, and a product with one matrix for all, need no broadcast."""
        first = values.get(step.args[0]) if isinstance(step.args[0], _Ref) else None
        if not isinstance(first, _Wide):
            return None
        if step.kind == "view":
            return first if step.shape == first.shape else None
        matrix = first.base.reshape(first.base.shape[-2:]) if first.base.size == _last(first) else None
        if matrix is None or not isinstance(step.args[1], _Ref):
            return None
        other = _resolve(step.args[1], values, self.constants, _full)
        return _as_recorded(jnp.swapaxes(jnp.swapaxes(other, -1, -2) @ matrix.T, -1, -2), step.dtypes)

    def _value(self, output: Any, values: Mapping[int, Any]) -> Any:
        if isinstance(output, _Ref):
            return _full(values[output]) if output in values else jnp.asarray(self.constants[output])
        return jnp.asarray(output)

    def _order(self, names: tuple[str, ...]) -> list[int]:
        """The steps that the outputs need, in order."""
        if names not in self._orders:
            by_place = {place: at for at, place in self._step_places.items()}
            seen: set[int] = set()
            stack = [by_place[o] for n in names if isinstance(o := self.outputs[n], _Ref) and o in by_place]
            while stack:
                at = stack.pop()
                if at not in seen:
                    seen.add(at)
                    stack.extend(by_place[p] for p in self.steps[at].needs if p in by_place)
            self._orders[names] = sorted(seen)
        return self._orders[names]

    def _add_constant(self, node: fx.Node, value: Any) -> None:
        place = self._claim(node)
        array = np.asarray(value.detach().resolve_conj().resolve_neg().numpy())
        self.constants[place] = array.astype(jax_dtype(value.dtype)) if array.dtype.kind in "fc" else array
        self._digest.update(f"const {array.dtype} {array.shape}".encode())
        self._digest.update(np.ascontiguousarray(array).tobytes())

    def _add_step(self, node: fx.Node) -> None:
        args, kwargs = self._reference(node.args), self._reference(node.kwargs)
        rule = getitem if _is_getitem(node) else find_rule(node.target)
        if rule is None:
            raise ValueError(f"no rule for {name_of(node.target)}")  # refused before
        needs = tuple(_refs(args)) + tuple(_refs(kwargs))
        shape = tuple(value.shape) if isinstance(value := example(node), torch.Tensor) else None
        step = _Step(rule, args, kwargs, _dtypes(value), needs, _kind(node), shape)
        place = self._claim(node)
        self._step_places[len(self.steps)] = place
        self.steps.append(step)
        self.operators.append(name_of(node.target))
        own = user_rule(node.target)
        self._digest.update(f"{name_of(node.target)} {args!r} {kwargs!r} {own!r}".encode())

    def _claim(self, node: fx.Node) -> int:
        place = _Ref(self._next)
        self.places[node], self._next = place, self._next + 1
        return place

    def _reference(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self.places[value]
        if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
            return type(value)(self._reference(v) for v in value)
        if isinstance(value, Mapping):
            return {k: self._reference(v) for k, v in value.items()}
        return value

    def _output(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self.places[value]
        return np.asarray(value.detach().numpy()) if isinstance(value, torch.Tensor) else np.asarray(value)


def _kind(node: fx.Node) -> str:
    known = _KINDS.get(name_of(node.target))
    if known is not None:
        return known
    pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ()) or name_of(node.target) in _POINTWISE
    return "pointwise" if pointwise else "other"


def _last(value: _Wide) -> int:
    """Number of elements of the last two axes."""
    return int(np.prod(value.shape[-2:]))


def _full(value: Any) -> Any:
    return value.full() if isinstance(value, _Wide) else value


def _base(value: Any) -> Any:
    return value.base if isinstance(value, _Wide) else value


def _resolve(
    tree: Any,
    values: Mapping[int, Any],
    constants: Mapping[int, np.ndarray],
    form: Callable[[Any], Any],
) -> Any:
    if isinstance(tree, _Ref):
        return form(values[tree]) if tree in values else constants[tree]
    if isinstance(tree, (list, tuple)) and not isinstance(tree, torch.Size):
        return type(tree)(_resolve(v, values, constants, form) for v in tree)
    if isinstance(tree, Mapping):
        return {k: _resolve(v, values, constants, form) for k, v in tree.items()}
    return tree


def _refs(tree: Any) -> list[int]:
    if isinstance(tree, _Ref):
        return [tree]
    if isinstance(tree, (list, tuple)):
        return [r for v in tree for r in _refs(v)]
    if isinstance(tree, Mapping):
        return [r for v in tree.values() for r in _refs(v)]
    return []


def _dtypes(value: Any) -> Any:
    """The dtypes of a node's tensors, to which results are brought: promotion rules differ in corners."""
    if isinstance(value, torch.Tensor):
        return jax_dtype(value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple(_dtypes(v) for v in value)
    return None


def _as_recorded(result: Any, dtypes: Any) -> Any:
    if dtypes is None or result is None:
        return result
    if isinstance(dtypes, tuple):
        return tuple(_as_recorded(r, d) for r, d in zip(result, dtypes, strict=False))
    array = jnp.asarray(result)
    return array if array.dtype == dtypes else array.astype(dtypes)


def _folded(analysis: Analysis) -> dict[fx.Node, torch.Tensor]:
    """Values of the live nodes that depend on no input and that a dependent node or an output uses."""
    traced = analysis.traced
    values: dict[fx.Node, Any] = {}

    def look_up(tree: Any) -> Any:
        return fx.node.map_arg(tree, lambda n: values[n])

    with torch.no_grad():
        for node in traced.graph.nodes:
            if node not in analysis.live or analysis.depends[node] or node.op == "output":
                continue
            if node.op == "get_attr":
                values[node] = traced.constants[str(node.target)]
            else:
                values[node] = node.target(*look_up(node.args), **look_up(node.kwargs))
    wanted = {n for n in traced.outputs.values() if isinstance(n, fx.Node)}
    for node in values:
        if any(analysis.depends.get(user) and user in analysis.live for user in node.users):
            wanted.add(node)
    return {n: v for n, v in values.items() if n in wanted and isinstance(v, torch.Tensor)}


__all__ = ["Analysis", "Plan", "Problems", "origin_of"]
