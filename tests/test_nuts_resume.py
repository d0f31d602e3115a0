"""NUTS: checkpoints, resuming to the same draws, Ctrl-C, folders that cannot be written to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax  # noqa: F401  # at collection: importing it draws from NumPy's generator
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist
import pytest

import ppl_lvm as lvm
from ppl_lvm import NUTS
from ppl_lvm.engines import _jax_nuts_rows, _nuts_run
from ppl_lvm.engines._checkpoint import Checkpoint

REPO = Path(__file__).resolve().parents[1]
Y = np.array([0.4, -0.3, 1.1, 0.8, 2.0])


def normal(y: Any) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mean, scale), obs=y)


def normal_twin(y: Any) -> None:
    mean = numpyro.sample("mean", numpyro_dist.Normal(0.0, 3.0))
    scale = numpyro.sample("scale", numpyro_dist.LogNormal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("obs", numpyro_dist.Normal(mean, scale), obs=y)


def wider_twin(y: Any) -> None:
    mean = numpyro.sample("mean", numpyro_dist.Normal(0.0, 4.0))
    scale = numpyro.sample("scale", numpyro_dist.LogNormal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("obs", numpyro_dist.Normal(mean, scale), obs=y)


def local(y: Any) -> None:
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)


def local_twin(y: Any) -> None:
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", numpyro_dist.Normal(0.0, 1.0))
        numpyro.sample("obs", numpyro_dist.Normal(z, 1.0), obs=y)


MODEL, LOCAL = lvm.Model(normal, numpyro=normal_twin), lvm.Model(local, numpyro=local_twin)
SHORT = {"num_warmup": 60, "num_samples": 40, "num_chains": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "blackjax": {"backend": "numpyro", "kernel": "blackjax"},
    "blackjax, vectorized, dense": {
        "backend": "numpyro",
        "kernel": "blackjax",
        "chain_method": "vectorized",
        "dense_mass": True,
    },
    "numpyro": {"backend": "numpyro", "kernel": "numpyro"},
    "numpyro, vectorized, dense": {
        "backend": "numpyro",
        "kernel": "numpyro",
        "chain_method": "vectorized",
        "dense_mass": True,
    },
    "by datum": {"backend": "numpyro", "by_datum": True},
    "pyro": {"backend": "pyro"},
    "pyro, dense": {"backend": "pyro", "dense_mass": True},
}
EACH = pytest.mark.parametrize("variant", ["blackjax", "pyro"])


def variants(*fast: str) -> pytest.MarkDecorator:
    """All of them, the others as slow tests."""
    return pytest.mark.parametrize(
        "variant", [v if v in fast else pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS]
    )


def run(variant: str, model: Any = None, seed: int = 3, data: Any = Y, **settings: Any) -> lvm.Fit:
    engine = NUTS(**{**SHORT, **VARIANTS[variant], **settings})
    return lvm.fit(model or (LOCAL if variant == "by datum" else MODEL), data, engine, seed=seed)


def assert_same(a: lvm.Fit, b: lvm.Fit) -> None:
    for one, two in ((a.posterior, b.posterior), (a.sample_stats, b.sample_stats)):
        assert set(one) == set(two)
        for name in one:
            np.testing.assert_array_equal(one[name].values, two[name].values)
    assert a.meta["warmup_steps"] == b.meta["warmup_steps"]


class Killed(BaseException):
    """What a test ends a run with."""


def killed_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """End the run after so many checkpoints have been written."""
    seen: list[int] = []
    original = Checkpoint.save

    def save(self: Checkpoint, *args: Any) -> None:
        if len(seen) >= saves:
            raise Killed
        seen.append(1)
        original(self, *args)

    monkeypatch.setattr(Checkpoint, "save", save)


@contextmanager
def asked_to_stop(
    monkeypatch: pytest.MonkeyPatch, iterations: int, *, signals: bool = False
) -> Iterator[None]:
    """The user asks to stop after so many iterations of some chain: by a wish, or by a signal (once)."""
    original, sent = _nuts_run.Blocks.drive, []

    def drive(self: Any, part: Any, checkpoint: Any) -> int:
        advance: Callable[[int, int], None] = part.advance

        def watched(first: int, last: int) -> None:
            advance(first, last)
            if last >= iterations and not signals:
                self.stop.requested = True
            elif last >= iterations and not sent:
                sent.append(last)
                os.kill(os.getpid(), signal.SIGINT)

        part.advance = watched
        return original(self, part, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(_nuts_run.Blocks, "drive", drive)
        patch.setattr(_nuts_run, "_paced", lambda done, size, seconds: 10)
        patch.setattr(_nuts_run, "_FIRST", 10)
        yield


# ---- resuming ----------------------------------------------------------------------------------------


@variants("blackjax", "numpyro, vectorized, dense", "pyro")
def test_a_resumed_run_is_the_undisturbed_one(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed three times: in either half of warm-up and in sampling."""
    if variant == "by datum":
        monkeypatch.setattr(_jax_nuts_rows, "_MOST", 6)  # two blocks of data
    whole = run(variant)
    settings = {"checkpoint": tmp_path, "checkpoint_every": 13}
    for _ in range(3):
        with monkeypatch.context() as patch:
            killed_after(patch, saves=2)
            with pytest.raises(Killed):
                run(variant, **settings)
    assert_same(whole, run(variant, **settings))
    assert_same(whole, run(variant, **settings))  # nothing is left to do


