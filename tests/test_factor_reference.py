"""PPCA and factor analysis against results stored from scikit-learn (``sklearn_reference.json``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ppl_lvm.models.factor_analysis import FactorAnalysis
from ppl_lvm.models.factor_analysis._sites import to_sites
from ppl_lvm.models.ppca import PPCA

PPCA_ENTRIES = 18
FA_ENTRIES = 11


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared_data / "sklearn_reference.json").read_text())
    return found


def load(name: str, folder: Path) -> np.ndarray:
    from sklearn import datasets

    if name in ("wine_std", "breast_cancer_std"):
        x = getattr(datasets, f"load_{name.removesuffix('_std')}")().data
        return (x - x.mean(0)) / x.std(0)
    if name == "iris":
        return datasets.load_iris().data
    if name.startswith("digits"):
        x = datasets.load_digits().data / 16
        return x if name == "digits" else x[:, x.std(0) > 0]
    if name == "old_faithful":
        return np.genfromtxt(folder / name / "faithful.csv", delimiter=",", skip_header=1)[:, -2:]
    if name == "oil_flow_100":
        return np.load(folder / name / "oil_flow_100.npz")["Y"]
    table = np.genfromtxt(
        folder / name / f"{name}.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    return np.stack([table[f"x{i}"] for i in range(1, 10)], axis=1).astype(float)


def score(model: Any, x: np.ndarray, loc: np.ndarray, loadings: np.ndarray, scale: np.ndarray) -> float:
    """Mean log density per row at given parameters, by the model's closed form."""
    data = model.arguments(model.bind(x))
    values = to_sites(loc, loadings, scale, model.structure, model.anchors, data["prior"])
    return float(model.exact.log_likelihood(values, data).mean())


def closed_form(x: np.ndarray, q: int, ddof: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The rule that the reference names, written out."""
    values, vectors = np.linalg.eigh(np.cov(x.T, ddof=ddof))
    noise = values[:-q].mean()
    loadings = vectors[:, -q:] * np.sqrt(values[-q:] - noise)
    return x.mean(0), loadings, float(noise)


@pytest.mark.parametrize("index", range(PPCA_ENTRIES))
def test_ppca(index: int, reference: dict[str, Any], shared_data: Path) -> None:
    assert len(reference["ppca"]) == PPCA_ENTRIES
    entry = reference["ppca"][index]
    x = load(entry["data"], shared_data)
    assert list(x.shape) == reference["data"][entry["data"]]["shape"]
    np.testing.assert_allclose(x.sum(), reference["data"][entry["data"]]["sum"], atol=1e-6)
    q = entry["n_components"]
    model = PPCA(q).resolve(x)
    found = model.exact.em(model.arguments(model.bind(x)))
    assert abs(found.log_likelihood / len(x) - entry["ml_mean_loglik"]) < 1e-6
    assert abs(float(found.values["scale"]) ** 2 - entry["ml_sigma2"]) < 1e-6
    for ddof, wanted in ((0, "ml_mean_loglik"), (1, "sklearn_score")):
        loc, loadings, noise = closed_form(x, q, ddof)
        assert abs(score(model, x, loc, loadings, np.full(x.shape[1], np.sqrt(noise))) - entry[wanted]) < 1e-6


@pytest.mark.parametrize("index", range(FA_ENTRIES))
def test_factor_analysis(index: int, reference: dict[str, Any], shared_data: Path) -> None:
    assert len(reference["factor_analysis"]) == FA_ENTRIES
    entry = reference["factor_analysis"][index]
    x = load(entry["data"], shared_data)
    q = entry["settings"]["n_components"]
    model = FactorAnalysis(q).resolve(x)
    if "params" in entry:
        stored = {k: np.asarray(v) for k, v in entry["params"].items()}
    else:
        arrays = np.load(shared_data / "sklearn_reference_arrays.npz")
        stem = f"{entry['data']}_fa{q}"
        stored = {k: arrays[f"{stem}_{k}"] for k in ("components", "noise_variance")}
    loc = stored.get("mean", x.mean(0))
    at_stored = score(model, x, loc, stored["components"].T, np.sqrt(stored["noise_variance"]))
    assert abs(at_stored - entry["mean_loglik"]) < 1e-6
    found = model.exact.em(model.arguments(model.bind(x)), tol=1e-9, num_init=3)
    assert found.converged
    gain = found.log_likelihood / len(x) - entry["mean_loglik"]
    assert gain > -1e-6  # scikit-learn's own end, or above it
    end = found.values
    covariance = end["loadings"] @ end["loadings"].T + np.diag(end["scale"] ** 2)
    dense = stats.multivariate_normal(end["loc"], covariance).logpdf(x).mean()
    assert abs(dense - found.log_likelihood / len(x)) < 1e-6  # and it is what it says
