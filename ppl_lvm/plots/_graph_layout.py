"""Where the nodes and plates of a model's graph go: layers from top to bottom, a frame around each plate.

A plate is laid out like a small graph of its own and then placed as one block, so that frames never cross.
Sites in the same plate that lie in different ones besides get a frame each, which is what nesting allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ppl_lvm.structure import Node

GAP_X, GAP_Y = 0.26, 0.36  # inches between blocks
PAD, FOOT = 0.13, 0.21  # inside a frame; below, where the plate's name stands


@dataclass
class Block:
    """A node (``node``) or a plate with what lies in it (``inner``); sizes and the centre in inches."""

    label: str
    first: int
    node: Node | None = None
    inner: list[Block] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0
    x: float = 0.0
    y: float = 0.0

    def names(self) -> set[str]:
        return {self.node.name} if self.node is not None else {n for b in self.inner for n in b.names()}

    def parents(self) -> set[str]:
        return (
            set(self.node.parents) if self.node is not None else {n for b in self.inner for n in b.parents()}
        )

    def move(self, dx: float, dy: float) -> None:
        self.x, self.y = self.x + dx, self.y + dy
        for block in self.inner:
            block.move(dx, dy)

    def all(self) -> list[Block]:
        return [self, *(b for inner in self.inner for b in inner.all())]


def lay_out(
    nodes: Sequence[Node],
    sizes: Mapping[str, tuple[float, float]],
    labels: Mapping[str, tuple[str, float]],
    most: float,
) -> Block:
    """The whole graph as a block, its corner at (0, 0), y upwards.

    ``sizes`` are those of nodes, ``labels`` what stands in a plate's frame and how wide that is, ``most`` the
    width that a layer may take before it is broken in two; all in inches.
    """
    root = _blocks(nodes, labels)
    _place(root, sizes, most)
    root.move(root.width / 2 - root.x, root.height / 2 - root.y)
    return root


def _blocks(nodes: Sequence[Node], labels: Mapping[str, tuple[str, float]]) -> Block:
    root = Block("", -1)
    frames: dict[tuple[str, ...], Block] = {(): root}
    for i, node in enumerate(nodes):
        for depth in range(1, len(node.plates) + 1):
            path = node.plates[:depth]
            if path not in frames:
                frames[path] = Block(labels[path[-1]][0], i, width=labels[path[-1]][1] + 2 * PAD)
                frames[path[:-1]].inner.append(frames[path])
        frames[node.plates].inner.append(Block(node.name, i, node))
    return root


def _place(block: Block, sizes: Mapping[str, tuple[float, float]], most: float) -> None:
    """Sizes from the inside out; positions of what lies inside are relative to the block's centre."""
    if block.node is not None:
        block.width, block.height = sizes[block.node.name]
        return
    framed = block.label != ""
    for inner in block.inner:
        _place(inner, sizes, most - 2 * PAD)
    rows = _broken(_ordered(_layers(block.inner)), most)
    widths = [sum(b.width for b in row) + GAP_X * (len(row) - 1) for row in rows]
    heights = [max(b.height for b in row) for row in rows]
    block.width = max(block.width, max(widths) + 2 * PAD * framed)
    block.height = sum(heights) + GAP_Y * (len(rows) - 1) + (2 * PAD + FOOT) * framed
    top = block.height / 2 - PAD * framed
    for row, width, height in zip(rows, widths, heights, strict=True):
        left = -width / 2
        for inner in row:
            inner.move(left + inner.width / 2 - inner.x, top - height / 2 - inner.y)
            left += inner.width + GAP_X
        top -= height + GAP_Y


def _layers(blocks: list[Block]) -> list[list[Block]]:
    """Longest paths from above; then each block as low as what depends on it allows."""
    order = sorted(blocks, key=lambda b: b.first)
    names, wanted = [b.names() for b in order], [b.parents() for b in order]
    # between two frames arrows may run both ways; those against the order of the program are left out
    edges = [(i, j) for j in range(len(order)) for i in range(j) if names[i] & wanted[j]]
    depth = [0] * len(order)
    for i, j in edges:
        depth[j] = max(depth[j], depth[i] + 1)
    for i in reversed(range(len(order))):
        below = [depth[j] for k, j in edges if k == i]
        depth[i] = min(below) - 1 if below else depth[i]
    rows: list[list[Block]] = [[] for _ in range(max(depth) + 1)]
    for block, d in zip(order, depth, strict=True):
        rows[d].append(block)
    return [row for row in rows if row]


def _ordered(rows: list[list[Block]]) -> list[list[Block]]:
    """Each row in the order of the middles of what its blocks are joined to, in the row above and below."""
    for sweep in (rows, rows[::-1], rows):
        for before, row in pairwise(sweep):
            place = {n: (i + 0.5) / len(before) for i, b in enumerate(before) for n in b.names()}
            wants = {n: (i + 0.5) / len(before) for i, b in enumerate(before) for n in b.parents()}

            def middle(block: Block, place: dict = place, wants: dict = wants) -> float:
                near = [place[n] for n in block.parents() if n in place]
                near += [wants[n] for n in block.names() if n in wants]
                return sum(near) / len(near) if near else 0.5

            row.sort(key=middle)
    return rows


def _broken(rows: list[list[Block]], most: float) -> list[list[Block]]:
    found: list[list[Block]] = []
    for row in rows:
        found.append([])
        used = 0.0
        for block in row:
            if found[-1] and used + block.width > most:
                found.append([])
                used = 0.0
            found[-1].append(block)
            used += block.width + GAP_X
    return found


__all__ = ["Block", "lay_out"]
