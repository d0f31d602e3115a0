"""Idioms of Pyro and its users that recording would see wrongly, each against Pyro's own figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model
from pyro.nn import PyroModule, PyroSample
from pyro.ops import tensor_utils
from pyro.util import warn_if_nan

import ppl_lvm as lvm
from ppl_lvm.backends.translate._errors import TranslationError
from ppl_lvm.backends.translate._stand_ins import safe_cholesky, stand_ins


@pytest.fixture(autouse=True)
def _float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng():
        yield
    torch.set_default_dtype(before)


def _errors(model: Callable[..., Any], data: dict[str, np.ndarray]) -> tuple[float, float]:
    """Largest errors of value and gradient at three points, relative, against Pyro's own potential."""
    translation = lvm.translate(model, data)
    rng = np.random.default_rng(4)
    tensors = {k: torch.as_tensor(v) for k, v in data.items()}
    zeros = {k: torch.zeros(s) for k, s in translation.shapes.items()}
    with pyro.validation_enabled(False):
        potential = initialize_model(
            lambda **kwargs: model(**kwargs), (), dict(tensors), initial_params=zeros
        )[1]
        value_error = slope_error = 0.0
        for _ in range(3):
            z = {k: rng.uniform(-1.5, 1.5, s) for k, s in translation.shapes.items()}
            leaves = {k: torch.tensor(v, requires_grad=True) for k, v in z.items()}
            value = -potential(leaves)
            slopes = torch.autograd.grad(value, list(leaves.values()))
            own_value, own_slopes = translation.value_and_gradient(z)
            value_error = max(value_error, abs(own_value - value.item()) / (1 + abs(value.item())))
            size = 1 + max(float(s.abs().max()) for s in slopes)
            for name, slope in zip(leaves, slopes, strict=True):
                slope_error = max(slope_error, float(np.abs(own_slopes[name] - slope.numpy()).max()) / size)
    return value_error, slope_error


def _gaussian_hmm(y: Any) -> None:
    decay = pyro.sample("decay", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros(2), 0.5).to_event(1))
    noise = dist.MultivariateNormal(torch.zeros(2), scale_tril=torch.eye(2))
    steps = dist.MultivariateNormal(torch.zeros(2), scale_tril=scale.diag_embed())
    start = dist.Normal(torch.zeros(2), 10.0).to_event(1)
    motion = (-decay).exp().diag_embed()
    chain = dist.GaussianHMM(start, motion, steps, torch.eye(2), noise, duration=len(y))
    pyro.sample("y", chain, obs=y)


def _warned(x: Any) -> None:
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    pyro.factor("fit", warn_if_nan(dist.Normal(m, 1.0).log_prob(x).sum()))


class _Regression(PyroModule):
    """Its priors are expanded, with validation on, when the module is built."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[torch.nn.Linear](2, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 3.0).expand([1]).to_event(1))

    def forward(self, x: Any, y: Any = None) -> Any:
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        return mean


ROWS = np.random.default_rng(0).normal(size=(5, 2))


def test_gaussian_hmm_keeps_the_derivative_behind_pyros_jitter() -> None:
    assert max(_errors(_gaussian_hmm, {"y": ROWS})) < 1e-9


def test_a_warning_about_nan_is_no_branch() -> None:
    assert max(_errors(_warned, {"x": ROWS[:, 0].copy()})) < 1e-9


def test_a_pyro_module_is_called_by_the_names_of_its_forward() -> None:
    assert max(_errors(_Regression(), {"x": ROWS, "y": ROWS[:, 0].copy()})) < 1e-9


def test_parts_under_torch_compile_are_followed() -> None:
    bend = torch.compile(lambda t: (2 * t).sin(), backend="eager")

    def model(x: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), torch.ones(())))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(bend(z), torch.ones(())), obs=x)

    assert max(_errors(model, {"x": np.arange(4.0)})) < 1e-9


@pytest.mark.parametrize("shares_memory", [False, True])
def test_writing_in_place_is_followed(shares_memory: bool) -> None:
    """Where another tensor shows what is written, and where none does."""

    def model(x: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(3), torch.ones(3)).to_event(1))
        changed = z * 2
        first = changed[:1] if shares_memory else torch.zeros(1)
        changed.add_(z.exp()).mul_(0.5).clamp_(max=1.5)
        changed[1:].add_(first)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(changed.sum() + first.sum(), torch.ones(())), obs=x)

    assert max(_errors(model, {"x": np.arange(4.0)})) < 1e-9


def test_a_value_that_leaves_torch_is_refused_before_recording() -> None:
    def simulated(x: Any) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(torch.as_tensor(np.tanh(m.numpy())), 1.0), obs=x)

    with pytest.raises(TranslationError, match=r"requires grad.*leaves torch"):
        lvm.translate(simulated, {"x": ROWS[:, 0].copy()})


@pytest.mark.parametrize("size", [1, 2, 4])
def test_safe_cholesky_has_pyros_value_and_derivative(size: int) -> None:
    rng = np.random.default_rng(size)
    root = torch.tensor(rng.normal(size=(3, size, size)))
    matrix = root @ root.mT + torch.eye(size)
    weights = torch.tensor(rng.normal(size=(3, size, size)))
    found = []
    for function in (tensor_utils.safe_cholesky, safe_cholesky):
        leaf = matrix.clone().requires_grad_()
        factor = function(leaf)
        (slope,) = torch.autograd.grad((factor * weights).sum(), leaf)
        found.append((factor.detach(), slope))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-12, atol=1e-12)


def test_stand_ins_are_taken_back() -> None:
    from pyro.ops import gaussian

    own = gaussian.safe_cholesky
    with stand_ins():
        assert gaussian.safe_cholesky is safe_cholesky
        assert warn_if_nan(torch.tensor(float("nan"))).isnan()
    assert gaussian.safe_cholesky is own
    with pytest.warns(UserWarning, match="NaN"):
        warn_if_nan(torch.tensor(float("nan")))
