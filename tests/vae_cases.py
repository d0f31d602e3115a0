"""Small VAEs for tests: every likelihood, family of q and network, with weights that are not special."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from ppl_lvm import models, networks
from ppl_lvm.core import Problem
from ppl_lvm.fitting import prepare

TINY = networks.MLP((7,), activation="tanh")
CONV = networks.Conv(channels=(3, 4), hidden=(6,), activation="elu")

SETTINGS: dict[str, dict[str, Any]] = {
    "bernoulli": {"likelihood": "bernoulli"},
    "continuous_bernoulli": {"likelihood": "continuous_bernoulli"},
    "gaussian, learned noise": {"likelihood": "gaussian"},
    "gaussian, fixed noise": {"likelihood": "gaussian", "noise_scale": 0.7},
    "poisson": {"likelihood": "poisson"},
    "categorical": {"likelihood": "categorical"},
    "full covariance": {"posterior": "full"},
    "flow": {"posterior": "flow", "flow_hidden": 9},
    "flow, one dimension": {"posterior": "flow", "latent_dim": 1, "flow_hidden": 5},
    "convolutions": {"encoder": CONV, "decoder": CONV},
    "categorical convolutions": {"likelihood": "categorical", "encoder": CONV, "decoder": CONV},
    "linear": {"likelihood": "gaussian", "encoder": networks.MLP(()), "decoder": networks.MLP(())},
}


def data_for(likelihood: str, image: tuple[int, ...] = (5, 6), n: int = 11, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if likelihood == "bernoulli":
        return (rng.random((n, *image)) < 0.4).astype(float)
    if likelihood == "continuous_bernoulli":
        return rng.random((n, *image))
    if likelihood == "gaussian":
        return rng.normal(1.0, 2.0, (n, *image))
    if likelihood == "poisson":
        return rng.poisson(2.5, (n, *image)).astype(float)
    return rng.integers(0, 3, (n, *image))


def case(name: str, dtype: str = "float64") -> tuple[Problem, dict[str, np.ndarray]]:
    """A problem and weights drawn at random (biases too) for it."""
    settings = {"latent_dim": 3, "encoder": TINY, "decoder": TINY, **SETTINGS[name]}
    model = models.VAE(**settings)
    problem = prepare(model, data_for(model.likelihood), dtype=dtype)
    return problem, random_params(problem)


def random_params(problem: Problem, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    start: Mapping[str, np.ndarray] = problem.model.initial_params(problem.arguments, rng) or {}
    out = {}
    for name, value in start.items():
        noise = 0.2 * rng.standard_normal(value.shape)
        out[name] = value * np.exp(noise) if name == "noise_scale" else value + noise
    return out


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 images (n, 8, 8) of 0 and 1, and their labels."""
    found = load_digits()
    return (found.images > 7).astype(np.float32), found.target
