"""Calibration by exact samplers: uniform ranks, planted faults, resuming, executors, words for bad input."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from calibration_cases import COLUMNS, FAULTS, Conjugate, normal_gamma
from helpers import SCHOOLS, assert_within
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, models
from ppl_lvm.calibration import _quantities, _uniform
from ppl_lvm.calibration._simulate import Task, simulate
from ppl_lvm.calibration._table import make_table

FEW = 24


def run(engine: Any = None, num: int = FEW, **settings: Any) -> lvm.Calibration:
    return lvm.calibrate(normal_gamma, engine or Conjugate(), num, data=COLUMNS, progress=False, **settings)


def same(a: lvm.Calibration, b: lvm.Calibration) -> bool:
    return bool((a.ranks == b.ranks).all()) and a.table["p_value"].equals(b.table["p_value"])


# ---- the tests of uniformity ---------------------------------------------------------------------


def test_the_p_value_of_the_ecdf_is_its_frequency() -> None:
    """The walk's probabilities against simulated ECDFs, whose tail probabilities come from SciPy here."""
    n, repeats = 40, 4000
    walk = _uniform._walk(n, 20)
    z = np.arange(1, 20) / 20
    u = np.random.default_rng(0).random((repeats, n))
    counts = (u[:, :, None] <= z).sum(1)
    least = 2 * np.minimum(stats.binom.cdf(counts, n, z), stats.binom.sf(counts - 1, n, z)).min(1)
    for gamma in (1e-3, 0.01, 0.03, 0.1):
        share = float((least <= gamma).mean())
        p = walk.p_value(gamma)
        assert_within(share, p, np.sqrt(p * (1 - p) / repeats))


def test_bands_hold_whole_curves_as_often_as_they_say() -> None:
    n, repeats = 50, 3000
    bands = _uniform.ecdf_bands(n, 0.9)
    u = np.random.default_rng(1).random((repeats, n))
    curves = (u[:, :, None] <= bands.z).mean(1)
    inside = float(((curves >= bands.low - 1e-12) & (curves <= bands.high + 1e-12)).all(1).mean())
    error = np.sqrt(0.09 / repeats)
    assert 0.9 - 4 * error < inside < 0.95  # counts are whole, so that it cannot be met exactly


@pytest.mark.parametrize("kind", ["sbc", "vsbc"])
def test_false_alarms_are_as_rare_as_they_should_be(kind: str) -> None:
    """Tables of ten independent uniform quantities; a family's alarms have probability 0.1 or less."""
    xr = pytest.importorskip("xarray")
    rng, repeats = np.random.default_rng(2), 150
    alarms = 0
    for _ in range(repeats):
        pit = xr.DataArray(rng.random((100, 10)), dims=("simulation", "quantity"))
        simulations = xr.Dataset({"pit": pit}, coords={"quantity": [f"q{i}" for i in range(10)]})
        alarms += bool((make_table(simulations, kind, 0.1)["finding"] != "").any())
    assert alarms / repeats < 0.1 + 4 * np.sqrt(0.09 / repeats)
    assert alarms >= 3  # of 15 expected: were they fewer, the test would see too little


@pytest.mark.parametrize(
    ("shape", "words"),
    [((0.4, 0.4), "too narrow"), ((2.5, 2.5), "too wide"), ((1.0, 2.0), "too high"), ((2.0, 1.0), "too low")],
)
def test_the_shape_of_a_histogram_is_put_in_words(shape: tuple[float, float], words: str) -> None:
    xr = pytest.importorskip("xarray")
    pit = np.random.default_rng(3).beta(*shape, (200, 1))
    data = xr.Dataset({"pit": (("simulation", "quantity"), pit)}, coords={"quantity": ["q"]})
    for kind in ("sbc", "vsbc"):
        assert words in make_table(data, kind, 0.01).loc["q", "finding"]


def test_adjusted_p_values_are_holms() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(_uniform.holm(p), [0.03, 0.06, 0.06, 0.02])


def test_combined_p_values_of_equal_ones_are_that_one() -> None:
    for p in (1e-200, 1e-20, 1e-15, 1e-6, 0.02, 0.5):
        assert np.isclose(_uniform.combined_p(np.full(4, p)), p, rtol=1e-6)


