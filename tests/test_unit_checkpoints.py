"""Checkpoints and Ctrl-C of the engines that run in units: searches, paths, blocks of draws, restarts."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from helpers import same_arrays

import ppl_lvm as lvm
from ppl_lvm import AIS, EM, MAP, SMC, ImportanceSampling, Laplace, Pathfinder, models
from ppl_lvm.core import Engine, Outcome
from ppl_lvm.engines import importance
from ppl_lvm.engines._checkpoint import Checkpoint

Y = np.array([0.3, 1.2, -0.5, 2.0, 0.9, 1.4, 0.1, -0.2])
ROWS = np.random.default_rng(3).standard_normal((20, 2)) + np.where(np.arange(20) % 2, 2.0, -2.0)[:, None]
jax = pytest.mark.slow  # these compile


def normal(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, tau), obs=y)


# An engine, how many units a run of it has, and the fewest that give a result.
RUNS: dict[str, tuple[Any, Any, Engine, int, int]] = {
    "MAP": (normal, Y, MAP(backend="pyro", num_init=3, max_iter=50), 3, 1),
    "Laplace": (normal, Y, Laplace(backend="pyro", num_init=3, num_draws=50), 3, 1),
    "ImportanceSampling": (normal, Y, ImportanceSampling(backend="pyro", num_samples=70), 3, 1),
    "EM": (models.GaussianMixture(2, "diag"), ROWS, EM(num_init=4, max_iter=30), 4, 1),
    "EM-mixture": (models.Mixture(2, lvm.emissions.Poisson()), ROWS.round() ** 2, EM(num_init=4), 4, 1),
    "EM-HMM": (models.HMM(2, lvm.emissions.Gaussian("diag")), ROWS, EM(num_init=4, max_iter=30), 4, 1),
    "SMC": (normal, Y, SMC(num_particles=20, num_runs=6, num_moves=1), 7, 5),
    "AIS": (normal, Y, AIS(num_particles=100, num_temperatures=10), 11, 4),
    "Pathfinder": (normal, Y, Pathfinder(num_paths=3, num_samples=50, max_iter=20), 3, 1),
    "ImportanceSampling-JAX": (normal, Y, ImportanceSampling(backend="numpyro", num_samples=70), 3, 1),
}
COMPILED = {"SMC", "AIS", "Pathfinder", "ImportanceSampling-JAX"}
NAMES = [pytest.param(name, marks=[jax] if name in COMPILED else []) for name in RUNS]


class Killed(BaseException):
    """What ends a run at once."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "BLOCK", 30)


def run(name: str, folder: Path | None, **changes: Any) -> lvm.Fit:
    model, data, engine, _, _ = RUNS[name]
    where = None if folder is None else str(folder)
    return lvm.fit(model, data, dataclasses.replace(engine, checkpoint=where, **changes), seed=5)


def after(monkeypatch: pytest.MonkeyPatch, num: int, then: Callable[[], None]) -> list[int]:
    """Do something after the ``num``-th checkpoint; the list counts them."""
    plain, seen = Checkpoint.save, [0]

    def save(self: Checkpoint, *given: Any) -> None:
        plain(self, *given)
        seen[0] += 1
        if seen[0] == num:
            then()

    monkeypatch.setattr(Checkpoint, "save", save)
    return seen


def kill() -> None:
    raise Killed


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def figures(fit: lvm.Fit) -> dict[str, Any]:
    """All numbers of a fit."""
    found = {f"params/{k}": v for k, v in fit.params.items()}
    for group, data in {"draws": fit.draws, "stats": fit.sample_stats, **(fit.groups or {})}.items():
        found |= {f"{group}/{k}": v.values for k, v in ({} if data is None else data.data_vars).items()}
    found |= {f"details/{k}": v for k, v in fit.status.details.items()}
    found["log_likelihood"] = fit.log_likelihood or 0.0
    found["evidence"] = (fit.evidence.nats, fit.evidence.std_error) if fit.evidence else ()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_run_goes_on_to_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = RUNS[name][3]
    expected = run(name, None)
    with monkeypatch.context() as patch:
        after(patch, 2, kill)
        with pytest.raises(Killed):
            run(name, tmp_path)
    seen = after(monkeypatch, 0, kill)
    again = run(name, tmp_path)
    assert seen == [units - 2]  # the first two were not done again
    assert same_arrays(figures(again), figures(expected))
    assert run(name, tmp_path).status == expected.status
    assert seen == [units - 2]


