"""In which precision a program computes: in torch a float64 scalar and a float32 tensor make float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from ppl_lvm.backends.translate._program import Program

_NUMPY = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: np.float16,
}


class _Narrowest(TorchFunctionMode):
    """Notes the least precise type among the results that depend on a latent."""

    def __init__(self) -> None:
        super().__init__()
        self.dtype = torch.float64

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.dtype in _NUMPY and out.requires_grad:
            self.dtype = max(self.dtype, out.dtype, key=lambda dtype: torch.finfo(dtype).eps)
        return out


def narrowest(program: Program, point: Mapping[str, np.ndarray], rest: Sequence[torch.Tensor]) -> Any:
    """NumPy's name of the least precise floating type in which the program computes with its latents.

    ``point`` holds unconstrained values by site, ``rest`` the program's other inputs.
    """
    values = [torch.tensor(np.asarray(point[name])).requires_grad_() for name in program.layout.sites]
    with _Narrowest() as seen:
        program.evaluate((*values, *rest))
    return _NUMPY[seen.dtype]


def nudged(point: Mapping[str, np.ndarray], dtype: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The point with each coordinate moved up or down by one unit in the last place that ``dtype`` has."""
    out = {}
    for name, value in point.items():
        own = np.asarray(value)
        unit = np.abs(np.spacing(own.astype(dtype))).astype(own.dtype)
        out[name] = np.asarray(own + rng.choice([-1.0, 1.0], own.shape) * unit, dtype=own.dtype)
    return out
