"""Likelihoods and families of q in torch: from the networks' outputs to distributions."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn import functional

from ppl_lvm.models.vae._layout import Layout


def log_norm(logits: Tensor) -> Tensor:
    """log of the continuous Bernoulli's constant, l / tanh(l / 2), with its series around 0."""
    near = logits.abs() < 0.01
    safe = torch.where(near, torch.ones_like(logits), logits)
    square = logits**2
    series = math.log(2.0) + square / 12 - 7 * square**2 / 1440
    return torch.where(near, series, torch.log(safe / torch.tanh(safe / 2)))


class ContinuousBernoulli(dist.ContinuousBernoulli):
    """torch's, with the constant taken from the logits: theirs loses digits for probabilities near 1."""

    def _cont_bern_log_norm(self) -> Tensor:
        return log_norm(self.logits)


def prepare(x: Tensor, layout: Layout) -> Tensor:
    """What the encoder sees: log counts, one-hot categories in front, else the data."""
    if layout.likelihood == "poisson":
        return torch.log1p(x)
    if layout.likelihood != "categorical":
        return x
    hot = functional.one_hot(x.long(), layout.num_categories or 1).to(torch.get_default_dtype())
    return hot.movedim(-1, 1).reshape(-1, *layout.net_image)


def likelihood(out: Tensor, layout: Layout) -> Any:
    """The distribution of a datum given the decoder's output (..., *net_image)."""
    event = len(layout.image)
    if layout.likelihood == "bernoulli":
        return dist.Bernoulli(logits=out).to_event(event)
    if layout.likelihood == "continuous_bernoulli":
        return ContinuousBernoulli(logits=out).to_event(event)
    if layout.likelihood == "poisson":
        return dist.Poisson(functional.softplus(out) + 1e-6).to_event(event)
    if layout.likelihood == "categorical":
        lead = out.shape[: out.dim() - len(layout.net_image)]
        logits = out.reshape(*lead, layout.num_categories or 1, *layout.image).movedim(len(lead), -1)
        return dist.Categorical(logits=logits).to_event(event)
    return dist.Normal(out, _noise(layout)).to_event(event)


def _noise(layout: Layout) -> Any:
    if layout.noise_scale is not None:
        return layout.noise_scale
    return pyro.param("noise_scale", torch.tensor(1.0), constraint=constraints.positive)


def posterior(out: Tensor, layout: Layout, flow: Any) -> Any:
    """q(z | x) from the encoder's output (b, num_outputs)."""
    q = layout.latent_dim
    loc = out[:, :q]
    if layout.posterior == "full":
        return dist.MultivariateNormal(loc, scale_tril=_lower(out[:, q:], q))
    base = dist.Normal(loc, torch.exp(out[:, q : 2 * q])).to_event(1)
    if flow is None:
        return base
    return dist.TransformedDistribution(base, flow.transforms(out[:, 2 * q :]))


def _lower(flat: Tensor, q: int) -> Tensor:
    """Cholesky factors from q log diagonals and the entries below, row by row."""
    lower = flat.new_zeros(*flat.shape[:-1], q, q)
    rows, columns = torch.tril_indices(q, q, -1)
    lower[..., rows, columns] = flat[..., q:]
    return lower + torch.diag_embed(torch.exp(flat[..., :q]))
