"""The VAE in Pyro: model and guide."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_lvm.models.vae._layout import Layout
from ppl_lvm.models.vae._pyro_parts import likelihood, posterior, prepare


def declare(name: str, net: Any) -> Any:
    """``pyro.module``, or the same for a network of another library."""
    return net.declare(name) if hasattr(net, "declare") else pyro.module(name, net)


def model(x: Tensor, *, layout: Layout, decoder: Any) -> None:
    """x (n, *image); the decoder is a torch module (..., q) -> (..., *net_image)."""
    net = declare("decoder", decoder)
    q = layout.latent_dim
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(q), torch.ones(q)).to_event(1))
        pyro.sample("obs", likelihood(net(z), layout), obs=x)


def guide(x: Tensor, *, layout: Layout, encoder: Any, flow: Any = None) -> None:
    """The encoder is a torch module (b, *net_image) -> (b, num_outputs)."""
    net = declare("encoder", encoder)
    steps = None if flow is None else pyro.module("flow", flow)
    with pyro.plate("data", len(x)):
        pyro.sample("z", posterior(net(prepare(x, layout)), layout, steps))
