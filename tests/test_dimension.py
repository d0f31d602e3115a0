"""Choosing the number of latent dimensions: known dimensions are found, and the table says what it should."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.decomposition._pca import _infer_dimension

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, ImportanceSampling, models

TRUE_DIM, D = 3, 8


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Rows of a factor model with three strong factors and noise sd 0.5."""
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((D, TRUE_DIM)) * np.array([2.0, 1.5, 1.0])
    return rng.standard_normal((400, TRUE_DIM)) @ loadings.T + 0.5 * rng.standard_normal((400, D))


@pytest.fixture(scope="module")
def choice(x: np.ndarray) -> lvm.dimension.DimensionChoice:
    short = NUTS(backend="numpyro", num_warmup=300, num_samples=200, num_chains=2)
    return lvm.choose_dimension(models.PPCA(1), x, range(2, 5), loo=short, ard=short)


@pytest.mark.slow
def test_every_criterion_finds_the_dimension(choice: lvm.dimension.DimensionChoice) -> None:
    assert choice.best["bic"] == TRUE_DIM
    assert choice.best["laplace_evidence"] == TRUE_DIM
    assert choice.best["elpd_loo"] == TRUE_DIM
    assert choice.best["ard"] == TRUE_DIM
    assert choice.best["aic"] in (TRUE_DIM, TRUE_DIM + 1)  # AIC may take one too many


def test_the_table_is_that_of_the_fits(choice: lvm.dimension.DimensionChoice, x: np.ndarray) -> None:
    table = choice.table
    assert list(table.index) == [2, 3, 4]
    for q, fit in choice.fits.items():
        again = lvm.fit(models.PPCA(q), x, EM())
        assert table.loc[q, "log_likelihood"] == pytest.approx(again.log_likelihood, rel=1e-10)
        assert table.loc[q, "bic"] == pytest.approx(fit.bic)
        assert table.loc[q, "num_parameters"] == D + D * q + 1 - q * (q - 1) // 2
    assert (np.diff(table["log_likelihood"]) > 0).all()
    np.testing.assert_allclose(choice.eigenvalues, np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1])
    assert "bic: 3" in repr(choice)


def test_the_laplace_evidence_orders_as_scikit_learn_does(
    choice: lvm.dimension.DimensionChoice, x: np.ndarray
) -> None:
    """scikit-learn's ``PCA(n_components="mle")`` maximises the same approximation over all dimensions."""
    spectrum = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    assert choice.best["laplace_evidence"] == _infer_dimension(spectrum, len(x))


def test_factor_analysis_and_missing_entries(x: np.ndarray) -> None:
    holes = x.copy()
    holes[np.random.default_rng(1).random(x.shape) < 0.05] = np.nan
    found = lvm.choose_dimension(models.FactorAnalysis(1), holes, (2, 3, 4))
    assert found.best["bic"] == TRUE_DIM
    assert "laplace_evidence" not in found.table
    assert len(found.eigenvalues) == D


def test_bad_input_is_an_error_in_words(x: np.ndarray) -> None:
    with pytest.raises(TypeError, match="latent_dim"):
        lvm.choose_dimension(models.GaussianMixture(2), x, (1, 2))
    with pytest.raises(ValueError, match="dims"):
        lvm.choose_dimension(models.PPCA(1), x, ())
    with pytest.raises(ValueError, match="latent_dim"):
        lvm.choose_dimension(models.PPCA(1), x, (1, D))
    with pytest.raises(ValueError, match="points"):
        lvm.choose_dimension(models.PPCA(1), x, (1, 2), loo=EM())
    with pytest.raises(ValueError, match="too uneven for LOO"):
        lvm.choose_dimension(models.PPCA(1), x, (1, 2), loo=ImportanceSampling(num_samples=50))


def test_any_engine_with_draws_gives_loo(x: np.ndarray) -> None:
    """A row far out has too large a k, which the table counts and no library warns of."""
    rows = x[:60] * np.where(np.arange(60) == 0, 20.0, 1.0)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of ArviZ, for large k: none may come through
        found = lvm.choose_dimension(models.PPCA(1), rows, (1, 2), loo=SVI(num_steps=200, num_draws=100))
    assert np.isfinite(found.table["elpd_loo"]).all()
    assert (found.table["bad_k"] >= 1).all()
    assert (found.table["se"] > 0).all()
