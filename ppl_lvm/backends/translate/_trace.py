"""From a torch function to a graph of ATen operators whose nodes know their site and source line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from ppl_lvm.backends.translate._masked import without_masked_writes
from ppl_lvm.backends.translate._recorder import Recorded, Stamp, record
from ppl_lvm.backends.translate._stand_ins import stand_ins
from ppl_lvm.backends.translate.rules import user_rule
from ppl_lvm.backends.translate.rules.decomposed import decompositions


@dataclass
class Traced:
    """A graph with named outputs; ``outputs`` maps names to nodes, or to tensors that depend on no input.

    ``constants`` has the tensors of the graph's ``get_attr`` nodes.
    """

    graph: fx.Graph
    constants: dict[str, torch.Tensor]
    inputs: tuple[fx.Node, ...]
    outputs: dict[str, Any]


def trace(evaluate: Callable[..., dict[str, torch.Tensor]], flat: tuple[torch.Tensor, ...]) -> Traced:
    """Record ``evaluate(flat, mark)`` at example tensors, in-place writes made functional.

    Raises whatever the user's code raises while it runs.
    """
    stamp = Stamp()
    names: list[str] = []
    rewritten = decompositions(lambda op: user_rule(op) is not None)

    def run(*args: torch.Tensor) -> list[torch.Tensor]:
        with _watching_lists(stamp):
            out = evaluate(args, stamp.mark)
        names[:] = list(out)
        return [out[name] for name in names]

    with stand_ins(), torch.no_grad(), _plain_attention(), _uncompiled():
        found = record(run, flat, rewritten, stamp)
        if _mutates(found):
            found = _functional(found, flat, rewritten, stamp)
    results = without_masked_writes(found.graph, found.results)
    return Traced(found.graph, found.constants, found.inputs, dict(zip(names, results, strict=True)))


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention in plain operators: its fused kernels are one opaque operator each, that could drop out."""
    mha = torch.backends.mha
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(before)


def _uncompiled() -> AbstractContextManager[Any]:
    """Parts under ``torch.compile`` run as they are written; torch's compiler is not loaded to say so."""
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()


@contextlib.contextmanager
def _watching_lists(stamp: Stamp) -> Iterator[None]:
    """Record that values go to lists and NumPy arrays, which no dispatch mode sees."""

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def leave(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if x.numel() and not stamp.leaving:
                stamp.leaving = True
                try:
                    x.reshape(-1)[0].item()
                finally:
                    stamp.leaving = False
            return method(x, *args, **kwargs)

        return leave

    names = ("tolist", "numpy")  # of torch's base class: set on the class above it, and deleted again
    for name in names:
        setattr(torch.Tensor, name, watched(getattr(torch.Tensor, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(torch.Tensor, name)


def _mutates(found: Recorded) -> bool:
    return any(
        node.op == "call_function" and getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        for node in found.graph.nodes
    )


def _functional(found: Recorded, flat: tuple[torch.Tensor, ...], rewritten: Any, stamp: Stamp) -> Recorded:
    """The same graph without in-place writes; nodes keep the origin of what they replace."""

    def replay(*args: torch.Tensor) -> list[Any]:
        values: dict[fx.Node, Any] = dict(zip(found.inputs, args, strict=True))
        for node in found.graph.nodes:
            if node.op == "placeholder":
                continue
            stamp.inherited = node.meta["origin"]
            if node.op == "get_attr":  # as tensors that writes can be made functional in
                values[node] = torch.ops.aten.lift_fresh_copy(found.constants[str(node.target)])
            else:
                own_args, own_kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
                values[node] = node.target(*own_args, **own_kwargs)
        return [values[r] if isinstance(r, fx.Node) else r for r in found.results]

    try:
        return record(torch.func.functionalize(replay, remove="mutations"), flat, rewritten, stamp)
    finally:
        stamp.inherited = None


__all__ = ["Traced", "trace"]
