"""``x[mask] = f(y[mask])`` with a mask that depends on latents, as a ``where`` over whole tensors.

Recorded as it is, ``y[mask]`` has a shape that depends on values. Where all that is done with it is to go,
element by element, into the same mask of another tensor, the shape does not matter in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

_INDEX, _PUT = torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default


@torch.library.custom_op("ppl_lvm::take_masked", mutates_args=())
def _take_masked(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """``x`` with the entries outside of the mask replaced by one inside, where what follows is defined."""
    kept = x.reshape(mask.numel(), -1)
    first = kept[mask.reshape(-1).int().argmax()]
    return torch.where(mask.reshape(-1, 1), kept, first).reshape(x.shape)


@torch.library.custom_op("ppl_lvm::put_masked", mutates_args=())
def _put_masked(x: torch.Tensor, mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``x`` with the entries of ``values`` where the mask holds; all three are whole."""
    return torch.where(mask.reshape(mask.shape + (1,) * (x.dim() - mask.dim())), values, x)


def without_masked_writes(graph: fx.Graph, results: tuple[Any, ...]) -> tuple[Any, ...]:
    """Rewrite, in place, every write ``x[mask] = f(y[mask])`` of a graph that allows it; its results then."""
    for node in list(graph.nodes):
        mask = _one_mask(node) if node.target is _PUT and not _accumulates(node) else None
        if mask is None or not isinstance(node.args[2], fx.Node):
            continue
        if _follows(node.args[2], mask):
            new = _rewrite(graph, node, mask, keep=[r for r in results if r is not node])
            results = tuple(new if r is node else r for r in results)
    return results


def _accumulates(node: fx.Node) -> bool:
    return bool(node.args[3] if len(node.args) > 3 else node.kwargs.get("accumulate", False))


def _one_mask(node: fx.Node) -> fx.Node | None:
    """The mask of a read or write that has one, over the tensor's first axes."""
    indices: Any = node.args[1]
    if len(indices) != 1 or not isinstance(indices[0], fx.Node):
        return None
    value = indices[0].meta.get("val")
    return indices[0] if isinstance(value, torch.Tensor) and value.dtype == torch.bool else None


def _follows(node: fx.Node, mask: fx.Node) -> bool:
    """Whether a node is read by the mask, or made from such reads element by element."""
    if node.target is _INDEX:
        return _one_mask(node) is mask
    if _drops_one(node):
        return _follows(node.args[0], mask)  # type: ignore[arg-type]
    if torch.Tag.pointwise not in getattr(node.target, "tags", ()):
        return False
    inputs = node.all_input_nodes
    return any(_follows(n, mask) for n in inputs) and all(_follows(n, mask) or _is_scalar(n) for n in inputs)


def _drops_one(node: fx.Node) -> bool:
    """Whether a view takes off a first axis of length 1, as torch does where a mask held at one place."""
    if node.target is not torch.ops.aten.view.default:
        return False
    own = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    return len(own) > 0 and own[0] == 1 and tuple(node.args[1]) == tuple(own[1:])  # type: ignore[arg-type]


def _is_scalar(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dim() == 0


def _rewrite(graph: fx.Graph, write: fx.Node, mask: fx.Node, keep: list[Any]) -> fx.Node:
    """The node that replaces a write; what only the write needed is gone, but for what ``keep`` has."""
    whole: dict[fx.Node, fx.Node] = {}

    def made(target: Callable, args: tuple, kwargs: dict, like: fx.Node, shape: torch.Size) -> fx.Node:
        node = graph.call_function(target, args, kwargs)
        node.meta = {**like.meta, "val": like.meta["val"].new_empty(shape)}
        return node

    def widened(node: fx.Node) -> fx.Node:
        if node in whole or not _follows(node, mask):
            return whole.get(node, node)
        if _drops_one(node):
            new = widened(node.args[0])  # type: ignore[arg-type]
        elif node.target is _INDEX:
            shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
            new = made(torch.ops.ppl_lvm.take_masked, (node.args[0], mask), {}, node, shape)
        else:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), widened)
            inputs = [
                n.meta["val"].shape for n in fx.node.map_arg(args, lambda n: n) if isinstance(n, fx.Node)
            ]
            new = made(node.target, args, kwargs, node, torch.broadcast_shapes(*inputs))  # type: ignore[arg-type]
        whole[node] = new
        return new

    with graph.inserting_before(write):
        values = widened(write.args[2])  # type: ignore[arg-type]
        into = write.args[0]
        new = made(torch.ops.ppl_lvm.put_masked, (into, mask, values), {}, write, write.meta["val"].shape)
    write.replace_all_uses_with(new)
    for node in (write, *reversed(whole)):  # users before what they use
        if not node.users and node not in keep:
            graph.erase_node(node)
    return new
