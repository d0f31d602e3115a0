"""Networks with priors on their weights: by matrix products, and by PyroModule with PyroSample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn

from translated._registry import enter, rng, zoo


def _points() -> dict[str, Any]:
    r = rng(27)
    x = r.normal(size=(7, 2))
    return {"x": x, "y": np.tanh(x[:, 0]) - 0.5 * x[:, 1] + 0.1 * r.normal(size=7)}


def _classes() -> dict[str, Any]:
    return {"x": rng(28).normal(size=(6, 2)), "y": rng(29).integers(0, 3, size=6)}


@zoo(_points, "two layers of matrix products with tanh, weights as matrices by to_event(2)")
def mlp_products(x: Any, y: Any, width: int = 3) -> None:
    first = pyro.sample("first", dist.Normal(torch.zeros(x.shape[1], width), 1.0).to_event(2))
    bias = pyro.sample("bias", dist.Normal(torch.zeros(width), 1.0).to_event(1))
    second = pyro.sample("second", dist.Normal(torch.zeros(width, 1), 1.0).to_event(2))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    hidden = torch.tanh(x @ first + bias)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal((hidden @ second).squeeze(-1), sigma), obs=y)


@zoo(_classes, "softmax output: log_softmax, relu and gelu, Categorical with logits")
def mlp_classes(x: Any, y: Any) -> None:
    first = pyro.sample("first", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
    second = pyro.sample("second", dist.Normal(torch.zeros(3, 3), 1.0).to_event(2))
    hidden = nn.functional.gelu(x @ first) + torch.relu(x @ first)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Categorical(logits=torch.log_softmax(hidden @ second, -1)), obs=y)


class Network(PyroModule):
    """One hidden layer whose weights are sites."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = PyroModule[nn.Linear](2, 3)
        self.hidden.weight = PyroSample(lambda _: dist.Normal(torch.zeros(3, 2), 1.0).to_event(2))
        self.hidden.bias = PyroSample(lambda _: dist.Normal(torch.zeros(3), 1.0).to_event(1))
        self.out = PyroModule[nn.Linear](3, 1)
        self.out.weight = PyroSample(lambda _: dist.Normal(torch.zeros(1, 3), 1.0).to_event(2))
        self.out.bias = PyroSample(lambda _: dist.Normal(torch.zeros(1), 1.0).to_event(1))

    def forward(self, x: Any, y: Any) -> None:
        sigma = pyro.sample("sigma", dist.Gamma(2.0, 4.0))
        loc = self.out(torch.sigmoid(self.hidden(x))).squeeze(-1)
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(loc, sigma), obs=y)


_NETWORK = Network()


def mlp_module(x: Any, y: Any) -> None:
    """The module's call, with the names of its arguments."""
    _NETWORK(x, y)


enter(
    "mlp_module", mlp_module, _points, "PyroModule with PyroSample priors on every weight of nn.Linear layers"
)
