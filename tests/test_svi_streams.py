"""SVI on data that are not in memory: mapped files, streams of batches, torch loaders; what is refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import assert_within
from test_svi_batches import LOCAL, exact_line, line, regression

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, Stream, models, streams
from ppl_lvm.engines import _rows
from ppl_lvm.streams import column_moments, in_blocks, rows_at

BACKENDS = ("numpyro", "pyro")
N, B = 120, 20
DATA = line(N)
SETTINGS: dict[str, Any] = {
    "batch_size": B,
    "num_steps": 60,
    "window": 10,
    "num_draws": 50,
    "early_stop": False,
}


def mapped(folder: Path, array: np.ndarray, name: str = "x") -> np.ndarray:
    np.save(folder / f"{name}.npy", array)
    return np.load(folder / f"{name}.npy", mmap_mode="r")


def same(a: lvm.Fit, b: lvm.Fit) -> None:
    for name in a.params:
        np.testing.assert_allclose(a.params[name], b.params[name], rtol=1e-9)
    np.testing.assert_allclose(a.groups["optimization"]["loss"], b.groups["optimization"]["loss"], rtol=1e-9)
    assert a.evidence.nats == pytest.approx(b.evidence.nats, rel=1e-9)


# ---- mapped files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_mapped_rows_give_the_fit_of_rows_in_memory(backend: str, tmp_path: Path) -> None:
    held = lvm.fit(regression, DATA, SVI(backend=backend, **SETTINGS))
    files = {k: mapped(tmp_path, v, k) for k, v in DATA.items()}
    fit = lvm.fit(regression, files, SVI(backend=backend, **SETTINGS))
    same(held, fit)
    assert isinstance(fit.problem.arguments["x"], np.memmap)
    assert set(fit.posterior) == {"a", "b"}


def test_a_mixture_of_mapped_float32_rows(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    model = models.GaussianMixture(2, covariance="diag")
    double = mapped(tmp_path, x.astype(float), "double")
    same(lvm.fit(model, double, SVI(**SETTINGS)), lvm.fit(model, mapped(tmp_path, x), SVI(**SETTINGS)))


def test_mapped_rows_are_never_read_as_a_whole(tmp_path: Path, monkeypatch: Any) -> None:
    """NumPy's and Python's own memory, beside that of a fit to few rows; the file has a hundred columns."""
    n, d = 40_000, 100
    np.save(tmp_path / "y.npy", np.random.default_rng(0).normal(1.0, 2.0, (n, d)))
    y = np.load(tmp_path / "y.npy", mmap_mode="r")

    def normal(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(mu, 2.0).expand([d]).to_event(1), obs=y)

    settings = {"batch_size": 500, "num_steps": 30, "num_draws": 50, "early_stop": False, "window": 10}
    monkeypatch.setattr(_rows, "AT_ONCE", 1)
    monkeypatch.setattr(_rows, "_BLOCK", 10**5)
    monkeypatch.setattr(streams, "BLOCK", 2**20)
    peaks = []
    for rows in (y[:2000], y):
        tracemalloc.start()
        fit = lvm.fit(normal, rows, SVI(**settings))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    small, peak = peaks
    assert peak < small + 2**23 < y.nbytes  # blocks, and the order of the rows; a quarter of the file
    assert fit.problem.num_data == n
    assert "of 50 draws" not in fit.evidence.note  # all of them were weighed


def test_a_mapped_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    y = mapped(tmp_path, DATA["y"], "y")
    x = mapped(tmp_path, DATA["x"], "x")
    settings = {**SETTINGS, "learning_rate_decay": 1.0, "average": False}
    whole = lvm.fit(regression, {"x": x, "y": y}, SVI(**settings))
    cut = {**settings, "num_steps": 25, "checkpoint": tmp_path / "run"}
    lvm.fit(regression, {"x": x, "y": y}, SVI(**cut))
    more = lvm.fit(regression, {"x": x, "y": y}, SVI(**{**cut, "num_steps": 60}))
    np.testing.assert_array_equal(whole.posterior["a"], more.posterior["a"])


def test_faults_of_a_mapped_file_are_named(tmp_path: Path) -> None:
    y = DATA["y"].copy()
    y[77] = np.nan
    with pytest.raises(ValueError, match=r"y: row 77 has NaN"):
        lvm.fit(regression, {"x": DATA["x"], "y": mapped(tmp_path, y, "y")}, SVI(**SETTINGS))
    fine = mapped(tmp_path, DATA["y"], "fine")
    with pytest.raises(ValueError, match=r"guide='laplace'.*memory"):
        lvm.fit(regression, {"x": DATA["x"], "y": fine}, SVI(guide="laplace", **SETTINGS))
    assert lvm.fit(regression, {"x": DATA["x"], "y": fine}, SVI(num_steps=20)).problem.num_data == N  # read


def test_rows_and_moments_of_a_mapped_file(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, (50, 3))
    file = mapped(tmp_path, x)
    rows = np.array([[4, 3, 3], [49, 0, 7]])
    np.testing.assert_array_equal(rows_at(file, rows), x[rows])
    np.testing.assert_array_equal(np.concatenate(list(in_blocks(file, 100))), x)
    for found, expected in zip(column_moments(file), column_moments(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


# ---- streams -------------------------------------------------------------------------------------------


def batches(size: int = B) -> list[dict[str, np.ndarray]]:
    return [{k: v[i : i + size] for k, v in DATA.items()} for i in range(0, N, size)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stream_reaches_the_posterior_of_all_data(backend: str) -> None:
    settings = {**SETTINGS, "num_steps": 1000, "num_draws": 400, "learning_rate_decay": 0.002}
    stream = Stream(batches(), num_data=N)
    fit = lvm.fit(regression, stream, SVI(backend=backend, guide="full_rank", **settings))
    mean, precision = exact_line(DATA)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    found = np.array([fit.posterior["a"].mean(), fit.posterior["b"].mean()])
    assert_within(found, mean, sd * 0.15)  # steps of the last size, beside 400 draws: 0.05 each
    exact = log_evidence(DATA)
    gap = exact - fit.evidence.nats
    assert -4 * fit.evidence.std_error < gap < 0.3
    assert fit.status.details["steps"] == 1000
    with pytest.raises(ValueError, match="stream"):
        fit.sample_predictive(num_draws=2)
    new = fit.sample_predictive(data={k: v[:5] for k, v in DATA.items()}, num_draws=2)
    assert new["obs"].shape == (1, 2, 5)


def log_evidence(data: dict[str, np.ndarray]) -> float:
    """log p(y), the factor exp(-0.1 a^2) included: a normal integral over (a, b)."""
    _, precision = exact_line(data)
    prior = np.diag([1 / 4 + 0.2, 1 / 9])
    design = np.stack([np.ones_like(data["x"]), data["x"]], 1)
    noise = 0.7
    slope = design.T @ data["y"] / noise**2
    quadratic = (data["y"] ** 2).sum() / noise**2 - slope @ np.linalg.solve(precision, slope)
    log_norm = -0.5 * N * np.log(2 * np.pi * noise**2) - 0.5 * quadratic
    del prior
    return float(log_norm - 0.5 * np.linalg.slogdet(precision)[1] + 0.5 * np.log(1 / 4 * 1 / 9))


def test_a_torch_loader_is_a_stream() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    x = torch.from_numpy(np.random.default_rng(0).normal(size=(100, 2)))
    loader = DataLoader(
        TensorDataset(x), batch_size=30, generator=torch.Generator().manual_seed(0), shuffle=True
    )
    model = models.GaussianMixture(2, covariance="diag", loc_mean=0.0, loc_scale=2.0, scale_loc=0.0)
    fit = lvm.fit(model, loader, SVI(**{**SETTINGS, "batch_size": 30}))
    assert fit.problem.num_data == 100
    assert fit.predict(x.numpy()).shape == (100,)
    pairs = DataLoader(TensorDataset(*(torch.from_numpy(DATA[k]) for k in ("x", "y"))), batch_size=B)
    assert lvm.fit(regression, pairs, SVI(**SETTINGS)).posterior["a"].shape == (1, 50)


@pytest.mark.parametrize("backend", BACKENDS)
def test_local_latents_of_a_stream_are_not_kept(backend: str) -> None:
    x = np.random.default_rng(0).normal(size=60)
    stream = Stream([x[i : i + B] for i in range(0, 60, B)], num_data=60)
    fit = lvm.fit(LOCAL, stream, SVI(backend=backend, **SETTINGS))
    assert set(fit.posterior) == {"m"}
    exact = np.linalg.slogdet(2 * np.pi * (2 * np.eye(60) + 1))[1]
    log_p = -0.5 * (exact + x @ np.linalg.solve(2 * np.eye(60) + 1, x))
    assert fit.evidence.nats < log_p + 4 * fit.evidence.std_error
    assert fit.evidence.nats > log_p - 5


class Endless:
    """Another order in every pass."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        self.passes += 1
        order = np.random.default_rng(self.passes).permutation(N)
        return ({k: v[order[i : i + B]] for k, v in DATA.items()} for i in range(0, N, B))