@pytest.mark.parametrize("name", NAMES)
def test_ctrl_c_gives_what_is_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    least = RUNS[name][4]
    with monkeypatch.context() as patch:
        after(patch, least, press)
        fit = run(name, tmp_path)
    assert fit.status.outcome is Outcome.INTERRUPTED
    assert f"of {RUNS[name][3] - (name in ('SMC', 'AIS'))}" in fit.status.messages[-1]
    assert all(np.isfinite(np.asarray(v, float)).all() for v in fit.params.values())
    assert same_arrays(figures(run(name, tmp_path)), figures(run(name, None)))


def test_each_unit_is_written_once(tmp_path: Path) -> None:
    """What is written grows with the number of units, not with its square."""
    run("ImportanceSampling", tmp_path)
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == [f"checkpoint_block_{i}.safetensors" for i in range(3)]
    stamps = [f.stat().st_mtime_ns for f in files]
    assert stamps == sorted(set(stamps))
    first, second, last = (f.stat().st_size for f in files)
    assert first == second > last  # 30, 30 and 10 draws


def test_faults_of_a_unit_s_file_are_named(tmp_path: Path) -> None:
    run("MAP", tmp_path)
    path = tmp_path / "checkpoint_search_1.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole.replace(b"search 1", b"search ]")[:40], whole[:8]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"search_1.safetensors is damaged .*remove it"):
            run("MAP", tmp_path)
    path.unlink()  # what the message says
    assert same_arrays(figures(run("MAP", tmp_path)), figures(run("MAP", None)))
    with pytest.raises(ValueError, match="another run"):
        lvm.fit(normal, Y, lvm.SVI(num_steps=10, checkpoint=str(tmp_path)), seed=5)


@jax
@pytest.mark.parametrize("name", ["SMC", "AIS"])
def test_ctrl_c_before_enough_is_there_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after(monkeypatch, 2, press)
    with pytest.raises(KeyboardInterrupt, match="too few for a result; the checkpoint has"):
        run(name, tmp_path)


@pytest.mark.parametrize("name", ["MAP", "ImportanceSampling", "EM"])
def test_another_run_is_refused(name: str, tmp_path: Path) -> None:
    run(name, tmp_path)
    model, data, engine, _, _ = RUNS[name]
    engine = dataclasses.replace(engine, checkpoint=str(tmp_path))
    with pytest.raises(ValueError, match=r"another run.*seed was 5, is 6"):
        lvm.fit(model, data, engine, seed=6)
    with pytest.raises(ValueError, match=r"another run.*data was"):
        lvm.fit(model, np.abs(data) + 1.0, engine, seed=5)


@pytest.mark.parametrize(
    ("engine", "change"), [(MAP, "num_init"), (ImportanceSampling, "num_samples"), (EM, "num_init")]
)
def test_other_settings_are_refused(engine: type[Engine], change: str, tmp_path: Path) -> None:
    run(engine.__name__, tmp_path)
    with pytest.raises(ValueError, match=f"another run.*{change} was"):
        run(engine.__name__, tmp_path, **{change: 40})


@pytest.mark.parametrize("name", ["MAP", "ImportanceSampling", "EM"])
def test_a_folder_that_cannot_be_written_is_an_error_at_the_start(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="checkpoint: cannot write"):
        run(name, tmp_path / "file" / "folder")


def test_another_proposal_is_another_run(tmp_path: Path) -> None:
    first, second = (lvm.fit(normal, Y, Laplace(backend="pyro", num_draws=30), seed=s) for s in (0, 1))
    engine = ImportanceSampling(num_samples=40, proposal=first, checkpoint=str(tmp_path))
    lvm.fit(normal, Y, engine, seed=5)
    with pytest.raises(ValueError, match=r"another run.*proposal was"):
        lvm.fit(normal, Y, dataclasses.replace(engine, proposal=second), seed=5)


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import pytest, test_unit_checkpoints as t
from pathlib import Path
t.importance.BLOCK = 30
t.after(pytest.MonkeyPatch(), 2, lambda: os.kill(os.getpid(), signal.SIGKILL))
t.run({name!r}, Path({folder!r}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_sigkill_in_another_process_loses_nothing(name: str, tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent), name=name, folder=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], check=False, timeout=300, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-500:]
    assert same_arrays(figures(run(name, tmp_path)), figures(run(name, None)))
