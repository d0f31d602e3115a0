"""NUTS on JAX where posteriors are narrow and of unequal widths, as with many data."""

from __future__ import annotations

import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist
import pytest
from helpers import assert_within

import ppl_lvm as lvm
from ppl_lvm import NUTS

WIDTHS = np.array([1e-5, 1e-4, 1e-3, 1e-2, 1.0, 30.0])


def narrow(width: object) -> None:
    with pyro.plate("site", len(WIDTHS)):
        pyro.sample("mean", dist.Normal(0.0 * width, width))


def narrow_twin(width: object) -> None:
    with numpyro.plate("site", len(WIDTHS)):
        numpyro.sample("mean", numpyro_dist.Normal(0.0 * width, width))


@pytest.mark.parametrize("kernel", ["blackjax", "numpyro"])
def test_narrow_posteriors_cost_no_more_steps(kernel: str) -> None:
    """Stan's shrinkage of the mass matrix, 1e-3 of the identity, would leave widths of 1e-5 unscaled.

    A standard normal in six dimensions takes 7 steps a draw at most; unscaled, these widths take hundreds.
    """
    engine = NUTS(backend="numpyro", kernel=kernel, num_warmup=400, num_samples=500, num_chains=2)
    fit = lvm.fit(lvm.Model(narrow, numpyro=narrow_twin), {"width": WIDTHS}, engine)
    assert fit.sample_stats is not None
    assert float(fit.sample_stats["n_steps"].mean()) < 12
    summary = fit.summary()
    assert_within(summary["mean"], np.zeros(len(WIDTHS)), summary["mcse_mean"])
    assert_within(summary["sd"] / WIDTHS, np.ones(len(WIDTHS)), summary["mcse_sd"] / WIDTHS)
