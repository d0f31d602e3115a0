"""Inverse autoregressive flow of q(z | x) in torch (Kingma et al. 2016, algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.nn import functional

from ppl_lvm.models.vae._layout import Layout
from ppl_lvm.models.vae._masks import masks


class Step(nn.Module):
    """One autoregressive network: (z, context) -> (shift, gate before its sigmoid)."""

    def __init__(self, q: int, hidden: int, context: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(q, hidden)
        self.context = nn.Linear(context, hidden, bias=False)
        self.out = nn.Linear(hidden, 2 * q)
        self.skip = nn.Linear(context, 2 * q, bias=False)
        first, second = masks(q, hidden)
        self.register_buffer("first", torch.from_numpy(first), persistent=False)
        self.register_buffer("second", torch.from_numpy(second), persistent=False)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        own: Any = self
        first, second = (m.to(z.dtype) for m in (own.first, own.second))
        inner = functional.linear(z, own.hidden.weight * first, self.hidden.bias) + self.context(context)
        out = functional.linear(functional.elu(inner), own.out.weight * second, self.out.bias)
        shift, gate = (out + self.skip(context)).chunk(2, -1)
        return shift, gate + 1.5  # near the identity at first


class Autoregressive(Transform):
    """z -> s z + (1 - s) m with s = sigmoid(gate), then the order of the coordinates reversed."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, step: Step, context: Tensor) -> None:
        super().__init__(cache_size=1)
        self.step, self.context = step, context
        self._last: tuple[Tensor, Tensor] | None = None

    def with_cache(self, cache_size: int = 1) -> Any:
        del cache_size
        return self

    def _call(self, z: Tensor) -> Tensor:
        shift, gate = self.step(z, self.context)
        keep = torch.sigmoid(gate)
        out = (keep * z + (1 - keep) * shift).flip(-1)
        self._last = out, functional.logsigmoid(gate).sum(-1)
        return out

    def _inverse(self, y: Tensor) -> Tensor:
        """Coordinate after coordinate: each pass settles one more."""
        y = y.flip(-1)
        z = torch.zeros_like(y)
        for _ in range(y.shape[-1]):
            shift, gate = self.step(z, self.context)
            keep = torch.sigmoid(gate)
            z = (y - (1 - keep) * shift) / keep
        return z

    def log_abs_det_jacobian(self, z: Tensor, y: Tensor) -> Tensor:
        if self._last is not None and self._last[0] is y:
            return self._last[1]
        return functional.logsigmoid(self.step(z, self.context)[1]).sum(-1)


class FlowNetwork(nn.Module):
    """The steps of a flow."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        flow = layout.flow
        if flow is None:
            raise ValueError("posterior: this VAE has no flow.")
        self.steps = nn.ModuleList(
            Step(layout.latent_dim, flow.hidden, flow.context) for _ in range(flow.num_steps)
        )

    def transforms(self, context: Tensor) -> list[Any]:
        return [Autoregressive(step, context) for step in self.steps]  # type: ignore[arg-type]  # Steps
