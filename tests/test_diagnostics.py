"""PSIS and moments against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import genpareto

from ppl_lvm.diagnostics import psis


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_khat_recovers_the_tail_of_pareto_weights(shape: float) -> None:
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(20):
        weights = 1.0 + genpareto.rvs(shape, size=4000, random_state=rng)
        estimates.append(psis(np.log(weights))[1])
    error = np.std(estimates, ddof=1) / math.sqrt(len(estimates))
    # arviz-stats adds a weak prior at 0.5 worth ten tail draws, which moves a tail of about 190 by 5 %
    assert abs(np.mean(estimates) - shape) < 4 * error + 0.06 * abs(shape - 0.5)


def test_smoothed_weights_are_normalised_and_keep_their_order() -> None:
    log_w = np.random.default_rng(1).normal(size=2000) * 1.5
    smoothed, _ = psis(log_w)
    assert np.exp(smoothed).sum() == pytest.approx(1.0, rel=1e-12)
    assert smoothed.argmax() == log_w.argmax()
    assert np.corrcoef(smoothed, log_w)[0, 1] > 0.99


def test_weights_without_support_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="proposal misses"):
        psis(np.full(100, -np.inf))
