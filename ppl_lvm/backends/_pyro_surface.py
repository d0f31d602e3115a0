"""A Pyro program's log density as a function of a flat NumPy vector, with gradient and Hessian."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer.autoguide.initialization import init_to_uniform, init_to_value
from pyro.infer.mcmc.util import initialize_model

from ppl_lvm.backends._pyro_density import EnumerateAll
from ppl_lvm.backends._pyro_trace import HoldParams, ImproperOrigin, to_torch
from ppl_lvm.core import Problem


class PyroSurface:
    """The log density over unconstrained coordinates (size,), discrete sites summed out.

    ``jacobian=False`` leaves the transforms' Jacobians out: the density of the constrained values. ``start``
    (size,) is a point with a finite density, at the values of ``begin`` where it has any.
    """

    def __init__(
        self,
        problem: Problem,
        held: Mapping[str, np.ndarray],
        *,
        jacobian: bool,
        begin: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        args = to_torch(problem.arguments)
        model = HoldParams({**problem.model.fixed_params, **held})(problem.model.pyro.model)
        values = {k: to_torch(np.asarray(v, dtype=problem.dtype)) for k, v in (begin or {}).items()}
        with warnings.catch_warnings(), pyro.get_param_store().scope():
            warnings.simplefilter("ignore")  # Pyro warns about sites that we enumerate on purpose
            start, self._potential, self._maps, _ = initialize_model(
                EnumerateAll()(ImproperOrigin()(model)),
                model_kwargs=args,
                max_plate_nesting=problem.max_plate_nesting,
                init_strategy=init_to_value(values=values, fallback=init_to_uniform),
            )
        self._shapes = {s.name: start[s.name].shape for s in problem.latents(discrete=False)}
        self._dtype = getattr(torch, problem.dtype)
        self._jacobian = jacobian
        self.start = np.concatenate([start[n].detach().numpy().ravel() for n in self._shapes])
        self.size = len(self.start)

    def value_and_gradient(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = self._tensor(flat).requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = self._log_p(point)
            (slope,) = torch.autograd.grad(value, point)
        return float(value.detach()), slope.numpy().astype(float)

    def hessian(self, flat: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.autograd.functional.hessian(self._log_p, self._tensor(flat))
        return found.numpy().astype(float)

    def values(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Constrained values by site of coordinates (size,)."""
        with torch.no_grad():
            return {n: self._maps[n].inv(v).numpy() for n, v in self._split(self._tensor(flat)).items()}

    def _log_p(self, flat: torch.Tensor) -> torch.Tensor:
        z = self._split(flat)
        total = -self._potential(z)
        if self._jacobian:
            return total
        # the maps lead to unconstrained values: their own Jacobians are the negatives of what is left out
        terms = [self._maps[n].log_abs_det_jacobian(self._maps[n].inv(v), v).sum() for n, v in z.items()]
        return total + torch.stack(terms).sum()

    def _tensor(self, flat: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(flat), dtype=self._dtype)

    def _split(self, flat: torch.Tensor) -> dict[str, Any]:
        out, at = {}, 0
        for name, shape in self._shapes.items():
            out[name] = flat[at : at + shape.numel()].reshape(shape)
            at += shape.numel()
        return out