@pytest.mark.parametrize("variant", ["blackjax", pytest.param("pyro", marks=pytest.mark.slow)])
def test_a_longer_run_goes_on(variant: str, tmp_path: Path) -> None:
    run(variant, checkpoint=tmp_path)
    long = run(variant, checkpoint=tmp_path, num_samples=70)
    assert_same(run(variant, num_samples=70), long)
    assert_same(run(variant), run(variant, checkpoint=tmp_path))  # of a longer one, the beginning


@EACH
def test_a_checkpoint_of_another_run_is_refused(variant: str, tmp_path: Path) -> None:
    run(variant, checkpoint=tmp_path)
    for name, changed in {
        "target_accept": {"target_accept": 0.9},
        "num_warmup": {"num_warmup": 61},
        "seed": {"seed": 4},
        "data": {"data": Y + 1},
        "model": {"model": lvm.Model(local, numpyro=local_twin)},
        "backend": VARIANTS["pyro" if variant == "blackjax" else "blackjax"],
    }.items():
        with pytest.raises(ValueError, match=rf"holds another run .*{name}"):
            run(variant, checkpoint=tmp_path, **changed)


def test_another_program_of_the_same_name_is_refused(tmp_path: Path) -> None:
    run("blackjax", checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"holds another run .*log density"):
        run("blackjax", model=lvm.Model(normal, numpyro=wider_twin), checkpoint=tmp_path)