def test_each_pass_is_asked_for_anew() -> None:
    source = Endless()
    lvm.fit(regression, Stream(source, N), SVI(**SETTINGS))
    # the first batch, 60 steps of 6 batches, a comparison of params at 12 batches, the bound
    assert source.passes == 1 + 10 + 2 + 1


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "no batch size": (lambda: Stream(batches(), N), SVI(), "SVI.*all data at once.*batch_size"),
    "chains": (lambda: Stream(batches(), N), NUTS(), "NUTS.*all data at once"),
    "closed forms": (lambda: Stream(batches(), N), EM(), "EM.*all data at once"),
    "other sizes": (lambda: Stream(batches(), N), SVI(batch_size=7), "first batch has 20 rows"),
    "checkpoints": (lambda: Stream(batches(), N), SVI(batch_size=B, checkpoint="run"), "random access"),
    "a generator": (lambda: Stream(iter(batches()), N), SVI(**SETTINGS), "iterated once"),
    "an empty one": (lambda: Stream([], N), SVI(**SETTINGS), "empty"),
    "a wrong number": (lambda: Stream(batches(), 2 * N), SVI(**SETTINGS), "gave 120 rows.*num_data says 240"),
    "too few": (lambda: Stream(batches(), 10), SVI(**SETTINGS), "fewer than the first batch"),
    "uneven": (
        lambda: Stream([batches()[0], {k: v[:7] for k, v in DATA.items()}, *batches()], N),
        SVI(**SETTINGS),
        "a batch of the stream has 7 rows",
    ),
    "a loader without a length": (
        lambda: torch.utils.data.DataLoader(torch.utils.data.ChainDataset([]), batch_size=None),
        SVI(**SETTINGS),
        "num_data",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_stream_cannot_give_is_said(name: str) -> None:
    build, engine, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        lvm.fit(regression, build(), engine)


def test_trainings_by_epochs_refuse_streams() -> None:
    x = np.zeros((16, 5, 6))
    model = models.VAE(latent_dim=2, likelihood="bernoulli")
    with pytest.raises(ValueError, match="random access"):
        lvm.fit(model, Stream([x, x], 32), SVI(batch_size=16, num_epochs=1))