# ---- ranks of exact draws, and planted faults ----------------------------------------------------


def test_an_exact_engine_passes() -> None:
    found = run(num=120, seed=1)
    assert found.passed, found
    assert list(found.table.index) == ["precision", "mu[0]", "mu[1]", "mu[2]", "log_likelihood", "log_prior"]
    assert found.ranks.min() >= 0
    assert found.ranks.max() <= 99
    for name in found.table.index:
        assert stats.kstest(found.simulations["pit"].sel(quantity=name), "uniform").pvalue > 1e-4
    error = 0.5 / np.sqrt(3 * 120)
    assert_within(found.table["bias"].to_numpy(), 0.0, error)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str) -> None:
    found = run(FAULTS[fault], 100, seed=2)
    assert not found.passed
    words = found.table["finding"]
    if fault == "posterior sd x 0.7":
        assert all("too narrow" in words[f"mu[{j}]"] for j in range(3))
    elif fault == "prior scale x 1.5":
        assert "too low" in words["log_prior"]
    else:
        assert "too low" in words["precision"]


@pytest.mark.slow
def test_faults_are_caught_in_9_of_10_runs_with_at_most_1_false_alarm_in_20() -> None:
    for fault, engine in FAULTS.items():
        assert sum(not run(engine, 200, seed=s).passed for s in range(10)) >= 9, fault
    assert sum(not run(num=200, seed=s).passed for s in range(20)) <= 1


def test_ties_are_broken_at_random() -> None:
    """Draws with duplicates of the truth: every place among them is as probable."""
    from ppl_lvm.calibration._simulate import _rank

    values = np.tile(np.array([0.0, 1, 1, 1, 2, 1])[:, None], 4000)
    ranks = _rank(values, np.random.default_rng(0))
    counts = np.bincount(ranks, minlength=6)
    assert counts[0] == counts[5] == 0
    assert_within(counts[1:5] / 4000, 0.25, np.sqrt(0.25 * 0.75 / 4000))


def test_another_simulator_is_a_fault() -> None:
    other = lvm.Model(_shifted)
    assert not run(num=60, simulator=other).passed


def _shifted(x: Any) -> None:
    precision = pyro.sample("precision", dist.Gamma(3.0, 3.0))
    with pyro.plate("column", x.shape[1], dim=-1):
        mu = pyro.sample("mu", dist.Normal(2.0, precision**-0.5))
        with pyro.plate("row", x.shape[0], dim=-2):
            pyro.sample("obs", dist.Normal(mu, precision**-0.5), obs=x)


# ---- symmetries ----------------------------------------------------------------------------------


def test_labels_of_the_truth_are_treated_like_those_of_draws() -> None:
    """The true value is one of L + 1 draws from one distribution, each with labels of its own."""
    rng, model = np.random.default_rng(4), models.GaussianMixture(2, covariance="diag")
    pit = []
    for _ in range(300):
        centre = rng.normal(0, 3, (2, 1))  # what the posterior is around; the truth is one of its draws
        loc = centre + rng.normal(0, 1.0, (20, 2, 1))
        swap = rng.random(20) < 0.5
        loc[swap] = loc[swap, ::-1]
        values = {"loc": loc, "weights": np.full((20, 2), 0.5), "scale": np.ones((20, 2, 1))}
        found = _quantities.symmetrised(model, values, rng)["loc"][:, :, 0]
        pit.append(((found[:-1] < found[-1]).sum(0) + rng.random(2)) / 20)
        np.testing.assert_allclose(np.sort(found, 1), np.sort(loc[:, :, 0], 1))
    for column in np.array(pit).T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    "model", [models.PPCA(2), models.PPCA(2, ard=True), models.FactorAnalysis(2)], ids=["turns", "ard", "fa"]
)
def test_turns_of_factors_leave_invariants_and_align_draws(model: Any) -> None:
    rng = np.random.default_rng(5)
    loadings = rng.normal(0, 1, (5, 2)) * [3.0, 1.0] + rng.normal(0, 0.02, (30, 5, 2))
    turns = _quantities._random_turns(model.rotation.kind, 30, 2, rng)
    np.testing.assert_allclose(turns @ np.swapaxes(turns, 1, 2), np.tile(np.eye(2), (30, 1, 1)), atol=1e-12)
    values = {"loadings": loadings @ turns, "scale": np.ones(30)}
    found = _quantities.symmetrised(model, values, rng)["loadings"]
    np.testing.assert_allclose(
        found @ np.swapaxes(found, 1, 2), loadings @ np.swapaxes(loadings, 1, 2), atol=1e-10
    )
    assert found.std(0).max() < 0.2  # of 0.02 of noise, blown up by the turn that it is found from


