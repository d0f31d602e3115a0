"""Pyro's own log density and gradient of a model at unconstrained values: what translations are held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer.mcmc.util import initialize_model
from torch.distributions import biject_to
from translation_cases import float64

import ppl_lvm as lvm

Point = Mapping[str, np.ndarray]
NUM_POINTS = 5


class _Place(poutine.messenger.Messenger):
    """Latent sites take the images of given values in the supports that they have then."""

    def __init__(self, free: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.free = free
        self.volume = torch.zeros(())

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.free and not msg["is_observed"]:
            into, free = biject_to(msg["fn"].support), self.free[msg["name"]]
            msg["value"] = into(free)
            self.volume = self.volume + into.log_abs_det_jacobian(free, msg["value"]).sum()


def _by_hand(model: Callable, data: torch.Tensor, free: Mapping[str, torch.Tensor]) -> torch.Tensor:
    placed = _Place(free)
    return poutine.trace(placed(model)).get_trace(data).log_prob_sum() + placed.volume


def _by_potential(model: Callable, data: torch.Tensor, free: Mapping[str, torch.Tensor]) -> torch.Tensor:
    start = {k: v.detach() for k, v in free.items()}
    return -initialize_model(model, (data,), initial_params=start)[1](dict(free))


def pyros(
    model: Callable, data: Any, z: Point, *, dependent_support: bool = False
) -> tuple[float, dict[str, np.ndarray]]:
    """Value and gradient, by the potential of Pyro's samplers; that keeps the supports that it met first."""
    density = _by_hand if dependent_support else _by_potential
    own = pyro.get_param_store().scope()
    with own, float64(), pyro.validation_enabled(False), torch.random.fork_rng():
        free = {k: torch.tensor(np.asarray(v)).requires_grad_() for k, v in z.items()}
        value = density(model, torch.as_tensor(data), free)
        slopes = torch.autograd.grad(value, list(free.values()), allow_unused=True)
    found = {
        k: np.zeros(np.shape(z[k])) if s is None else s.numpy() for k, s in zip(free, slopes, strict=True)
    }
    return float(value), found


def assert_agrees(model: Callable, data: Any, *, dependent_support: bool = False, reach: float = 1.0) -> Any:
    """The translation agrees with Pyro in value and gradient to 1e-9 at 5 points where Pyro's are finite."""
    made = lvm.translate(model, data, dtype="float64")
    rng, compared = np.random.default_rng(1), 0
    for _ in range(4 * NUM_POINTS):
        z = {k: rng.uniform(-reach, reach, s) for k, s in made.shapes.items()}
        value, slopes = pyros(model, data, z, dependent_support=dependent_support)
        if not np.isfinite(value) or not all(np.isfinite(s).all() for s in slopes.values()):
            continue
        ours, own = made.value_and_gradient(z)
        np.testing.assert_allclose(ours, value, rtol=1e-9, atol=1e-9)
        for name, slope in slopes.items():
            np.testing.assert_allclose(own[name], slope, rtol=1e-9, atol=1e-9, err_msg=name)
        compared += 1
        if compared == NUM_POINTS:
            return made
    raise AssertionError(f"Pyro's density was finite at {compared} of {4 * NUM_POINTS} points")
