"""Chains relabelled, and factors turned, on purpose: the comparison's table is the same as without."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest
from helpers import clusters

import ppl_lvm as lvm
from ppl_lvm import NUTS, models, rotation
from ppl_lvm.relabel import permute
from ppl_lvm.result import Fit, flat_draws

SHORT = NUTS(num_warmup=100, num_samples=60, num_chains=2)


# By ranks: a repeated draw ties with itself, and a rounding error after a turn breaks the tie.
RANKED = ("ess", "r_hat", "w1_noise", "q05_error", "q95_error")
RANKED += ("kl_to", "kl_to_error", "kl_from", "kl_from_error")  # counts and bias are in effective sizes


def _factors(collapsed: bool) -> tuple[Fit, Fit]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((15, 2)) @ rng.standard_normal((2, 5)) + 0.5 * rng.standard_normal((15, 5))
    model = models.FactorAnalysis(2, collapsed=collapsed)
    return lvm.fit(model, x, SHORT, seed=0), lvm.fit(model, x, SHORT, seed=1)


@functools.cache
def factor_fits(collapsed: bool) -> tuple[Fit, Fit]:
    return _factors(collapsed)


@functools.cache
def mixture_fits() -> tuple[Fit, Fit]:
    x = clusters(30, 1, gap=6.0)
    model = models.GaussianMixture(2, covariance="diag")
    engine = NUTS(num_warmup=150, num_samples=200, num_chains=2)
    return lvm.fit(model, x, engine, seed=0), lvm.fit(model, x, engine, seed=1)


def with_values(fit: Fit, values: dict[str, np.ndarray]) -> Fit:
    old = fit.posterior
    shape = (old.sizes["chain"], old.sizes["draw"])
    new = old.assign(
        {k: (old[k].dims, v.reshape(*shape, *v.shape[1:])) for k, v in values.items() if k in old}
    )
    new.attrs = dict(old.attrs)
    return dataclasses.replace(fit, draws=new)


def same_tables(first: Fit, fit: Fit, changed: Fit, ties: float) -> None:
    """``ties`` is how far figures by ranks may lie apart: nothing where draws come back bit for bit."""
    a, b = (lvm.compare({"ref": first, "x": x}, reference="ref", spot_check=False) for x in (fit, changed))
    ranked = [c for c in RANKED if c in a.table]
    rest = a.table.columns.difference(ranked)
    pd.testing.assert_frame_equal(a.table[rest], b.table[rest], rtol=1e-6, atol=1e-8)
    pd.testing.assert_frame_equal(a.table[ranked], b.table[ranked], rtol=ties, atol=1e-9)
    assert a.verdicts["x"].level == b.verdicts["x"].level


@pytest.mark.parametrize("by", ["chain", "draw"])
def test_permuted_labels(by: str) -> None:
    first, fit = mixture_fits()
    values = flat_draws(fit.posterior)
    size = len(next(iter(values.values())))
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(2) for _ in range(size)])
    if by == "chain":
        orders = np.repeat([[1, 0], [0, 1]], size // 2, axis=0)
    changed = with_values(fit, permute(values, fit.model.label_axes, orders))
    moved = fit.posterior["loc"].values != changed.posterior["loc"].values
    assert moved.any()
    same_tables(first, fit, changed, ties=1e-9)


@pytest.mark.parametrize("collapsed", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("by", ["chain", "draw"])
def test_turned_factors(by: str, collapsed: bool) -> None:
    first, fit = factor_fits(collapsed)
    values = flat_draws(fit.posterior)
    size = len(next(iter(values.values())))
    rng = np.random.default_rng(0)
    turns = np.stack([np.linalg.qr(rng.standard_normal((2, 2)))[0] for _ in range(size)])
    if by == "chain":
        turns = np.repeat(turns[:2], size // 2, axis=0)
    found = fit.model.rotation
    assert found is not None
    changed = with_values(fit, rotation.turn(values, found, turns))
    assert np.abs(fit.posterior["loadings"].values - changed.posterior["loadings"].values).max() > 0.1
    same_tables(first, fit, changed, ties=0.05)
