"""Steps whose rows are shared by devices of one process, or by processes: how many, and why not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ppl_lvm.core import Problem

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI

_TORCHRUN = "torchrun --nproc-per-node=2 script.py"


def num_shares(engine: SVI) -> int:
    """Devices or processes that share the rows of a step."""
    return processes() if engine.distributed else engine.num_devices


def processes() -> int:
    """Processes that ``torchrun`` has started, or that a process group set up by the user has."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "0"))


def is_first(engine: SVI) -> bool:
    """Whether this process speaks for all: it shows progress and writes checkpoints."""
    if not engine.distributed:
        return True
    import torch.distributed as dist

    return dist.get_rank() == 0 if dist.is_initialized() else os.environ.get("RANK", "0") == "0"


def not_shared(engine: SVI, problem: Problem) -> str | None:
    """Why the rows of a step cannot be shared as asked; None if they can, or if nothing was asked."""
    if not engine.distributed and engine.num_devices == 1:
        return None
    return _wrong_backend(engine, problem) or _too_few(engine) or _does_not_split(engine, problem)


def _wrong_backend(engine: SVI, problem: Problem) -> str | None:
    backend = engine.backend_for(problem)
    if engine.distributed and engine.num_devices > 1:
        return "distributed is of Pyro and num_devices of JAX; give one of them"
    if engine.distributed and backend != "pyro":
        return "distributed is of Pyro; use backend='pyro', or num_devices on JAX"
    if not engine.distributed and backend != "numpyro":
        return "num_devices is of JAX; use backend='numpyro', or distributed=True under torchrun on Pyro"
    return None


def _too_few(engine: SVI) -> str | None:
    if engine.distributed:
        if processes():
            return None
        return (
            f"distributed needs processes that torchrun has started (such as '{_TORCHRUN}'), and finds none"
        )
    import jax

    found = jax.local_devices()
    if engine.num_devices > len(found):
        return f"num_devices is {engine.num_devices}, and JAX finds {len(found)} here ({found[0].platform})"
    return None


def _does_not_split(engine: SVI, problem: Problem) -> str | None:
    """What a share of the rows cannot be taken of."""
    from ppl_lvm.engines._training import by_epochs, settled

    count, what = num_shares(engine), "processes" if engine.distributed else "devices"
    if not problem.batched or problem.num_data is None:
        return f"the {count} {what} share rows, and no argument of {problem.model.describe()} has rows"
    size = settled(engine, problem).batch_size or problem.num_data
    if size % count:
        return f"{count} {what} cannot share {size} rows equally; give a batch_size that {count} divides"
    if engine.distributed and getattr(engine.objective, "free_bits", 0.0) != 0 and by_epochs(engine, problem):
        return "free_bits are of the mean over a whole batch, which no process has; leave out distributed"
    return None
