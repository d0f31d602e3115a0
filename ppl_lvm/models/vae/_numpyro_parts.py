"""Likelihoods and families of q in JAX: from the networks' outputs to distributions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from ppl_lvm.models.vae._layout import Layout
from ppl_lvm.models.vae._masks import masks
from ppl_lvm.models.vae._numpyro_pixels import Pixels


class ContinuousBernoulli(dist.Distribution):
    """Density proportional to exp(l x) on [0, 1] (Loaiza-Ganem and Cunningham 2019)."""

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval

    def __init__(self, logits: Any, *, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(jnp.shape(logits), (), validate_args=validate_args)

    def log_prob(self, value: Any) -> Any:
        near = jnp.abs(self.logits) < 0.01
        safe = jnp.where(near, 1.0, self.logits)
        square = self.logits**2
        series = math.log(2.0) + square / 12 - 7 * square**2 / 1440
        constant = jnp.where(near, series, jnp.log(safe / jnp.tanh(safe / 2)))
        return value * self.logits - jax.nn.softplus(self.logits) + constant

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        u = jax.random.uniform(key, sample_shape + self.batch_shape, jnp.result_type(self.logits))
        size = jnp.abs(self.logits)
        safe = jnp.where(size < 1e-4, 1.0, size)
        drawn = jnp.where(size < 1e-4, u, 1 + jnp.log(u + (1 - u) * jnp.exp(-safe)) / safe)
        return jnp.where(self.logits < 0, 1 - drawn, drawn)

    @property
    def mean(self) -> Any:
        near = jnp.abs(self.logits) < 0.01
        safe = jnp.where(near, 1.0, self.logits)
        return jnp.where(near, 0.5 + self.logits / 12, 1 / -jnp.expm1(-safe) - 1 / safe)


def prepare(x: Array, layout: Layout) -> Array:
    """What the encoder sees: log counts, one-hot categories in front, else the data."""
    if layout.likelihood == "poisson":
        return jnp.log1p(x)
    if layout.likelihood != "categorical":
        return x
    hot = jax.nn.one_hot(x, layout.num_categories or 1)
    return jnp.moveaxis(hot, -1, 1).reshape(-1, *layout.net_image)


def likelihood(out: Array, layout: Layout) -> Any:
    """The distribution of a datum given the decoder's output (..., *net_image)."""
    event = len(layout.image)
    if layout.likelihood == "bernoulli":
        return Pixels(out, event)
    if layout.likelihood == "continuous_bernoulli":
        return ContinuousBernoulli(logits=out).to_event(event)
    if layout.likelihood == "poisson":
        return dist.Poisson(jax.nn.softplus(out) + 1e-6).to_event(event)
    if layout.likelihood == "categorical":
        lead = out.shape[: out.ndim - len(layout.net_image)]
        logits = jnp.moveaxis(out.reshape(*lead, layout.num_categories, *layout.image), len(lead), -1)
        return dist.Categorical(logits=logits).to_event(event)
    return dist.Normal(out, _noise(layout)).to_event(event)


def _noise(layout: Layout) -> Any:
    if layout.noise_scale is not None:
        return layout.noise_scale
    return numpyro.param("noise_scale", jnp.ones(()), constraint=constraints.positive)


def posterior(out: Array, layout: Layout, flow: Any) -> Any:
    """q(z | x) from the encoder's output (b, num_outputs); ``flow`` holds the flow's weights by name."""
    q = layout.latent_dim
    loc = out[:, :q]
    if layout.posterior == "full":
        return dist.MultivariateNormal(loc, scale_tril=_lower(out[:, q:], q))
    base = dist.Normal(loc, jnp.exp(out[:, q : 2 * q])).to_event(1)
    if layout.flow is None:
        return base
    context = out[:, 2 * q :]
    steps = [Autoregressive(_of_step(flow, i), context) for i in range(layout.flow.num_steps)]
    return dist.TransformedDistribution(base, steps)


def _of_step(flow: dict[str, Any], i: int) -> dict[str, Any]:
    prefix = f"steps.{i}."
    return {n.removeprefix(prefix): w for n, w in flow.items() if n.startswith(prefix)}


def _lower(flat: Array, q: int) -> Array:
    """Cholesky factors from q log diagonals and the entries below, row by row."""
    rows, columns = np.tril_indices(q, -1)
    lower = jnp.zeros((*flat.shape[:-1], q, q), flat.dtype).at[..., rows, columns].set(flat[..., q:])
    return lower + jnp.exp(flat[..., :q])[..., None] * jnp.eye(q, dtype=flat.dtype)


class Autoregressive(Transform):
    """z -> s z + (1 - s) m with s = sigmoid(gate), then the order of the coordinates reversed.

    Inverse autoregressive flow (Kingma et al. 2016, algorithm 1). The intermediate is the log determinant, so
    that a draw's density needs no inverse.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, weights: dict[str, Any], context: Any) -> None:
        self.weights, self.context = weights, context

    def _network(self, z: Any) -> tuple[Any, Any]:
        w = self.weights
        first, second = (jnp.asarray(m, z.dtype) for m in masks(z.shape[-1], w["hidden.weight"].shape[0]))
        inner = z @ (w["hidden.weight"] * first).T + w["hidden.bias"] + self.context @ w["context.weight"].T
        out = jax.nn.elu(inner) @ (w["out.weight"] * second).T + w["out.bias"]
        shift, gate = jnp.split(out + self.context @ w["skip.weight"].T, 2, axis=-1)
        return shift, gate + 1.5  # near the identity at first

    def call_with_intermediates(self, z: Any) -> tuple[Any, Any]:
        shift, gate = self._network(z)
        keep = jax.nn.sigmoid(gate)
        return jnp.flip(keep * z + (1 - keep) * shift, -1), jax.nn.log_sigmoid(gate).sum(-1)

    def __call__(self, z: Any) -> Any:
        return self.call_with_intermediates(z)[0]

    def _inverse(self, y: Any) -> Any:
        """Coordinate after coordinate: each pass settles one more."""
        y = jnp.flip(y, -1)
        z = jnp.zeros_like(y)
        for _ in range(y.shape[-1]):
            shift, gate = self._network(z)
            keep = jax.nn.sigmoid(gate)
            z = (y - (1 - keep) * shift) / keep
        return z

    def log_abs_det_jacobian(self, z: Any, y: Any, intermediates: Any = None) -> Any:
        return self.call_with_intermediates(z)[1] if intermediates is None else intermediates

    def tree_flatten(self) -> Any:
        return (self.weights, self.context), (("weights", "context"), {})

    def __eq__(self, other: object) -> bool:
        return self is other
