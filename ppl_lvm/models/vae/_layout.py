"""Shapes of a VAE's parts: what the networks take and give, by likelihood and family of q."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ppl_lvm.networks import Conv, Network

LIKELIHOODS = ("bernoulli", "continuous_bernoulli", "gaussian", "categorical", "poisson")
POSTERIORS = ("diagonal", "full", "flow")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Flow:
    """Settings of an inverse autoregressive flow: steps, hidden units of each, numbers of context."""

    num_steps: int
    hidden: int
    context: int


@dataclass(frozen=True)
class Layout:
    """Everything about the programs that is not a weight; hashable, the same in both backends.

    ``image`` is the shape of a datum, ``noise_scale`` the sd of a Gaussian likelihood (None: learned).
    """

    image: Shape
    latent_dim: int
    likelihood: str
    posterior: str
    num_categories: int | None
    noise_scale: float | None
    flow: Flow | None

    @property
    def net_image(self) -> Shape:
        """The shape at the networks' data end: categories in front, as channels."""
        if self.num_categories is None:
            return self.image
        if len(self.image) == 3:
            return (self.num_categories * self.image[0], *self.image[1:])
        return (self.num_categories, *self.image)

    @property
    def num_outputs(self) -> int:
        """How many numbers the encoder gives: those of q(z | x)."""
        q = self.latent_dim
        if self.posterior == "full":
            return q + q * (q + 1) // 2
        return 2 * q + (self.flow.context if self.flow is not None else 0)

    def check(self, network: Network) -> None:
        """Raise ``ValueError`` if a network does not suit the data."""
        network.check(self.image if isinstance(network, Conv) else (math.prod(self.image),))

    def flow_shapes(self) -> dict[str, Shape]:
        """Shapes of the weights of the flow's steps, by name."""
        out: dict[str, Shape] = {}
        if self.flow is None:
            return out
        q, h, c = self.latent_dim, self.flow.hidden, self.flow.context
        for i in range(self.flow.num_steps):
            out[f"steps.{i}.hidden.weight"] = (h, q)
            out[f"steps.{i}.hidden.bias"] = (h,)
            out[f"steps.{i}.context.weight"] = (h, c)
            out[f"steps.{i}.out.weight"] = (2 * q, h)
            out[f"steps.{i}.out.bias"] = (2 * q,)
            out[f"steps.{i}.skip.weight"] = (2 * q, c)
        return out
