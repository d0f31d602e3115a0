"""A torch dispatch mode that writes every ATen operator it sees into a graph.

Torch's own tracer does this too, but brings torch's compiler along, and sympy with it: seconds of
imports, more than all the rest of a short fit. Nothing of that is needed: shapes are those of the examples.
"""

from __future__ import annotations

import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode, autograd_would_have_decomposed
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

_OWN = str(Path(__file__).resolve().parents[2])
_LIBRARIES = tuple(str(Path(module.__file__ or "").parent) for module in (torch, pyro) if module.__file__) + (
    _OWN,
    sysconfig.get_path("stdlib"),
)
_ATEN = torch.ops.aten


@dataclass
class Origin:
    """Where a node came from: the site being handled and the innermost line of the user's own code."""

    site: str = ""
    line: str = ""
    left: bool = False  # recorded only to show that a value went to a list or a NumPy array


@dataclass
class Stamp:
    """What the nodes that are recorded now are marked with."""

    site: str = ""
    inherited: Origin | None = None
    leaving: bool = False

    def origin(self) -> Origin:
        return self.inherited or Origin(self.site, user_line(), self.leaving)

    @contextmanager
    def mark(self, site: str) -> Iterator[None]:
        before, self.site = self.site, site
        try:
            yield
        finally:
            self.site = before


@dataclass
class Recorded:
    """A graph; the tensors that its ``get_attr`` nodes name; its inputs; and what the function returned, as
    nodes, or tensors that no operator made."""

    graph: fx.Graph
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    inputs: tuple[fx.Node, ...] = ()
    results: tuple[Any, ...] = ()


class _Recorder(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: there is nothing to hide from torch's compiler, which is not loaded for it then."""
        return False

    def __init__(self, rewritten: Mapping[Any, Callable[..., Any]], stamp: Stamp) -> None:
        super().__init__()
        self.rewritten, self.stamp = rewritten, stamp
        self.out = Recorded(fx.Graph())
        self.nodes: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._tensors_in: Counter[int] = Counter()  # tensors seen by the memory that they are in

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = dict(kwargs or {})
        if func in self.rewritten:
            with self:
                return self.rewritten[func](*args, **kwargs)
        if autograd_would_have_decomposed(func, tree_leaves((args, kwargs))):  # asked for by such a function
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if func is _ATEN.lift_fresh.default:  # a literal that the program may write into: a copy at each run
            func = _ATEN.lift_fresh_copy.default
        noted = self._noted(args), self._noted(kwargs)
        node = self.out.graph.call_function(self._without_writing(func, args) or func, *noted)
        node.meta["origin"] = self.stamp.origin()
        result = func(*args, **kwargs)
        self._follow(result, node)
        return result

    def _without_writing(self, func: Any, args: tuple) -> Any | None:
        """The operator that gives anew what ``func`` writes in place, if no other tensor shows the write."""
        schema = func._schema
        if not schema.is_mutable or not schema.name.endswith("_") or not isinstance(args[0], torch.Tensor):
            return None
        into, others = args[0], [a for a in args[1:] if isinstance(a, torch.Tensor)]
        own = into.layout == torch.strided and self._tensors_in[_place(into)] == 1
        if not own or into not in self.nodes or self.nodes[into].op != "call_function":
            return None
        if any(other.dtype not in (into.dtype, torch.bool) for other in others):
            return None
        packet = getattr(_ATEN, schema.name.removeprefix("aten::")[:-1], None)
        pure = getattr(packet, func._overloadname, None)
        if pure is None or pure in self.rewritten or _types(pure) != _types(func):
            return None
        return pure

    def take(self, value: torch.Tensor, name: str) -> None:
        node = self.out.graph.placeholder(name)
        node.meta["origin"] = Origin()
        self._follow(value, node)
        self.out.inputs += (node,)

    def node_of(self, value: torch.Tensor) -> Any:
        return self.nodes.get(value, value)

    def _noted(self, tree: Any) -> Any:
        """Arguments with nodes in place of tensors."""
        if isinstance(tree, torch.Tensor):
            return self.nodes[tree] if tree in self.nodes else self._constant(tree)
        if isinstance(tree, (list, tuple)) and not isinstance(tree, torch.Size):
            return type(tree)(self._noted(v) for v in tree)
        if isinstance(tree, dict):
            return {k: self._noted(v) for k, v in tree.items()}
        return tree

    def _constant(self, value: torch.Tensor) -> fx.Node:
        name = f"constant_{len(self.out.constants)}"
        self.out.constants[name] = value  # kept, so that its place in ``nodes`` is not taken by another
        node = self.out.graph.create_node("get_attr", name)
        node.meta["origin"] = self.stamp.origin()
        self._follow(value, node)
        return node

    def _follow(self, result: Any, node: fx.Node) -> None:
        """Remember which node a result is; an operator that writes in place takes over its tensor's name."""
        node.meta["val"] = _outline(result)
        if isinstance(result, torch.Tensor):
            if result not in self.nodes and result.layout == torch.strided:
                self._tensors_in[_place(result)] += 1
            self.nodes[result] = node
        elif isinstance(result, (list, tuple)):
            for at, part in enumerate(result):
                if isinstance(part, torch.Tensor):
                    taken = self.out.graph.call_function(getitem, (node, at))
                    taken.meta["origin"] = node.meta["origin"]
                    self._follow(part, taken)


def getitem(values: Any, index: int) -> Any:
    """One of the results of an operator that has several."""
    return values[index]


def record(
    function: Callable[..., Any],
    inputs: tuple[torch.Tensor, ...],
    rewritten: Mapping[Any, Callable[..., Any]],
    stamp: Stamp,
) -> Recorded:
    """Run ``function(*inputs)``, which gives a list of tensors, and note every operator on the way.

    Operators in ``rewritten`` are replaced by what the function given there does.
    """
    recorder = _Recorder(rewritten, stamp)
    fresh = tuple(value.detach() for value in inputs)  # one tensor for each input, also where two are one
    for at, value in enumerate(fresh):
        recorder.take(value, f"input_{at}")
    with recorder:
        results = function(*fresh)
    recorder.out.results = tuple(recorder.node_of(value) for value in results)
    return recorder.out


def _types(op: Any) -> list[str]:
    """What an operator takes: ``pow_.Scalar`` and ``pow.Scalar`` differ in it."""
    return [str(argument.type) for argument in op._schema.arguments]


def _place(value: torch.Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _outline(value: Any) -> Any:
    """Shape and dtype of a tensor without its memory; of a tuple's tensors; other values as they are."""
    if isinstance(value, (list, tuple)):
        return type(value)(_outline(v) for v in value)
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def is_users(filename: str) -> bool:
    """Whether a frame of this file is the user's own code, not of torch, Pyro, other packages or ours."""
    return not filename.startswith((*_LIBRARIES, "<frozen")) and "site-packages" not in filename


def user_line() -> str:
    """``file.py:12`` of the innermost frame outside of the libraries, or nothing."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if is_users(name):
            return f"{Path(name).name}:{frame.f_lineno}" if not name.startswith("<") else ""
        frame = frame.f_back
    return ""


def origin_of(node: fx.Node) -> Origin:
    return node.meta.get("origin") or Origin()


def example(node: Any) -> Any:
    """Shape and dtype (a tensor without memory, or a tuple of them) of what a node gave, or None."""
    return node.meta.get("val") if isinstance(node, fx.Node) else None
