"""The VAE in NumPyro: the same sites and the same weights under the same names as in ``_pyro``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from ppl_lvm.models.vae._layout import Layout, Shape
from ppl_lvm.models.vae._numpyro_parts import likelihood, posterior, prepare
from ppl_lvm.networks import Network
from ppl_lvm.networks._numpyro_networks import build_decoder, build_encoder, named_arrays, with_arrays


def weights(name: str, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The weights of a network as ``param`` statements, named as ``pyro.module`` names them."""
    return {n: numpyro.param(f"{name}$$${n}", lambda key, s=s: jnp.zeros(s)) for n, s in shapes.items()}


def _own(name: str, module: Any) -> Any:
    """A user's equinox module with its arrays as ``param`` statements."""
    arrays = named_arrays(module)
    return with_arrays(module, {n: numpyro.param(f"{name}$$${n}", v) for n, v in arrays.items()})


def _decoder(layout: Layout, spec: Any) -> Any:
    if not isinstance(spec, Network):
        return _own("decoder", spec)
    image = layout.net_image
    return build_decoder(spec, image, weights("decoder", spec.decoder_shapes(layout.latent_dim, image)))


def _encoder(layout: Layout, spec: Any) -> Any:
    if not isinstance(spec, Network):
        return _own("encoder", spec)
    image = layout.net_image
    return build_encoder(spec, image, weights("encoder", spec.encoder_shapes(image, layout.num_outputs)))


def model(x: Array, *, layout: Layout, decoder: Any) -> None:
    """x (n, *image); ``decoder`` is a description or an equinox module (..., q) -> (..., *net_image)."""
    net = _decoder(layout, decoder)
    q = layout.latent_dim
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(q), jnp.ones(q)).to_event(1))
        numpyro.sample("obs", likelihood(net(z), layout), obs=x)


def guide(x: Array, *, layout: Layout, encoder: Any) -> None:
    """``encoder`` is a description or an equinox module (b, *net_image) -> (b, num_outputs)."""
    net = _encoder(layout, encoder)
    flow = weights("flow", layout.flow_shapes()) if layout.flow is not None else None
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("z", posterior(net(prepare(x, layout)), layout, flow))
