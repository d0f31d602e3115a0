"""Networks of torch in a model: weights held fixed by pyro.module, or latent by PyroSample.

Each agrees with Pyro in value and gradient to 1e-9 at 5 points. Networks are built outside of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample, module
from torch import nn
from translation_cases import float64
from translation_reference import assert_agrees

import ppl_lvm as lvm

Shape = tuple[int, ...]


def _recurrent(kind: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = kind(2, 3, batch_first=True, **kwargs)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out, state = self.net(x)
            return out + (state[0] if isinstance(state, tuple) else state).sum()

    return Last


class Attention(nn.Module):
    def __init__(self, weights: bool = False, masked: bool = False) -> None:
        super().__init__()
        self.net = nn.MultiheadAttention(4, 2, batch_first=True)
        self.weights, self.masked = weights, masked

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(x.shape[-2], x.shape[-2]).triu(1).bool() if self.masked else None
        return self.net(x, x, x, need_weights=self.weights, attn_mask=mask)[0]


class Cell(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.net = kind(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.net(x)
        return torch.stack(out) if isinstance(out, tuple) else out


class Bag(nn.Module):
    """An embedding of constant words, moved by the input."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.net = nn.Embedding(5, 3, **kwargs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(torch.tensor([[0, 3], [4, 4]])) @ x


ACTIVATIONS = [
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softsign, nn.Mish,
    nn.SELU, nn.Hardtanh, nn.LogSigmoid, nn.CELU, nn.Hardswish, nn.Softshrink, nn.Tanhshrink, nn.ReLU6,
    nn.PReLU,
]  # fmt: skip


def _activations() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 3), *[part for kind in ACTIVATIONS for part in (kind(), nn.Linear(3, 3))]
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "Linear": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)), (2, 3)),
    "Bilinear": (lambda: _of_twice(nn.Bilinear(3, 3, 2)), (2, 3)),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1, padding_mode="circular"), (1, 2, 6)),
    "Conv2d": (lambda: nn.Conv2d(2, 4, 3, padding="same", groups=2, padding_mode="reflect"), (1, 2, 4, 4)),
    "Conv2d unbatched": (lambda: nn.Conv2d(2, 2, 3, dilation=2), (2, 5, 5)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1), (1, 2, 4)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1), (1, 2, 3, 3)),
    "pools": (
        lambda: nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, 1), nn.Flatten()),
        (1, 1, 5, 5),
    ),
    "adaptive pools": (lambda: nn.Sequential(nn.AdaptiveMaxPool2d(4), nn.AdaptiveAvgPool2d(3)), (1, 1, 5, 5)),
    "Upsample": (
        lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.PixelUnshuffle(2)),
        (1, 1, 2, 3),
    ),
    "RNN": (_recurrent(nn.RNN), (1, 3, 2)),
    "GRU": (_recurrent(nn.GRU, num_layers=2), (1, 3, 2)),
    "LSTM": (_recurrent(nn.LSTM, bidirectional=True), (1, 3, 2)),
    "LSTM projected": (_recurrent(nn.LSTM, proj_size=2), (1, 3, 2)),
    "GRUCell": (lambda: Cell(nn.GRUCell), (2, 2)),
    "LSTMCell": (lambda: Cell(nn.LSTMCell), (2, 2)),
    "LayerNorm": (lambda: nn.LayerNorm((2, 3)), (4, 2, 3)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (2, 4, 3)),
    "BatchNorm1d": (lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)).eval(), (4, 3)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(2, affine=False).eval(), (2, 2, 2, 2)),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(2, affine=True), (2, 2, 4)),
    "Dropout off": (lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).eval(), (2, 3)),
    "Embedding": (lambda: Bag(), (3,)),
    "Embedding padding": (lambda: Bag(padding_idx=4), (3,)),
    "MultiheadAttention": (lambda: Attention().eval(), (1, 3, 4)),
    "MultiheadAttention weights": (lambda: Attention(weights=True).eval(), (1, 3, 4)),
    "MultiheadAttention masked": (lambda: Attention(masked=True).eval(), (1, 3, 4)),
    "TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 5, batch_first=True).eval(),
        (1, 3, 4),
    ),
    "activations": (_activations, (2, 3)),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)).eval(), (2, 3)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), (2, 3)),
    "softmaxes": (lambda: nn.Sequential(nn.Softmax(-1), nn.LogSoftmax(0), nn.Softmin(-1)), (2, 3)),
    "CosineSimilarity": (lambda: _of_twice(nn.CosineSimilarity(-1)), (2, 3)),
}
USUAL = {
    "Linear",
    "Conv2d",
    "GRU",
    "LayerNorm",
    "BatchNorm1d",
    "Embedding",
    "MultiheadAttention",
    "activations",
}


