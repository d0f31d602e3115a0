"""Processes that share the rows of each step, by ``torch.distributed``; all else they do alike.

Every process is seeded equally and holds all params. It takes its part of the rows of a step, and gradients
are averaged over processes. With the sites of rows scaled to all data, that is the gradient of the joined
batch.
"""

from __future__ import annotations

import atexit
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
import torch.distributed as dist
from pyro import poutine
from pyro.infer.util import zero_grads
from pyro.poutine.messenger import Messenger

from ppl_lvm.core import Problem

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI


def ranks_of(engine: SVI, problem: Problem) -> Ranks | None:
    """The processes of a run; None for a run of one that does not ask for others."""
    return Ranks(str(problem.data_plate)) if engine.distributed else None


class Ranks:
    """This process among the others. A process group that the user has not set up is made, and kept until the
    process ends: gloo for tensors on CPU, NCCL for those on GPUs."""

    def __init__(self, plate: str) -> None:
        if not dist.is_initialized():
            dist.init_process_group()
            atexit.register(_end)
        self.rank, self.size, self.plate = dist.get_rank(), dist.get_world_size(), plate
        self._checked = False

    def share(self, rows: Any) -> Any:
        """This process's part of the rows of a step."""
        count = len(rows) // self.size
        return rows[self.rank * count : (self.rank + 1) * count]

    def noise(self) -> OwnNoise:
        return OwnNoise(self.plate, self.rank, self.size)

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Each tensor becomes the mean of those of all processes."""
        flat = torch.cat([t.detach().reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.detach().copy_(mean.view_as(tensor))

    def step(self, svi: Any, batch: Mapping[str, Any]) -> float:
        """What ``svi.step`` does, at the mean gradient; NaN where a process has no finite loss.

        What one process finds wrong with its rows it raises, after it has told the others.
        """
        failed, loss = None, math.nan
        try:
            with poutine.trace(param_only=True) as capture, self.noise():
                loss = float(svi.loss_and_grads(svi.model, svi.guide, **batch))
        except ValueError as error:
            failed = error
        told = torch.tensor([loss], dtype=torch.float64)
        self.average([told])
        if failed is not None:
            raise failed
        if not torch.isfinite(told):
            return math.nan
        nodes: Any = capture.trace.nodes
        params = [nodes[name]["value"].unconstrained() for name in sorted(nodes)]
        self.average([p.grad for p in params if p.grad is not None])
        svi.optim(params)
        zero_grads(params)
        return float(told)

    def check_same(self, **figures: Any) -> None:
        """At the first call of a run: raise ``ValueError`` where processes differ in numbers or arrays."""
        if self._checked:
            return
        self._checked = True
        own = torch.tensor([_fingerprint(v) for v in figures.values()])
        low, high = own.clone(), own.clone()
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        different = [name for name, equal in zip(figures, low == high, strict=True) if not equal]
        if different:
            raise ValueError(
                f"distributed: processes differ in {different}; give all of them the same script, data, seed "
                "and settings, and a checkpoint folder that all hosts share."
            )


class OwnNoise(Messenger):
    """At sites of the data plate the draws of all processes are made in turn, and each keeps its own.

    Their generators then stay equal, so that sites outside the plate are drawn alike on all of them, while no
    two rows share their noise.
    """

    active: ClassVar[OwnNoise | None] = None

    def __init__(self, plate: str, rank: int, size: int) -> None:
        super().__init__()
        self.plate, self.rank, self.size = plate, rank, size

    def __enter__(self) -> Self:
        OwnNoise.active = self
        return super().__enter__()

    def __exit__(self, *reason: Any) -> None:
        OwnNoise.active = None
        super().__exit__(*reason)

    def of(self, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal noise of this process's rows."""
        return [torch.randn(*shape) for _ in range(self.size)][self.rank]

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["value"] is not None:
            return
        if not any(frame.name == self.plate for frame in msg["cond_indep_stack"]):
            return
        self._skip(msg, self.rank)
        msg["value"] = msg["fn"](*msg["args"], **msg["kwargs"])
        self._skip(msg, self.size - 1 - self.rank)

    def _skip(self, msg: Any, times: int) -> None:
        with torch.no_grad():
            for _ in range(times):
                msg["fn"](*msg["args"], **msg["kwargs"])


def _fingerprint(value: Any) -> int:
    """48 bits of a number's or an array's bytes."""
    return int.from_bytes(
        hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=6).digest(), "big"
    )


def _end() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
