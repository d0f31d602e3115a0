"""SVI in steps: checkpoints, the same bits after a stop, Ctrl-C, and what is said when a run cannot go on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import clusters
from pyro.distributions import constraints

import ppl_lvm as lvm
from ppl_lvm import ELBO, SVI, Renyi, models

BACKENDS = ("numpyro", "pyro")
REPO = Path(__file__).resolve().parents[1]
X = clusters(40)
Y = X[:, 0]
GMM = models.GaussianMixture(num_components=2, covariance="diag")
PRIOR_SD = 3.0


def normal(y):
    mu = pyro.sample("mu", dist.Normal(0.0, PRIOR_SD))
    spread = pyro.param("spread", torch.tensor(1.5), constraint=constraints.positive)
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, spread), obs=y)


def wider(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 4.0))
    spread = pyro.param("spread", torch.tensor(1.5), constraint=constraints.positive)
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, spread), obs=y)


def run(backend: str, model=GMM, data=X, seed: int = 3, **settings) -> lvm.Fit:
    chosen = {"num_steps": 60, "window": 10, "learning_rate_decay": 1.0, "num_draws": 20, "early_stop": False}
    chosen["average"] = False  # averages begin at half of the steps: such runs do not go on to more
    return lvm.fit(model, data, SVI(backend=backend, **{**chosen, **settings}), seed=seed)


def same(a: lvm.Fit, b: lvm.Fit) -> bool:
    """Params, losses, draws, evidence and verdict, to the last bit."""
    pairs = [(a.params[n], b.params[n]) for n in a.params]
    pairs += [(a.draws[n].values, b.draws[n].values) for n in a.draws] if a.draws is not None else []
    pairs += [(a.groups["optimization"]["loss"].values, b.groups["optimization"]["loss"].values)]
    alike = set(a.params) == set(b.params) and all(np.array_equal(p, q) for p, q in pairs)
    return alike and a.evidence == b.evidence and a.status == b.status


def shifted(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)


CASES = {
    "mixture": ("pyro", GMM, X, {"batch_size": 12}),
    "flow": ("pyro", normal, Y, {"guide": "spline", "objective": Renyi(num_particles=2)}),
    "params": ("numpyro", normal, Y, {"guide": "full_rank"}),
    "batches": ("numpyro", normal, Y, {"batch_size": 12}),
    "structured": ("pyro", shifted, Y, {"guide": "structured"}),
    "amortized": ("numpyro", shifted, Y, {"guide": "amortized", "batch_size": 12}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_undisturbed_one(case: str, tmp_path: Path) -> None:
    backend, model, data, settings = CASES[case]
    whole = run(backend, model, data, **settings)
    first = run(backend, model, data, num_steps=27, checkpoint=tmp_path, **settings)  # within a block
    assert first.status.details["steps"] == 27
    assert same(whole, run(backend, model, data, checkpoint=tmp_path, **settings))
    assert same(whole, run(backend, model, data, checkpoint=tmp_path, **settings))  # nothing left to do


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_of_one_window_goes_on(backend: str, tmp_path: Path) -> None:
    """The step whose params the end is compared with lies before the first one of what is added."""
    settings = {"batch_size": 12, "window": 10, "checkpoint": tmp_path}
    run(backend, normal, Y, num_steps=10, **settings)
    more = run(backend, normal, Y, num_steps=20, **settings)
    assert same(more, run(backend, normal, Y, num_steps=20, **{**settings, "checkpoint": None}))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_converged_does_not_go_on(backend: str, tmp_path: Path) -> None:
    settings = {"early_stop": True, "tolerance": 50.0, "num_steps": 400, "checkpoint": tmp_path}
    first = run(backend, normal, Y, **settings)
    assert first.status.outcome is lvm.Outcome.CONVERGED
    assert first.status.details["steps"] < 400
    assert same(first, run(backend, normal, Y, **settings))


def test_checkpoints_may_be_rarer_and_hold_arrays_and_json(tmp_path: Path, monkeypatch) -> None:
    from ppl_lvm.engines._checkpoint import Checkpoint

    written = []
    original = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda *args: (written.append(1), original(*args)))
    run("pyro", checkpoint=tmp_path, checkpoint_every=4, num_steps=50)
    assert len(written) == 2  # after block 4, and at the end
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert json.loads(header["__metadata__"]["ppl_lvm"])["record"] == {
        "quiet": [0],
        "begin": None,
        "moved": [[0.0, 1.0]],
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_runs_checkpoint_is_refused(backend: str, tmp_path: Path) -> None:
    run(backend, normal, Y, num_steps=10, checkpoint=tmp_path)
    changes = {
        "learning_rate": {"learning_rate": 0.5},
        "objective": {"objective": ELBO(num_particles=2)},
        "batch_size": {"batch_size": 10},
        "guide": {"guide": "low_rank"},
        "seed": {"seed": 4},
        "data": {"data": Y + 1.0},
        "program": {"model": wider},
        "learning_rate_decay.*num_steps": {"learning_rate_decay": 0.1},
    }
    for named, change in changes.items():
        given = {"model": normal, "data": Y, "num_steps": 10, "checkpoint": tmp_path, **change}
        with pytest.raises(ValueError, match=rf"(?s)holds another run .*{named}"):
            run(backend, **given)
    run(backend, normal, Y, num_steps=10, checkpoint=tmp_path)  # it was left as it was


def test_a_programs_fingerprint_sees_what_the_program_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    from ppl_lvm.engines._identity import program_digest

    def build(sd: float):
        def inner(y):
            return y * sd

        return inner

    assert program_digest(build(1.0)) == program_digest(build(1.0)) != program_digest(build(2.0))
    before = program_digest(normal)
    assert before != program_digest(wider)
    monkeypatch.setattr(sys.modules[__name__], "PRIOR_SD", 5.0)
    assert program_digest(normal) != before
    monkeypatch.undo()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_svi_checkpoints import normal\n"
        "from ppl_lvm.engines._identity import program_digest\n"
        "import logging; sys.stdout.write(program_digest(normal))"
    )
    command = [sys.executable, "-c", code, str(REPO / "tests")]
    env = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONHASHSEED": "7"}
    assert subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout == before


def test_unwritable_folders_and_full_disks_are_as_for_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write"):
        run("pyro", checkpoint=tmp_path / "file" / "below")
    whole = run("pyro")
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    assert same(whole, run("pyro", checkpoint=tmp_path / "full"))
    assert "could not be written (No space left" in caplog.text
    assert not list((tmp_path / "full").iterdir())


def runaway(y):
    """A param that grows step by step, until the density ends at 1."""
    normal(y)
    pyro.factor("push", -torch.log(1.0 - pyro.param("drift", torch.tensor(0.0))))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nan_names_the_step_and_the_checkpoint(backend: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"NaN or infinite\) at step \d+; lower.*last good checkpoint stays"):
        run(backend, runaway, Y, learning_rate=0.05, checkpoint=tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_gives_what_is_there_and_the_run_goes_on(backend: str, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    run(backend, normal, Y, num_steps=10)  # compiled before the clock starts
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    fit = run(backend, normal, Y, num_steps=500_000, checkpoint=tmp_path)
    timer.cancel()
    assert fit.status.outcome is lvm.Outcome.INTERRUPTED
    assert not fit.status.ok
    done = int(fit.status.details["steps"])
    assert 0 < done < 500_000
    assert fit.posterior["mu"].shape == (1, 20)
    assert np.isfinite(fit.evidence.nats)
    assert signal.getsignal(signal.SIGINT) is handler
    more = run(backend, normal, Y, num_steps=done + 25, checkpoint=tmp_path)
    assert same(more, run(backend, normal, Y, num_steps=done + 25))


RUN = """
    import sys
    sys.path.insert(0, {tests!r})
    import numpy as np
    from test_svi_checkpoints import Y, normal, run
    fit = run({backend!r}, normal, Y, num_steps=int(sys.argv[3]), checkpoint=sys.argv[1], batch_size=12)
    draws = {{f"draws/{{k}}": v.values for k, v in fit.draws.data_vars.items()}}
    np.savez(sys.argv[2], losses=fit.groups["optimization"]["loss"].values, **draws, **fit.params)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_twenty_kills_at_random_moments_change_no_bit(backend: str, tmp_path: Path) -> None:
    steps = {"numpyro": 40_000, "pyro": 4_000}[backend]
    code = textwrap.dedent(RUN.format(tests=str(REPO / "tests"), backend=backend))
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}

    def start(folder: str, out: str) -> subprocess.Popen:
        command = [sys.executable, "-c", code, str(tmp_path / folder), str(tmp_path / out), str(steps)]
        return subprocess.Popen(command, env=env)

    assert start("whole", "whole.npz").wait(300) == 0
    checkpoint = tmp_path / "cut" / "checkpoint.safetensors"
    dice, cut = random.Random(0), 0
    while cut < 20:
        process = start("cut", "cut.npz")
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(0.1 * dice.random())  # anywhere: in a step, in a checkpoint's writing
        assert process.poll() is None, "the run ended before its twenty kills: take more steps"
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        cut += 1
    assert start("cut", "cut.npz").wait(300) == 0
    whole, found = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "cut.npz")
    assert set(whole.files) == set(found.files)
    assert all(np.array_equal(whole[n], found[n]) for n in whole.files)