# ---- faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["blackjax"])
def test_damaged_checkpoints_and_unwritable_folders_are_said(variant: str, tmp_path: Path) -> None:
    run(variant, checkpoint=tmp_path)
    path = tmp_path / "chain_1" / "checkpoint.safetensors"
    content = path.read_bytes()
    for damaged in (b"", content[:40], content[:-7], b"not a checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"chain_1.*damaged"):
            run(variant, checkpoint=tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="cannot write"):
        run(variant, checkpoint=file / "below")


@pytest.mark.parametrize("variant", ["blackjax", pytest.param("pyro", marks=pytest.mark.slow)])
def test_a_full_disk_leaves_the_previous_checkpoint(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(variant)
    saves, original = [], os.replace

    def full(source: str, target: str) -> None:
        saves.append(target)
        if len(saves) > 3:
            raise OSError(28, "No space left on device")
        original(source, target)

    settings = {"checkpoint": tmp_path, "checkpoint_every": 20}
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert_same(whole, run(variant, **settings))
    assert "could not be written" in caplog.text
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"checkpoint.safetensors"}
    assert_same(whole, run(variant, **settings))


def test_settings_are_checked() -> None:
    with pytest.raises(TypeError, match=r"checkpoint: .*folder"):
        NUTS(checkpoint=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="checkpoint_every"):
        NUTS(checkpoint_every=0)


# ---- Ctrl-C ------------------------------------------------------------------------------------------


@variants("blackjax", "pyro")
def test_a_stopped_run_gives_its_draws_and_goes_on(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {} if "vectorized" in variant else {"chain_method": "sequential"}
    whole = run(variant, **settings)
    settings["checkpoint"] = str(tmp_path)
    with asked_to_stop(monkeypatch, 80):
        fit = run(variant, **settings)
    assert fit.status.outcome is lvm.Outcome.INTERRUPTED
    assert "draws in" in str(fit.status)
    assert str(tmp_path) in str(fit.status)
    together = variant == "by datum" or "vectorized" in variant  # else the second chain has not begun
    for name in fit.posterior:
        kept = whole.posterior[name].values[: 1 + together, :20]
        np.testing.assert_array_equal(fit.posterior[name].values, kept)
    assert_same(whole, run(variant, **settings))


@EACH
def test_a_run_stopped_in_warmup_says_so_and_goes_on(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asked_to_stop(monkeypatch, 30), pytest.raises(KeyboardInterrupt, match="in warm-up, after 30 of 60"):
        run(variant, checkpoint=tmp_path)
    assert_same(run(variant), run(variant, checkpoint=tmp_path))


@EACH
def test_ctrl_c(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with asked_to_stop(monkeypatch, 100, signals=True):
        fit = run(variant, num_samples=300_000, chain_method="sequential")
    assert fit.status.outcome is lvm.Outcome.INTERRUPTED
    assert fit.posterior.sizes["draw"] == 40
    assert np.isfinite(fit.posterior["mean"]).all()
    assert signal.getsignal(signal.SIGINT) is handler


KILLED = """
import os, random, signal, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import numpy as np
import ppl_lvm.engines._jax_nuts, ppl_lvm.engines._pyro_nuts
from test_nuts_resume import run

variant, out = sys.argv[1], Path(sys.argv[2])
settings = dict(num_samples=int(sys.argv[3]), num_warmup=300, checkpoint_every=25)
clock = random.Random(0)


def started(name, **more):  # forked before anything has run: a process that only has to begin
    child = os.fork()
    if child:
        return child
    try:
        fit = run(variant, **settings, **more)
        found = {{**fit.posterior, **fit.sample_stats}}
        np.savez(out / name, **{{k: v.values for k, v in found.items()}})
        os._exit(0)
    finally:
        os._exit(1)


def newest():
    return max([p.stat().st_mtime_ns for p in out.rglob("*.safetensors")], default=0)


if os.waitpid(started("whole"), 0)[1]:
    sys.exit("the undisturbed run failed")
for _ in range(20):
    before, deadline = newest(), time.monotonic() + 60
    child = started("cut", checkpoint=out / "folder")
    while time.monotonic() < deadline and newest() == before:
        time.sleep(0.002)
    time.sleep(clock.uniform(0.0, 0.1))
    if os.waitpid(child, os.WNOHANG)[0]:
        sys.exit("ended before it was killed")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
if os.waitpid(started("cut", checkpoint=out / "folder"), 0)[1]:
    sys.exit("the resumed run failed")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "num_samples"), [("blackjax", 40_000), ("pyro", 900)])
def test_killed_twenty_times_and_resumed_to_the_same_bits(
    variant: str, num_samples: int, tmp_path: Path
) -> None:
    code = KILLED.format(tests=str(REPO / "tests"))
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    given = [sys.executable, "-W", "ignore", "-c", code, variant, str(tmp_path), str(num_samples)]
    ended = subprocess.run(given, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    whole, cut = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "cut.npz")
    assert set(whole.files) == set(cut.files)
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], cut[name])
