"""From a torch function to a graph of ATen operators whose nodes know their site and source line."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from ppl_lvm.backends.translate._masked import without_masked_writes
from ppl_lvm.backends.translate._stand_ins import stand_ins
from ppl_lvm.backends.translate.rules import user_rule
from ppl_lvm.backends.translate.rules.decomposed import decompositions

_OWN = str(Path(__file__).resolve().parents[2])
_LIBRARIES = tuple(
    str(Path(module.__file__ or "").parent) for module in (torch, pyro, contextlib) if module.__file__
) + (_OWN, sysconfig.get_path("stdlib"))


@dataclass
class Origin:
    """Where a node came from: the site being handled and the innermost line of the user's own code."""

    site: str = ""
    line: str = ""
    left: bool = False  # recorded only to show that a value went to a list or a NumPy array


@dataclass
class Traced:
    """A graph with named outputs; ``outputs`` maps names to nodes, or to tensors that depend on no input."""

    module: fx.GraphModule
    inputs: tuple[fx.Node, ...]
    outputs: dict[str, Any]


@dataclass
class _Recorder:
    """Stamps every node that the tracer creates."""

    site: str = ""
    inherited: Origin | None = None
    leaving: bool = False
    stamped: set[int] = field(default_factory=set)

    @contextlib.contextmanager
    def mark(self, site: str) -> Iterator[None]:
        before, self.site = self.site, site
        try:
            yield
        finally:
            self.site = before

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        mode: Any = get_proxy_mode()
        tracer = mode.tracer
        create = tracer.create_node

        def create_and_stamp(*args: Any, **kwargs: Any) -> fx.Node:
            node = create(*args, **kwargs)
            node.meta["origin"] = self.inherited or Origin(self.site, user_line(), self.leaving)
            return node

        tracer.create_node = create_and_stamp
        try:
            yield
        finally:
            tracer.create_node = create

    @contextlib.contextmanager
    def watching_lists(self) -> Iterator[None]:
        """Record that values go to lists and NumPy arrays, which the tracer does not see."""

        def watched(method: Callable[..., Any]) -> Callable[..., Any]:
            def leave(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                if x.numel() and not self.leaving:
                    self.leaving = True
                    try:
                        x.reshape(-1)[0].item()
                    finally:
                        self.leaving = False
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


def trace(evaluate: Callable[..., dict[str, torch.Tensor]], flat: tuple[torch.Tensor, ...]) -> Traced:
    """Record ``evaluate(flat, mark)`` at example tensors, in-place writes made functional.

    Raises whatever the user's code raises while it runs.
    """
    recorder = _Recorder()
    names: list[str] = []

    def run(*args: torch.Tensor) -> list[torch.Tensor]:
        with recorder.recording(), recorder.watching_lists():
            out = evaluate(args, recorder.mark)
        names[:] = list(out)
        return [out[name] for name in names]

    # Attention in plain operators: its fused kernels are one opaque operator each, that could drop out.
    with stand_ins(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module = _record(run, flat)
        if _mutates(module):
            module = without_masked_writes(_functional(module, recorder, flat))
    inputs = tuple(n for n in module.graph.nodes if n.op == "placeholder")
    (results,) = next(n for n in module.graph.nodes if n.op == "output").args
    return Traced(module, inputs, dict(zip(names, results, strict=True)))


def _record(function: Callable, flat: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    table = decompositions(lambda op: user_rule(op) is not None)
    return make_fx(
        function, decomposition_table=table, tracing_mode="real", _error_on_data_dependent_ops=False
    )(*flat)


def _mutates(module: fx.GraphModule) -> bool:
    return any(
        node.op == "call_function" and getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        for node in module.graph.nodes
    )


def _functional(
    module: fx.GraphModule, recorder: _Recorder, flat: tuple[torch.Tensor, ...]
) -> fx.GraphModule:
    """The same graph without in-place writes; nodes keep the origin of what they replace."""

    constants: dict[str, torch.Tensor] = {}

    class Replay(fx.Interpreter):
        def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
            """Constants as tensors that writes can be made functional in, one of each for all its users."""
            if target not in constants:
                constants[target] = torch.ops.aten.lift_fresh_copy(super().get_attr(target, args, kwargs))
            return constants[target]

        def run_node(self, n: fx.Node) -> Any:
            recorder.inherited = n.meta.get("origin")
            return super().run_node(n)

    def run(*args: torch.Tensor) -> Any:
        with recorder.recording():
            return Replay(module).run(*args)

    return _record(torch.func.functionalize(run, remove="mutations"), flat)


def origin_of(node: fx.Node) -> Origin:
    return node.meta.get("origin") or Origin()


def example(node: Any) -> Any:
    """The tensor (or tuple) that a node had while it was recorded, or None."""
    return node.meta.get("val") if isinstance(node, fx.Node) else None


__all__ = ["Mapping", "Origin", "Traced", "example", "is_users", "origin_of", "trace", "user_line"]
