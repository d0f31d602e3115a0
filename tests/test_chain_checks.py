"""Figures of chains against closed forms and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ppl_lvm.chain_checks import energy_fractions, moved, nested_r_hat
from ppl_lvm.findings import ladder_gap, pooled_error


def by_loops(draws: np.ndarray, start: np.ndarray) -> float:
    """Nested R-hat of draws (chain, draw), sum by sum."""
    names = sorted(set(start.tolist()))
    means = {k: [float(np.mean(draws[c])) for c in range(len(draws)) if start[c] == k] for k in names}
    variance = lambda x: sum((v - sum(x) / len(x)) ** 2 for v in x) / (len(x) - 1)  # noqa: E731
    between = variance([sum(m) / len(m) for m in means.values()])
    inner = [variance(m) if len(m) > 1 else 0.0 for m in means.values()]
    chains = [variance(list(c)) if len(c) > 1 else 0.0 for c in draws]
    within = sum(inner) / len(inner) + sum(chains) / len(chains)
    return math.sqrt(1 + between / within)


@pytest.mark.parametrize(("starts", "each", "draws"), [(4, 3, 6), (5, 1, 8), (3, 4, 1)])
def test_nested_r_hat_is_its_definition(starts: int, each: int, draws: int) -> None:
    x = np.random.default_rng(0).standard_normal((starts * each, draws, 2))
    start = np.arange(starts * each) % starts
    found = nested_r_hat(x, start)
    assert found == pytest.approx([by_loops(x[..., 0], start), by_loops(x[..., 1], start)], rel=1e-12)


def test_nested_r_hat_tells_forgotten_starts_from_remembered_ones() -> None:
    """64 short chains: the ordinary R-hat of 5 draws is large either way; the nested one is not."""
    rng = np.random.default_rng(1)
    start = np.arange(64) % 8
    x = rng.standard_normal((64, 5))
    assert nested_r_hat(x, start) < 1.05  # sqrt(1 + 1 / (8 * 5)) = 1.012 is expected
    assert nested_r_hat(x + np.linspace(-1, 1, 8)[start][:, None], start) > 1.1


@pytest.mark.parametrize("start", [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1]])
def test_unequal_superchains_are_refused(start: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^start: expected a number for each of the 4 chains"):
        nested_r_hat(np.zeros((4, 3)), np.array(start))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95])
def test_energy_fraction_of_an_autoregression(rho: float) -> None:
    """Of stationary energies with autocorrelation rho it is 2 (1 - rho)."""
    rng = np.random.default_rng(2)
    x = np.zeros((20, 20_000))
    for t in range(1, x.shape[1]):
        x[:, t] = rho * x[:, t - 1] + math.sqrt(1 - rho**2) * rng.standard_normal(20)
    found = energy_fractions(x)
    error = found.std(ddof=1) / math.sqrt(20)
    assert abs(found.mean() - 2 * (1 - rho)) < 4 * error + 4 * (1 + rho) / (1 - rho) / x.shape[1]


def test_constant_energies_have_no_fraction() -> None:
    assert np.isnan(energy_fractions(np.ones((2, 10)))).all()


def test_moved_counts_transitions_that_change_anything() -> None:
    x = np.zeros((3, 5, 2))
    x[1, :, 1] = np.arange(5)
    x[2, 3:] = 1.0
    assert moved(x).tolist() == [0.0, 1.0, 0.25]
    assert moved(np.zeros((2, 1, 3))).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("sd", [0.1, 0.6])
def test_the_gap_of_log_normal_weights(sd: float) -> None:
    """log w ~ N(m, sd^2): the ELBO is m, IWAE of K about m + sd^2 / 2 - (exp(sd^2) - 1) / 2K."""
    log_w = 3.0 + sd * np.random.default_rng(3).standard_normal(200_000)
    value, error = ladder_gap(log_w, particles=50)
    expected = sd**2 / 2 - math.expm1(sd**2) / 100
    assert abs(value - expected) < 4 * error + math.expm1(sd**2) ** 2 / 50**2  # terms of order 1 / K^2


def test_few_weights_have_no_gap() -> None:
    assert math.isnan(ladder_gap(np.zeros(3))[0])


def test_pooled_error_is_that_of_the_mean_of_chains_apart() -> None:
    """Chains whose means have sd b, unit variance within: R-hat^2 = 1 + b^2, the mean's error b / sqrt(m)."""
    assert pooled_error(math.sqrt(1 + 0.8**2), 4) == pytest.approx(0.4, rel=1e-12)
    assert pooled_error(0.99, 4) == 0.0
