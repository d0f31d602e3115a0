"""Edges that a careful user of the zoo meets: names of columns, held sites, gaps, what is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import ppl_lvm as lvm
from ppl_lvm import EM, SVI, ImportanceSampling, emissions, models

GAUSSIANS = {
    "Mixture": lambda: models.Mixture(2, emissions.Gaussian()),
    "FactorAnalysis": lambda: models.FactorAnalysis(1),
    "HMM": lambda: models.HMM(2, emissions.Gaussian()),
}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    found = pd.DataFrame({"a": rng.normal(0, 1, 60), "b": rng.normal(10, 1, 60)})
    found.iloc[:30] += 2.0
    found["c"] = 0.7 * found.a + 0.3 * found.b + rng.normal(0, 0.5, 60)
    return found


@pytest.fixture(scope="module")
def sequences() -> list[np.ndarray]:
    """Counts of at least 5, of different lengths."""
    rng = np.random.default_rng(1)
    states = np.cumsum(rng.random((4, 30)) < 0.15, axis=1) % 2
    x = rng.poisson(np.array([2.0, 9.0])[states])[..., None] + 5.0
    return [x[0], x[1][:20], x[2][:11], x[3][:4]]


# ---- names of columns ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", GAUSSIANS)
def test_columns_are_found_by_name_in_any_container(name: str, frame: pd.DataFrame) -> None:
    fit = lvm.fit(GAUSSIANS[name](), frame, EM(num_init=2))
    moved = frame[["c", "b", "a"]]
    expected = fit.score(frame)
    containers: list[Any] = [moved, {"x": moved}] + ([[moved]] if name == "HMM" else [])
    for data in containers:
        assert fit.score(data) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="columns"):
        fit.score({"x": moved.rename(columns={"a": "z"})})


def test_a_filter_finds_the_entries_of_a_series_by_name(frame: pd.DataFrame) -> None:
    fit = lvm.fit(models.HMM(2, emissions.Gaussian()), frame, EM(num_init=2))
    straight, mixed = fit.filter(), fit.filter()
    for _, row in frame.iterrows():
        a, b = straight.update(row), mixed.update(row[["c", "a", "b"]])
        np.testing.assert_array_equal(a, b)
    assert straight.log_likelihood == pytest.approx(float(fit.score_samples()[0]), rel=1e-10)


def test_forecasts_keep_the_columns_names(frame: pd.DataFrame) -> None:
    fit = lvm.fit(models.HMM(2, emissions.Gaussian()), frame, EM(num_init=2))
    assert list(fit.forecast(steps=2, num_draws=3)["obs"].feature.values) == ["a", "b", "c"]


@pytest.mark.parametrize("name", GAUSSIANS)
def test_pandas_own_missing_value_is_one(name: str, frame: pd.DataFrame) -> None:
    whole = frame.round().astype("Int64")
    whole.iloc[3, 1] = pd.NA
    bound = np.squeeze(GAUSSIANS[name]().bind(whole).values["x"])
    assert np.isnan(bound[3, 1])
    assert np.isnan(bound).sum() == 1


# ---- held sites ----------------------------------------------------------------------------------


def test_held_sites_keep_what_a_model_can_do(sequences: list[np.ndarray]) -> None:
    rows = np.array([[0.85, 0.15], [0.15, 0.85]])
    held = lvm.condition(models.HMM(2), {"transition": rows})
    fit = lvm.fit(held, sequences, SVI(num_steps=300, num_draws=100))
    check = fit.check(np.nanmin, num_draws=50)
    assert check.observed == np.min([s.min() for s in sequences])  # not the filler beyond a sequence's end
    assert np.isnan(fit.to_arviz()["observed_data"]["obs"].values).sum() == 4 * 30 - sum(map(len, sequences))
    assert fit.predict().shape == (4, 30)
    assert fit.sample(3, length=7).shape == (3, 7, 1)
    assert fit.latents(num_draws=5)["states"].shape == (1, 5, 4, 30)
    assert fit.model.label_axes is not None  # these rows do not tell the states apart


def test_held_values_that_tell_labels_apart_end_the_symmetry(frame: pd.DataFrame) -> None:
    base = models.Mixture(2, emissions.Gaussian("diag"))
    assert lvm.condition(base.resolve(frame), {"weights": [0.5, 0.5]}).label_axes is not None
    uneven = lvm.condition(base.resolve(frame), {"weights": [0.4, 0.6]})
    assert uneven.label_axes is None
    assert "one order" in uneven.label_note


def test_factor_models_can_be_held_at_sites_and_at_a_point(frame: pd.DataFrame) -> None:
    base = models.FactorAnalysis(1)
    vi = lvm.fit(
        lvm.condition(base, {"loc": frame.mean().to_numpy()}), frame, SVI(num_steps=200, num_draws=50)
    )
    assert vi.transform().shape == (60, 1)
    assert np.isfinite(vi.score_samples()).all()
    point = lvm.fit(base, frame, EM())
    explicit = lvm.condition(models.FactorAnalysis(1, collapsed=False), point)
    assert lvm.fit(explicit, frame, SVI(num_steps=50, num_draws=20)).posterior["z"].shape == (1, 20, 60, 1)


def test_held_values_outside_the_support_are_an_error_in_words(sequences: list[np.ndarray]) -> None:
    for given in ({"transition": [[0.9, 0.9], [0.1, 0.9]]}, {"rate": [[-1.0], [2.0]]}):
        with pytest.raises(ValueError, match=r"^given: .*support"):
            lvm.fit(lvm.condition(models.HMM(2), given), sequences, SVI(num_steps=10))
    x = np.concatenate(sequences)
    held = lvm.condition(models.Mixture(2, emissions.Poisson()), {"assignment": np.zeros(len(x))})
    with pytest.raises(ValueError, match="discrete"):
        lvm.fit(held, x, SVI(num_steps=10))


def test_evidence_of_one_order_of_labels_says_so() -> None:
    x = np.repeat([[1, 1, 0, 0], [0, 0, 1, 1]], 6, axis=0).astype(float)
    uneven = models.Mixture(2, emissions.Bernoulli(), concentration=(3.0, 2.0))
    fit = lvm.fit(uneven, x, SVI(num_steps=200, num_draws=50))
    assert fit.evidence is not None
    assert "one order" in fit.evidence.note
    weighed = lvm.fit(uneven, x, ImportanceSampling(num_samples=100, proposal=fit))
    assert "one order" in weighed.evidence.note  # type: ignore[union-attr]  # importance sampling has one


# ---- sequences -----------------------------------------------------------------------------------


def test_lists_of_sequences_mean_one_thing() -> None:
    hmm = models.HMM(2)
    assert hmm.bind([[1, 2, 3], [4, 5]]).values["x"].shape == (2, 3, 1)
    with pytest.raises(ValueError, match="equal length"):
        hmm.bind([[1, 2, 3], [4, 5, 6]])
    for second in ([4.0, 5.0, 6.0], [4.0, 5.0]):
        series = [pd.Series([1.0, 2.0, 3.0]), pd.Series(second)]
        assert hmm.bind(series).values["x"].shape == (2, 3, 1)


def test_leaving_one_sequence_out_of_one_is_refused(sequences: list[np.ndarray]) -> None:
    fits = {str(k): lvm.fit(models.HMM(k), sequences[0], SVI(num_steps=50, num_draws=30)) for k in (1, 2)}
    with pytest.raises(ValueError, match="one datum"):
        lvm.rank(fits, by="loo")


# ---- what is compared and counted ----------------------------------------------------------------


def test_statistics_of_other_data_are_other_data(frame: pd.DataFrame) -> None:
    x = frame.to_numpy()
    statistics = lvm.SufficientStatistics.from_rows(x)
    fits = {"rows": lvm.fit(models.PPCA(1), x, EM()), "statistics": lvm.fit(models.PPCA(2), statistics, EM())}
    assert len(lvm.rank(fits, by="bic")) == 2
    fits["other"] = lvm.fit(models.PPCA(1), lvm.SufficientStatistics.from_rows(x + 1), EM())
    with pytest.raises(ValueError, match="different data"):
        lvm.rank(fits, by="bic")


def test_data_in_tiny_units_are_told_apart(frame: pd.DataFrame) -> None:
    x = 1e-9 * frame.to_numpy()
    fits = {str(i): lvm.fit(models.PPCA(1), factor * x, EM()) for i, factor in enumerate((1.0, 2.0))}
    with pytest.raises(ValueError, match="different data"):
        lvm.rank(fits, by="bic")


def test_bic_counts_what_was_observed(frame: pd.DataFrame) -> None:
    counts = np.random.default_rng(2).poisson(np.repeat([2.0, 9.0], 20))[:, None].astype(float)
    longer = np.concatenate([counts, np.full((400, 1), np.nan)])
    short, long = (lvm.fit(models.HMM(2), x, EM(num_init=2, tol=1e-10)) for x in (counts, longer))
    assert long.log_likelihood == pytest.approx(short.log_likelihood, abs=1e-3)
    assert long.bic == pytest.approx(short.bic, abs=1e-2)
    x = frame.to_numpy()
    taller = np.concatenate([x, np.full((300, 3), np.nan)])
    a, b = (lvm.fit(models.FactorAnalysis(1), data, EM(tol=1e-12)) for data in (x, taller))
    assert b.bic == pytest.approx(a.bic, abs=1e-3)


def test_pca_has_no_likelihood_to_rank_by(frame: pd.DataFrame) -> None:
    fit = lvm.fit(models.PPCA(1, scale=0.0), frame, EM())
    with pytest.raises(ValueError, match="no density"):
        _ = fit.bic


def test_advice_is_to_the_point(frame: pd.DataFrame, sequences: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="sufficient statistics"):
        lvm.fit(models.FactorAnalysis(1), frame, SVI(batch_size=20))
    fit = lvm.fit(models.HMM(2), sequences, EM(num_init=2))
    with pytest.raises(ValueError, match="nanmean"):
        fit.check(np.mean, num_draws=5)
    for dims in (2, [1.7], "12", []):
        with pytest.raises(ValueError, match="dims"):
            lvm.choose_dimension(models.PPCA(1), frame, dims)  # type: ignore[arg-type]  # on purpose
    chunks = iter([frame.to_numpy()[:30], frame.to_numpy()[30:]])
    assert len(lvm.choose_dimension(models.PPCA(1), chunks, (1, 2)).table) == 2
