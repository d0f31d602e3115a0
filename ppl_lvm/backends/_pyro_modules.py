"""Users' networks on loan: cast to the fit's dtype while a session runs, and given back as they were.

``pyro.module`` registers the parameters of a module that the program holds on to, so that a fit would
train the user's own object, in whatever dtype it has. Inside a session the first ``pyro.module`` of a
module notes its state and casts it; when the session ends the module gets back its own parameters,
dtype, values and gradients. Trained values are in ``Fit.params``.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import pyro
import torch


@contextlib.contextmanager
def modules_on_loan() -> Iterator[None]:
    """Within, ``pyro.module`` borrows; a session inside another borrows nothing twice."""
    original = pyro.module
    loans: dict[int, _Loan] = {}

    def module(name: str, nn_module: Any, update_module_params: bool = False) -> Any:
        del update_module_params  # values held from outside must reach the module in every case
        if isinstance(nn_module, torch.nn.Module) and not inspect.isclass(nn_module):
            if id(nn_module) not in loans:
                loans[id(nn_module)] = _Loan(nn_module)
            nn_module.to(torch.get_default_dtype())
        return original(name, nn_module, update_module_params=True)

    pyro.module = module  # restored below
    try:
        yield
    finally:
        pyro.module = original
        for loan in loans.values():
            loan.give_back()


class _Loan:
    """A module's own parameter objects and their contents, as they were."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.parameters = [(m, dict(m._parameters)) for m in module.modules()]
        owned = [p for _, own in self.parameters for p in own.values() if p is not None]
        self.contents = [(p, p.data.clone(), p.grad) for p in owned]
        self.buffers = [
            (m, {k: b.clone() for k, b in m._buffers.items() if b is not None}) for m in module.modules()
        ]

    def give_back(self) -> None:
        for module, own in self.parameters:
            module._parameters.update(own)
        for parameter, data, grad in self.contents:
            parameter.data, parameter.grad = data, grad
        for module, buffers in self.buffers:
            module._buffers.update(buffers)
