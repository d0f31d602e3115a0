"""Figures of a comparison beyond means and sds: tails, divergences, joint tests, against what is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

import ppl_lvm as lvm
from ppl_lvm import NUTS, SVI
from ppl_lvm.comparison_distances import kl_divergences, quantile_shift
from ppl_lvm.comparison_joint import (
    classifier_test,
    correlation_lost,
    maximum_mean_discrepancy,
    sliced_wasserstein,
)

REPEATS = 100


def binned_kl(sd: float, bins: int = 20) -> tuple[float, float]:
    """KL over equal bins of a standard normal, to and from a normal of another sd."""
    inner = norm.ppf(np.arange(1, bins) / bins)
    p = np.diff(np.concatenate([[0.0], norm.cdf(inner / sd), [1.0]]))
    return float((p * np.log(p * bins)).sum()), float(-np.log(p * bins).mean())


@pytest.mark.parametrize(("sd", "n"), [(1.0, 1000), (0.5, 2000), (1.5, 2000)])
def test_divergences_over_bins(sd: float, n: int) -> None:
    rng = np.random.default_rng(0)
    found = np.array(
        [kl_divergences(sd * rng.standard_normal(n), rng.standard_normal(n), n, n) for _ in range(REPEATS)]
    )
    for value, error, truth in (
        (found[:, 0], found[:, 1], binned_kl(sd)[0]),
        (found[:, 2], found[:, 3], binned_kl(sd)[1]),
    ):
        assert (np.abs(value - truth) < 4 * error).mean() > 0.98
        assert np.abs(value.mean() - truth) < error.mean()  # what half a draw in each bin moves


def test_divergences_tell_the_directions_apart() -> None:
    """A guide in one of two modes: cheap for it (log 2), dear for the posterior."""
    rng = np.random.default_rng(1)
    both = np.concatenate([rng.normal(-4, 1, 1000), rng.normal(4, 1, 1000)])
    one = rng.normal(4, 1, 2000)
    to, to_error, back, _ = kl_divergences(one, both, 2000, 2000)
    assert abs(to - np.log(2)) < 4 * to_error
    assert back > 3 * to


def test_few_effective_draws_say_nothing() -> None:
    x = np.random.default_rng(0).standard_normal(1000)
    assert np.isnan(kl_divergences(x, x, 49, 1000)).all()


@pytest.mark.parametrize("prob", [0.05, 0.95])
def test_quantile_shift_and_its_error(prob: float) -> None:
    rng = np.random.default_rng(2)
    z = []
    for _ in range(REPEATS):
        a, b = 1.0 + 2.0 * rng.standard_normal(1000), rng.standard_normal(800)
        shift, error = quantile_shift(a, b, 1000, 800, prob, scale=2.0)
        z.append((shift - (1.0 + norm.ppf(prob)) / 2.0) / error)
    assert abs(np.mean(z)) < 4 / np.sqrt(REPEATS) + 0.1
    assert 0.7 < np.std(z) < 1.3


class TestJoint:
    """Two normals with the same margins, one correlated: only joint figures can tell."""

    rng = np.random.default_rng(3)
    plain = rng.standard_normal((800, 3))
    again = rng.standard_normal((800, 3))
    root = np.linalg.cholesky([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    tied = rng.standard_normal((800, 3)) @ root.T

    def test_classifier(self) -> None:
        accuracy, error = classifier_test(self.plain, self.again, np.random.default_rng(0))
        assert abs(accuracy - 0.5) < 4 * error
        accuracy, error = classifier_test(self.plain, self.tied, np.random.default_rng(0))
        assert accuracy - 0.5 > 4 * error

    def test_sliced_wasserstein(self) -> None:
        same, noise = sliced_wasserstein(self.plain, self.again, np.random.default_rng(0))
        assert same < 3 * noise
        other, noise = sliced_wasserstein(self.plain, self.tied, np.random.default_rng(0))
        assert other > 2 * noise

    def test_mmd(self) -> None:
        _, p = maximum_mean_discrepancy(self.plain[:300], self.again[:300], np.random.default_rng(0))
        assert p > 0.01
        found, p = maximum_mean_discrepancy(self.plain[:300], self.tied[:300], np.random.default_rng(0))
        assert p < 0.01
        assert found > 0

    def test_correlations(self) -> None:
        found = correlation_lost(self.plain, self.tied, ["a", "b", "c"])
        expected = np.sqrt(2) * 0.9
        assert abs(found["corr_lost"] - expected) < 4 * found["corr_noise"]
        assert found["worst_pair"].startswith(("a, b", "b, a"))
        same = correlation_lost(self.plain, self.again, ["a", "b", "c"])
        assert same["corr_lost"] < 3 * same["corr_noise"]


def test_a_mean_field_guide_loses_the_correlation() -> None:
    """Two coordinates seen only in their sum: the posterior's correlation is known, the guide's is 0."""
    import pyro
    import pyro.distributions as dist

    def program(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(a + b, 1.0), obs=y)

    y = np.array([1.0, 0.4, 0.7])
    engine = NUTS(num_warmup=300, num_samples=2000, num_chains=2)
    fits = {
        "nuts": lvm.fit(program, y, engine),
        "mean field": lvm.fit(program, y, SVI(backend="numpyro", guide="mean_field", num_steps=1500)),
        "full rank": lvm.fit(program, y, SVI(backend="numpyro", guide="full_rank", num_steps=3000)),
    }
    result = lvm.compare(fits, reference="nuts")
    truth = -len(y) / (1 + len(y))  # of the precision I + n 11'
    row = result.joint.loc["mean field"]
    assert abs(row["corr_lost"] - np.sqrt(2) * abs(truth)) < 4 * row["corr_noise"]
    assert row["c2st"] - 0.5 > 4 * row["c2st_error"]
    good = result.joint.loc["full rank"]
    assert good["corr_lost"] < row["corr_lost"] / 2
    assert "nuts" not in result.joint.index
    table = result.table
    narrow = table.loc[("mean field", "a")]
    assert narrow["q05_shift"] > 4 * narrow["q05_error"] > 0 > narrow["q95_shift"] + 4 * narrow["q95_error"]
    assert narrow["kl_to"] > 0
    assert (table.loc["nuts", ["w1", "kl_to", "kl_from"]] == 0).all().all()
    with pytest.raises(ValueError, match="joint: there is nothing to compare with"):
        _ = lvm.compare(fits).joint
