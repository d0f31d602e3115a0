"""The torch modules of a VAE: built from descriptions once, a user's own, or stand-ins for equinox ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from ppl_lvm.models.vae._checks import library_of
from ppl_lvm.models.vae._layout import Layout
from ppl_lvm.models.vae._pyro_flow import FlowNetwork
from ppl_lvm.networks import Network
from ppl_lvm.networks._pyro_networks import build_decoder, build_encoder


def modules(layout: Layout, encoder: Any, decoder: Any) -> dict[str, Any]:
    """encoder, decoder and flow (or None)."""
    return {
        "encoder": _part("encoder", encoder, layout),
        "decoder": _part("decoder", decoder, layout),
        "flow": None if layout.flow is None else _built("flow", None, layout),
    }


def _part(name: str, spec: Any, layout: Layout) -> Any:
    if isinstance(spec, Network):
        return _built(name, spec, layout)
    return spec if library_of(spec) == "torch" else EquinoxInTorch(spec)


@functools.lru_cache(maxsize=32)
def _built(name: str, spec: Any, layout: Layout) -> Any:
    """A module in float32; sessions cast it while they last. Its own weights are never used."""
    with torch.random.fork_rng(devices=[]), _default_float():
        if name == "flow":
            return FlowNetwork(layout)
        if name == "encoder":
            return build_encoder(spec, layout.net_image, layout.num_outputs)
        return build_decoder(spec, layout.latent_dim, layout.net_image)


class _default_float:
    """torch's default dtype is float32 within."""

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)

    def __exit__(self, *error: object) -> None:
        torch.set_default_dtype(self.before)


class EquinoxInTorch:
    """A user's equinox module as seen from Pyro: its values, without gradients.

    It serves tracing and predictions; training and NUTS run on JAX.
    """

    def __init__(self, module: Any) -> None:
        self.module = module

    def declare(self, name: str) -> Callable[[Tensor], Tensor]:
        """Its arrays as ``param`` statements, and the function of them."""
        import jax

        from ppl_lvm.networks._numpyro_networks import named_arrays, with_arrays

        dtype = torch.get_default_dtype()
        params = {
            n: pyro.param(f"{name}$$${n}", torch.from_numpy(np.array(v)).to(dtype))
            for n, v in named_arrays(self.module).items()
        }

        def call(x: Tensor) -> Tensor:
            if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in params.values())):
                raise ValueError(
                    f"{name}: an equinox module has no gradients on Pyro; use backend='numpyro'."
                )
            with jax.enable_x64(dtype == torch.float64):
                net = with_arrays(self.module, {n: p.detach().numpy() for n, p in params.items()})
                return torch.from_numpy(np.array(net(jax.numpy.asarray(x.detach().numpy()))))

        return call