# ---- running: seeds, checkpoints, executors ------------------------------------------------------


def test_a_simulation_depends_on_its_number_alone() -> None:
    more, fewer = run(num=FEW + 6, seed=3), run(seed=3)
    assert (more.ranks.values[:FEW] == fewer.ranks.values).all()
    assert (run(seed=4).ranks.values != fewer.ranks.values).any()


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ppl_lvm.calibration import _running

    folder, counted = tmp_path / "run", []

    def stops(task: Task, number: int) -> dict[str, Any]:
        if len(counted) == 10:
            raise KeyboardInterrupt
        counted.append(number)
        return simulate(task, number)

    monkeypatch.setattr(_running, "simulate", stops)
    with pytest.raises(KeyboardInterrupt):
        run(seed=5, checkpoint=folder)
    assert len(list(folder.glob("simulation-*.npz"))) == 10
    assert not list(folder.glob(".simulation*"))
    before = {f.name: f.stat().st_mtime_ns for f in folder.glob("simulation-*.npz")}
    again: list[int] = []
    monkeypatch.setattr(_running, "simulate", lambda task, i: again.append(i) or simulate(task, i))
    resumed = run(seed=5, checkpoint=folder)
    assert sorted(counted + again) == list(range(FEW))
    assert before.items() <= {f.name: f.stat().st_mtime_ns for f in folder.glob("simulation-*.npz")}.items()
    monkeypatch.undo()
    assert same(resumed, run(seed=5))


def test_a_killed_process_leaves_whole_files_and_the_run_goes_on(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "import os\nfrom test_calibrate import run\nfrom ppl_lvm.calibration import _running\n"
        "from ppl_lvm.calibration._simulate import simulate\n"
        "_running.simulate = lambda task, i: os._exit(9) if i == 7 else simulate(task, i)\n"
        "run(seed=6, checkpoint=sys.argv[2])\n"
    )
    here = str(Path(__file__).parent)
    died = subprocess.run([sys.executable, "-c", script, here, str(tmp_path / "run")], timeout=120)
    assert died.returncode == 9
    assert len(list((tmp_path / "run").glob("simulation-*.npz"))) == 7
    assert same(run(seed=6, checkpoint=tmp_path / "run"), run(seed=6))


@pytest.mark.parametrize(
    ("change", "word"),
    [({"seed": 8}, "seed"), ({"engine": Conjugate(narrow=0.9)}, "engine"), ({"num_draws": 49}, "num_draws")],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, change: Any, word: str) -> None:
    run(seed=7, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match=f"checkpoint: .* another {word}"):
        run(**{"seed": 7, "checkpoint": tmp_path / "run", **change})


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        run(checkpoint=tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(checkpoint=tmp_path / "run")
    (tmp_path / "run" / "simulation-000003.npz").write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match=r"simulation-000003\.npz is damaged"):
        run(checkpoint=tmp_path / "run")


def test_threads_give_the_same() -> None:
    with ThreadPoolExecutor(3) as pool:
        assert same(run(seed=9, executor=pool), run(seed=9))


@pytest.mark.slow
def test_a_pool_of_spawned_processes_gives_the_same() -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert same(run(seed=9, executor=pool), run(seed=9))
        model = models.GaussianMixture(2, loc_mean=0.0, loc_scale=3.0, scale_loc=0.0)
        engine = SVI(num_steps=100)
        x = np.random.default_rng(0).standard_normal((15, 1))
        settings: Any = {"data": x, "num_simulations": 20, "progress": False}
        assert same(
            lvm.calibrate(model, engine, **settings, executor=pool), lvm.calibrate(model, engine, **settings)
        )


