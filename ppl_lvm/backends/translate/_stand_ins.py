"""What stands in for functions of Pyro while a program is recorded.

Each gives the value that Pyro's own function gives, bit for bit, in a form whose derivative can be recorded.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pyro.util
import torch
from pyro.ops import special, tensor_utils

_SAFE_CHOLESKY = tensor_utils.safe_cholesky


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Put the stand-ins in place, and Pyro's own functions back."""
    own = special._SafeLog.apply
    special._SafeLog.apply = staticmethod(torch.ops.ppl_lvm.safe_log)  # type: ignore[method-assign]
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_everywhere(_SAFE_CHOLESKY, safe_cholesky))
            stack.enter_context(_everywhere(pyro.util.torch_isnan, _nowhere))
            stack.enter_context(_everywhere(pyro.util.torch_isinf, _nowhere))
            yield
    finally:
        special._SafeLog.apply = own  # type: ignore[method-assign]


@torch.library.custom_op("ppl_lvm::safe_log", mutates_args=())
def _safe_log(x: torch.Tensor) -> torch.Tensor:
    """Pyro's ``safe_log`` as one operator, for its derivative is not that of ``log``."""
    return x.log()


def safe_cholesky(x: torch.Tensor) -> torch.Tensor:
    """Cholesky factor (..., n, n) of a matrix with a small jitter, a constant, on its diagonal.

    Pyro adds the jitter through ``x.data``, behind autograd's back; recorded as it is, that would hide the
    derivative with respect to the matrix as well.
    """
    jitter = tensor_utils.CHOLESKY_RELATIVE_JITTER
    if x.size(-1) == 1 or not jitter:
        return _SAFE_CHOLESKY(x)
    added = jitter * torch.finfo(x.dtype).eps * x.detach().abs().max(-1).values
    return torch.linalg.cholesky(x + added.diag_embed())


def _nowhere(x: Any) -> bool:
    """Pyro's tests for NaN and infinity guard warnings; a recorded program has no value to warn of."""
    del x
    return False


@contextlib.contextmanager
def _everywhere(own: Callable[..., Any], other: Callable[..., Any]) -> Iterator[None]:
    """Replace a function of Pyro in all of Pyro's modules, which import it by name."""
    modules = [m for name, m in list(sys.modules.items()) if name.split(".")[0] == "pyro"]
    holders = [m for m in modules if vars(m).get(own.__name__) is own]
    for module in holders:
        setattr(module, own.__name__, other)
    try:
        yield
    finally:
        for module in holders:
            setattr(module, own.__name__, own)
