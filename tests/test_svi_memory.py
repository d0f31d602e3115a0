"""SVI on many rows: what is allocated follows the data by one copy here and one on the device, no more."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as ndist
import pytest
from helpers import same_arrays
from test_svi_optimiser import location

import ppl_lvm as lvm
from ppl_lvm import SVI, data, emissions, models, streams
from ppl_lvm.core import Run
from ppl_lvm.engines import _start
from ppl_lvm.engines._batches import Batches
from ppl_lvm.engines._start import starting_values
from ppl_lvm.fitting import prepare

MB = 2**20
SLACK = 2 * MB  # traces of programs at few rows, and objects
MIXTURE = models.GaussianMixture(2, covariance="diag")


def rows(n: int, d: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d)) + 4.0 * (np.arange(n) % 2)[:, None]


def allocated(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What ``work`` gives, and the bytes of NumPy and Python that it kept and had at most."""
    tracemalloc.start()
    try:
        result = work()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return result, kept, peak


# ---- checks and preparation ----------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is used": lambda x: x,
    "columns first": np.asfortranarray,
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "single precision": lambda x: x.astype(np.float32),
    "integers": lambda x: x.astype(np.int32),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", [MIXTURE, models.Mixture(2, emissions.Gaussian("diag"))])
def test_a_problem_holds_one_copy_and_makes_no_other(layout: str, model: Any) -> None:
    prepare(model, rows(25_000), few_rows=True)  # imports and traces
    x = LAYOUTS[layout](rows(400_000))
    size = x.size * 8
    problem, kept, peak = allocated(lambda: prepare(model, x, few_rows=True))
    blocks = 3 * streams.BLOCK  # of moments and checks
    assert size <= kept < size + SLACK
    assert peak < size + blocks + SLACK < 2 * size
    held = problem.arguments["x"]
    assert held.flags.c_contiguous
    assert held.dtype == np.float64
    assert not np.shares_memory(held, x)  # the user may go on to change theirs
    np.testing.assert_array_equal(held[::9999], x[::9999].astype(float))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
def test_models_with_missing_entries_read_mapped_files(dtype: type, tmp_path: Path) -> None:
    x = rows(50).round()
    np.save(tmp_path / "x.npy", x.astype(dtype))
    file = np.load(tmp_path / "x.npy", mmap_mode="r")
    with data.mapped_rows_kept(True):
        held = models.Mixture(2, emissions.Gaussian("diag")).bind(file).values["x"]
    assert not isinstance(held, np.memmap)
    assert held.dtype == np.float64
    np.testing.assert_array_equal(held, x)