class Dying(Executor):
    """All of its work comes to nothing, as in a process pool whose worker was killed."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        from concurrent.futures.process import BrokenProcessPool

        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("a worker was killed"))
        return future


def test_an_executor_whose_workers_died_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="its workers died"):
        run(executor=Dying())


def test_what_cannot_be_sent_to_a_process_is_said_before_anything_runs() -> None:
    def inner(x: Any) -> None:
        pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)):
            pyro.sample("obs", dist.Normal(0.0, 1.0), obs=x)

    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(TypeError, match=r"executor: .* at the top level"),
    ):
        lvm.calibrate(inner, SVI(num_steps=10), 20, data=np.arange(3.0), executor=pool)


@pytest.mark.slow
@pytest.mark.changes_global_state
def test_dask_goes_on_when_a_worker_is_killed(tmp_path: Path) -> None:
    distributed = pytest.importorskip(
        "distributed", reason="dask.distributed is not installed (extra 'dask')"
    )
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=tmp_path
    )
    with cluster, distributed.Client(cluster) as client:
        client.run(sys.path.insert, 0, str(Path(__file__).parent))
        pool, finished = client.get_executor(pure=False), []
        victim = next(iter(cluster.workers.values())).pid

        class Killing(Executor):
            """Dask's executor; when the tenth task has finished, a worker's process is killed."""

            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
                future = pool.submit(fn, *args, **kwargs)
                future.add_done_callback(self.count)
                return future

            def count(self, _: Any) -> None:
                finished.append(None)
                if len(finished) == 10:
                    os.kill(victim, signal.SIGKILL)

        found = run(num=60, seed=10, executor=Killing())
        assert len(finished) == 60
        assert victim not in client.run(os.getpid).values()
    assert not found.failures
    assert same(found, run(num=60, seed=10))


# ---- failures ------------------------------------------------------------------------------------


def test_a_simulation_that_fails_is_reported_and_not_fatal() -> None:
    found = run(Conjugate(fails_below=-1.6), 100)
    assert 0 < len(found.failures) <= 5
    assert found.simulations.sizes["simulation"] == 100 - len(found.failures)
    assert "FloatingPointError: planted" in next(iter(found.failures.values()))
    assert "simulations failed" in repr(found)


def test_too_many_failures_are_an_error() -> None:
    found = run(Conjugate(fails_below=-0.8), 60)
    assert len(found.failures) / 60 > 0.05
    assert not found.passed
    assert any(f.level == "error" and f.check == "failures" for f in found.findings)
    with pytest.raises(ValueError, match=r"simulations failed, the first with .*planted"):
        run(Conjugate(fails_below=5.0), 30)


# ---- real engines --------------------------------------------------------------------------------


def test_the_second_fit_compiles_nothing() -> None:
    model = models.GaussianMixture(1, covariance="diag", loc_mean=0.0, loc_scale=3.0, scale_loc=0.0)
    engine = NUTS(backend="numpyro", num_chains=1, num_warmup=30, num_samples=40)
    problem_data = np.random.default_rng(0).standard_normal((12, 1))
    task = Task(model, model, engine, problem_data, 0, 9, None, None, {})
    assert simulate(task, 0)["error"] == ""
    seen: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if "backend_compile" in event:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        assert [simulate(task, i)["error"] for i in (1, 2)] == ["", ""]
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert seen == []


@pytest.mark.slow
def test_data_sets_in_one_program_have_the_draws_that_each_has_alone() -> None:
    """Few steps: beyond some fifty, rounding has moved a trajectory to another course."""
    from ppl_lvm.core import Run
    from ppl_lvm.engines._jax_nuts_many import sample_many
    from ppl_lvm.fitting import prepare

    model = models.GaussianMixture(1, covariance="diag", loc_mean=0.0, loc_scale=3.0, scale_loc=0.0)
    engine = NUTS(backend="numpyro", num_chains=2, num_warmup=5, num_samples=5, chain_method="vectorized")
    rng = np.random.default_rng(0)
    data = [rng.standard_normal((12, 1)) + 3 * i for i in range(3)]
    many = sample_many(engine, [prepare(model, x) for x in data], [Run(i) for i in range(3)])
    for i, x in enumerate(data):
        alone = lvm.fit(model, x, engine, seed=i)
        # products under vmap are summed in another order, and ten short trajectories amplify that rounding
        np.testing.assert_allclose(many[i][0]["loc"], alone.posterior["loc"].values, rtol=1e-6)
        np.testing.assert_allclose(many[i][1]["lp"], alone.sample_stats["lp"].values, rtol=1e-6)
    with pytest.raises(ValueError, match="one shape"):
        sample_many(engine, [prepare(model, x) for x in (data[0], data[1][:8])], [Run(0), Run(1)])


def test_calibration_runs_in_batches_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from ppl_lvm.calibration import _batches, _running

    sizes: list[int] = []

    def counted(task: Task, numbers: list[int]) -> list[dict[str, Any]]:
        sizes.append(len(numbers))
        return _batches.simulate_batch(task, numbers)

    monkeypatch.setattr(_running, "simulate_batch", counted)
    monkeypatch.setattr(_running, "SIZE", 10)
    # a batch that fell back to one by one would go through here
    monkeypatch.setattr(_batches, "simulate", lambda task, i: {"error": "one by one", "seconds": 0.0})
    model = models.GaussianMixture(1, covariance="diag", loc_mean=0.0, loc_scale=3.0, scale_loc=0.0)
    engine = NUTS(backend="numpyro", num_chains=1, num_warmup=30, num_samples=40, chain_method="vectorized")
    found = lvm.calibrate(model, engine, 20, data=np.arange(12.0)[:, None], num_draws=9, progress=False)
    assert sizes == [10, 10]
    assert not found.failures


def test_engines_of_weighted_and_independent_draws() -> None:
    from ppl_lvm import ImportanceSampling

    for engine, kind in ((ImportanceSampling(num_samples=400), "sbc"), (SVI(num_steps=30), "vsbc")):
        found = lvm.calibrate(normal_gamma, engine, 20, data=COLUMNS, kind=kind, progress=False)
        assert found.simulations["num_draws"].max() <= (99 if kind == "sbc" else 999)
        assert {"precision", "log_likelihood"} <= set(found.table.index)


def test_missing_entries_and_uneven_sequences_stay_so() -> None:
    from ppl_lvm import emissions
    from ppl_lvm.calibration._simulate import draw_truth

    x = [np.array([[1.0], [np.nan], [4.0]]), np.array([[2.0], [3.0]])]
    model = models.HMM(2, emissions.Poisson(rate_shape=2.0, rate_mean=6.0))
    task = Task(model, model, SVI(), x, 0, 9, None, None, {})
    made = draw_truth(task, 1)[1]
    assert list(made["lengths"]) == [3, 2]
    bound = model.bind(made)
    assert (np.isnan(bound.values["x"]) == np.isnan(model.bind(x).values["x"])).all()
    rows = np.random.default_rng(0).standard_normal((8, 3))
    rows[2, 1] = np.nan
    ppca = models.PPCA(1).resolve(rows)
    simulated = draw_truth(Task(ppca, ppca, SVI(), rows, 0, 9, None, None, {}), 1)[1]
    assert (np.isnan(simulated) == np.isnan(rows)).all()


# ---- results -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def off() -> lvm.Calibration:
    return run(Conjugate(narrow=0.5), 100, seed=11)


def test_it_reads_as_words(off: lvm.Calibration) -> None:
    text, page = repr(off), off._repr_html_()
    assert "failed (100 simulations" in text
    assert "mu[0]: the posterior is too narrow" in text
    assert "<table" in page
    assert "too narrow" in page


def test_saved_and_loaded_it_is_the_same(off: lvm.Calibration, tmp_path: Path) -> None:
    target = off.save(tmp_path / "deep" / "calibration.nc")
    again = lvm.Calibration.load(target)
    assert same(off, again)
    assert again.findings == off.findings
    assert (again.kind, again.num_draws, again.about) == (off.kind, off.num_draws, off.about)
    with pytest.raises(ValueError, match="no file"):
        lvm.Calibration.load(tmp_path / "other.nc")
    (tmp_path / "text.nc").write_text("words")
    with pytest.raises(ValueError, match="no calibration"):
        lvm.Calibration.load(tmp_path / "text.nc")


@pytest.mark.parametrize("kind", ["both", "ranks", "ecdf"])
def test_the_picture_shows_every_quantity(off: lvm.Calibration, kind: str) -> None:
    figure = off.plot(kind=kind)
    FigureCanvasAgg(figure).draw()
    shown = " ".join(ax.get_title(loc="left") for ax in figure.axes)
    assert len(figure.axes) == 6 * (2 if kind == "both" else 1)
    assert all(name in shown for name in off.table.index)
    assert "too narrow" in shown
    one = off.plot(kind=kind, quantities=["mu"], max_quantities=1)
    assert "least p value" in " ".join(t.get_text() for t in one.texts)
    with pytest.raises(ValueError, match="quantities: no"):
        off.plot(quantities=["nu"])


def test_quantities_can_be_chosen() -> None:
    found = run(quantities=["mu", "log_prior"])
    assert list(found.table.index) == ["mu[0]", "mu[1]", "mu[2]", "log_prior"]
    assert list(run(quantities=["mu[1]"]).table.index) == ["mu[1]"]


# ---- bad input -----------------------------------------------------------------------------------


def improper(y: Any) -> None:
    mu = pyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)


def with_param(y: Any) -> None:
    mu = pyro.param("mu", lambda: __import__("torch").zeros(()))
    with pyro.plate("row", len(y)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)


def with_factor(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.factor("likelihood", -((y - mu) ** 2).sum())


def by_part(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    for i in range(len(y)):
        pyro.sample(f"obs_{i}", dist.Normal(mu, 1.0), obs=y[i])


def test_observed_sites_can_be_put_together_by_a_function() -> None:
    together = lambda sites: {"y": np.array([sites["obs_0"], sites["obs_1"]])}  # noqa: E731
    engine = SVI(num_steps=20)
    with pytest.raises(ValueError, match="observed: cannot tell which argument site 'obs_0'"):
        lvm.calibrate(by_part, engine, 20, data=np.array([1.0, 2.0]))
    found = lvm.calibrate(by_part, engine, 20, data=np.array([1.0, 2.0]), observed=together, progress=False)
    assert found.simulations.sizes["simulation"] == 20


NAMED: Any = {"y": SCHOOLS["y"]}


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"model": improper, "data": NAMED}, ValueError, "improper priors"),
        ({"model": with_param, "data": NAMED}, ValueError, "have no prior"),
        ({"model": with_factor, "data": NAMED}, ValueError, "factor statement 'likelihood'"),
        ({"engine": EM()}, ValueError, "EM"),
        ({"engine": Conjugate}, TypeError, "got the class Conjugate"),
        ({"num_simulations": 10}, ValueError, "num_simulations: .* at least 20"),
        ({"num_simulations": 50.0}, ValueError, "num_simulations: expected a whole number"),
        ({"kind": "posterior"}, ValueError, "kind: expected one of"),
        ({"num_draws": 3}, ValueError, "num_draws: .* at least 9"),
        ({"quantities": ["tau"]}, ValueError, r"quantities: no \['tau'\]; there are .*'precision'"),
        ({"quantities": "mu"}, TypeError, "quantities: expected a list"),
        ({"seed": -1}, ValueError, "seed: expected a non-negative"),
        ({"executor": 4}, TypeError, "executor: expected a concurrent.futures.Executor"),
        ({"false_alarm": 1.0}, ValueError, "false_alarm"),
    ],
)
def test_bad_input_is_refused_in_words(settings: Any, error: Any, words: str) -> None:
    given = {"model": normal_gamma, "engine": Conjugate(), "num_simulations": 20, "data": COLUMNS, **settings}
    with pytest.raises(error, match=words):
        lvm.calibrate(given.pop("model"), given.pop("engine"), given.pop("num_simulations"), **given)


def test_an_engine_that_gives_a_point_is_refused_in_words() -> None:
    x = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.raises(ValueError, match="EM gives a point"):
        lvm.calibrate(models.GaussianMixture(1, covariance="diag"), EM(num_init=1), 20, data=x)


def test_entries_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"quantities: no \['mu\[7\]'\]"):
        run(quantities=["mu[7]"])