def _of_twice(net: nn.Module) -> nn.Module:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x, x.flip(0) * 0.7)

    return Twice()


def built(make: Callable[[], nn.Module]) -> nn.Module:
    """A network of float64 with weights of a fixed seed."""
    with float64(), torch.random.fork_rng():
        torch.manual_seed(2)
        return make()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in USUAL else pytest.mark.slow) for n in NETWORKS]
)
def test_network_held_fixed(name: str) -> None:
    """A network of a latent input, whose weights pyro.module makes params, held as they are."""
    make, shape = NETWORKS[name]
    net = built(make)

    def model(y: Any) -> None:
        own = pyro.module("net", net)
        z = pyro.sample("z", dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape)))
        out = own(z)
        pyro.sample("y", dist.Normal(out.sum() + (out * out).mean(), 0.5), obs=y)

    assert_agrees(model, np.array(0.7))


def _linear(size_in: int, size_out: int) -> Any:
    layer = PyroModule[nn.Linear](size_in, size_out)
    layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([size_out, size_in]).to_event(2))
    layer.bias = PyroSample(dist.Normal(0.0, 2.0).expand([size_out]).to_event(1))
    return layer


class Regression(PyroModule):
    """A network whose weights are latent sites."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = _linear(2, 3), _linear(3, 1)
        self.scale = PyroSample(lambda _: dist.LogNormal(torch.zeros(()), 1.0))

    def forward(self, x: Any, y: Any = None) -> Any:
        mean = self.second(torch.tanh(self.first(x))).squeeze(-1)
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("obs", dist.Normal(mean, self.scale), obs=y)


X = np.random.default_rng(3).normal(size=(4, 2))
Y = np.array([0.3, -0.2, 1.0, 0.6])


def test_latent_weights() -> None:
    net = built(Regression)

    def model(x: Any) -> None:
        net(x, torch.as_tensor(Y))

    made = assert_agrees(model, X)
    assert set(made.shapes) == {"first.weight", "first.bias", "second.weight", "second.bias", "scale"}


def _recurrent_with_priors() -> nn.Module:
    net = nn.GRU(1, 2, batch_first=True)
    module.to_pyro_module_(net)
    for name, value in list(net.named_parameters()):
        setattr(net, name, PyroSample(dist.Normal(torch.zeros(value.shape), 1.0).to_event(value.dim())))
    return net


@pytest.mark.slow
def test_latent_weights_of_a_recurrent_network() -> None:
    """A torch module whose parameters are turned into latent sites after it was built."""
    net = built(_recurrent_with_priors)

    def model(y: Any) -> None:
        out, _ = net(y[None, :-1, None])
        pyro.sample("y", dist.Normal(out.sum(-1)[0], 0.5).to_event(1), obs=y[1:])

    assert_agrees(model, np.array([0.1, 0.4, 0.2, 0.7]))


def test_params_of_a_network_are_params_of_the_translation() -> None:
    """Other weights go in by name, without translating again: the density is that with these weights."""
    net = built(lambda: nn.Linear(2, 1))

    def model(y: Any) -> None:
        own = pyro.module("net", net)
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(own(z).squeeze(), 0.5), obs=y)

    z, weight, bias = np.array([0.3, -0.8]), np.array([[1.5, -0.5]]), np.array([0.2])
    made = lvm.translate(
        model, np.array(0.7), params={"net$$$weight": weight, "net$$$bias": bias}, dtype="float64"
    )
    mean = float((weight @ z + bias)[0])
    expected = -0.5 * z @ z - 0.5 * ((0.7 - mean) / 0.5) ** 2 - np.log(0.5) - 1.5 * np.log(2 * np.pi)
    assert made.log_density({"z": z}) == pytest.approx(expected, rel=1e-12)


def test_batch_norm_in_training_mode_leaves_the_users_statistics_alone() -> None:
    """It normalises by the batch; a translation and its check leave the running statistics as they were."""
    net = built(lambda: nn.BatchNorm1d(2))
    before = net.running_mean.clone()

    def model(y: Any) -> None:
        own = pyro.module("net", net)
        z = pyro.sample("z", dist.Normal(torch.zeros(3, 2), 1.0).to_event(2))
        pyro.sample("y", dist.Normal(own(z)[0, 0] + z.sum(), 0.5), obs=y)

    assert lvm.translate(model, np.array(0.7), dtype="float64").check.passed
    assert torch.equal(net.running_mean, before)