def test_what_is_not_finite_is_found_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(1000)
    monkeypatch.setattr(streams, "BLOCK", 320)  # ten rows
    assert streams.where_bad(x, streams.not_finite) is None
    x[500, 3], x[501, 0], x[999] = np.nan, np.inf, -np.inf
    assert streams.where_bad(x, streams.not_finite) == (6, (500, 3))
    assert streams.where_bad(x, np.isnan) == (1, (500, 3))
    assert streams.where_bad(np.array(np.nan), np.isnan) == (1, (0,))
    with pytest.raises(ValueError, match=r"x: 6 of 4000 values are NaN or infinite .*index \(500, 3\)"):
        data.to_array("x", x)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_in_blocks_are_those_of_all_rows(offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(999) * [1.0, 10.0, 0.1, 1.0] + offset
    whole = streams.column_moments(x)
    np.testing.assert_array_equal(whole[0], x.mean(0))  # one block: to the bit
    np.testing.assert_array_equal(whole[1], x.std(0))
    monkeypatch.setattr(streams, "BLOCK", 1000)
    mean, sd, largest = streams.column_moments(x)
    away = x - offset  # without rounding: x lies within a factor of 2 of the offset, or there is none
    unit = len(x) * np.finfo(float).eps
    rounding = unit * largest  # of a mean of n terms, summed in any order
    assert (np.abs(mean - offset - away.mean(0)) <= rounding).all()
    # means of blocks that are off by as much move the squares of their distances, whose mean is the variance
    shift = 2 * away.std(0) * rounding + rounding**2
    assert (np.abs(sd**2 - away.var(0)) <= shift + unit * away.var(0)).all()
    np.testing.assert_array_equal(largest, np.abs(x).max(0))


# ---- starts and the order of rows ----------------------------------------------------------------------


class Watched:
    """A model's closed forms, with the number of rows that starts were made from."""

    def __init__(self, exact: Any) -> None:
        self.exact, self.seen = exact, []

    def initial_values(self, arguments: Mapping[str, Any], rng: Any) -> dict[str, np.ndarray]:
        self.seen.append(np.array(arguments["x"]))
        found: dict[str, np.ndarray] = self.exact.initial_values(arguments, rng)
        return found


def test_a_start_looks_at_so_many_rows_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(MIXTURE.exact)
    monkeypatch.setattr(models.GaussianMixture, "exact", property(lambda self: watched))
    monkeypatch.setattr(_start, "ENOUGH", 500)
    problem = prepare(MIXTURE, rows(30_000), few_rows=True)
    first, again, other = (starting_values(problem, Run(seed))[0] for seed in (0, 0, 1))
    assert [len(x) for x in watched.seen] == [500] * 3
    assert len(np.unique(watched.seen[0], axis=0)) == 500  # no row twice
    assert same_arrays(first, again)
    assert not same_arrays(first, other)


def test_orders_of_rows_take_four_bytes_a_row() -> None:
    n = 200_000
    batches = Batches(seed=3, num_data=n, size=1000)
    _, kept, peak = allocated(lambda: batches.rows(0, 2))
    assert kept < 4 * n + 100_000
    assert peak < 4 * n + 100_000
    _, kept, peak = allocated(lambda: [batches.rows(i, 1) for i in range(0, 1000, 100)])  # more epochs
    assert peak < 2 * 4 * n + 100_000
    order = np.random.default_rng([3, 3, 1]).permutation(n)  # the draws of an epoch, as they always were
    np.testing.assert_array_equal(batches.rows(200, 2), order[:2000].reshape(2, 1000))


# ---- runs ----------------------------------------------------------------------------------------------


def location_twin(y: Any) -> None:
    mu = numpyro.sample("mu", ndist.Normal(0.0, 10.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("obs", ndist.Normal(mu, 2.0), obs=y)


@pytest.mark.parametrize("batch_size", [None, 500])
def test_the_device_holds_the_rows_once(batch_size: int | None) -> None:
    """Seen from the guide's program, which runs between the first step's copy and the last draw's."""
    import jax

    n, held = 20_011, []

    def guide(y: Any) -> None:
        held.append(sum(a.nbytes for a in jax.live_arrays() if n in a.shape))
        at = numpyro.param("at", float(n) / len(y))  # of all rows, whatever the batch
        numpyro.sample("mu", ndist.Normal(at, 0.1))

    model = lvm.Model(location, numpyro=lvm.core.Program(location_twin, guide))
    engine = SVI(
        backend="numpyro", batch_size=batch_size, num_steps=20, window=10, num_draws=10, early_stop=False
    )
    y = 1.0 + np.random.default_rng(0).normal(size=n)
    lvm.fit(model, y, engine)
    assert len(held) > 2
    assert max(held) == y.nbytes


PROCESS = """
import resource, sys
import numpy as np
import ppl_lvm as lvm
from ppl_lvm import SVI, models

backend, mapped, n, path = sys.argv[1], sys.argv[2] == "mapped", int(sys.argv[3]), sys.argv[4]
engine = SVI(backend=backend, batch_size=1000, num_steps=40, window=20, num_draws=100, early_stop=False)
x = np.load(path, mmap_mode="r")[:n]
x = x if mapped else np.array(x)
lvm.fit(models.GaussianMixture(3, covariance="diag"), x, engine)
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mapped", ["mapped", "in memory"])
@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_peak_memory_of_a_process_follows_the_data_only(
    backend: str, mapped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 100,000 and 1,000,000 rows, programs read from a cache: compiling takes more than either."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    np.save(tmp_path / "x.npy", rows(1_000_000))
    size = 900_000 * 4 * 8  # of the data, by which the two differ
    peaks = []
    for n in (100_000, 1_000_000):
        for _ in range(2):
            command = [sys.executable, "-c", PROCESS, backend, mapped, str(n), str(tmp_path / "x.npy")]
            done = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
        peaks.append(int(done.stdout.split()[-1]))
    # in memory: the user's array, the fit's copy, that of the device; mapped: none; the order of the rows
    copies = 0 if mapped == "mapped" else 3
    slack = 4 * 900_000 + 40 * MB  # of the allocators: what was let go is not all given back
    assert peaks[1] - peaks[0] < copies * size + slack
