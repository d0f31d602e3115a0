"""The likelihood of sequences in torch, with its gradient from the smoother.

The same mathematics as :mod:`._jax_forward`, at many draws at once. Automatic differentiation would keep
every step of a Python loop on its tape; here each direction is one loop without a tape, and the sums over
time are matrix products. Shapes: batch B (particles), k states, T steps, S sequences.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _ForwardBackward(torch.autograd.Function):
    """log p(x_s) (B, S) of start (B, k), transition (B, k, k) and log_obs (T, B, k, S)."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, transition: Tensor, log_obs: Tensor, valid: Tensor) -> Tensor:
        top = log_obs.amax(2)
        top = torch.where(top.isfinite(), top, torch.zeros_like(top))
        density = (log_obs - top.unsqueeze(2)).exp()
        turned = transition.transpose(-1, -2).contiguous()
        alpha = torch.empty_like(density)
        scale = torch.empty_like(top)
        here = start.unsqueeze(-1) * density[0]
        for t in range(len(density)):
            if t:
                here = torch.matmul(turned, here).mul_(density[t])
            torch.sum(here, dim=1, out=scale[t])
            here = torch.div(here, scale[t].unsqueeze(1), out=alpha[t])
        ctx.save_for_backward(transition, alpha, density, valid, scale[0])
        return top.sum(0) + scale.log().sum(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        transition, alpha, density, valid, scale = ctx.saved_tensors
        beta, ahead = torch.ones_like(alpha), density.clone()
        for t in range(len(alpha) - 1, 0, -1):
            own = ahead[t].mul_(beta[t])
            own.div_(own.sum(1, keepdim=True))
            torch.matmul(transition, own, out=beta[t - 1])
        both = alpha * beta
        share = slope / both.sum(2)
        states = both * share.unsqueeze(2)
        before = alpha[:-1] * torch.where(valid[1:].unsqueeze(1), share[:-1], 0.0).unsqueeze(2)
        pairs = torch.matmul(before, ahead[1:].transpose(-1, -2)).sum(0)
        first = (density[0] * beta[0] * (share[0] / scale).unsqueeze(1)).sum(-1)
        return first, pairs, states, None


def log_likelihood(start: Tensor, transition: Tensor, log_obs: Tensor, valid: Tensor) -> Tensor:
    """log p(x_s), (*batch, S), nats.

    ``start`` (*batch, k), ``transition`` (*batch, k, k), ``log_obs`` (*batch, S, T, k), zero beyond the end,
    and ``valid`` (S, T); batch dimensions broadcast.
    """
    batch = torch.broadcast_shapes(start.shape[:-1], transition.shape[:-2], log_obs.shape[:-3])
    k = start.shape[-1]
    flat_start = start.expand(*batch, k).reshape(-1, k)
    flat_transition = transition.expand(*batch, k, k).reshape(-1, k, k)
    flat_obs = log_obs.expand(*batch, *log_obs.shape[-3:]).reshape(-1, *log_obs.shape[-3:])
    time_first = flat_obs.permute(2, 0, 3, 1).contiguous()
    found = _ForwardBackward.apply(flat_start, flat_transition, time_first, valid.T)
    return found.reshape(*batch, log_obs.shape[-3])


def stationary(transition: Tensor) -> Tensor:
    """The distribution pi = pi A (..., k), by pi (I - A + 1 1') = 1'."""
    k = transition.shape[-1]
    system = (torch.eye(k, dtype=transition.dtype) - transition + 1.0).transpose(-1, -2)
    found = torch.linalg.solve(system, torch.ones(*transition.shape[:-1], 1, dtype=transition.dtype)).squeeze(
        -1
    )
    found = found.clamp(min=torch.finfo(found.dtype).tiny)
    return found / found.sum(-1, keepdim=True)
