"""Two devices, or two processes, give what one gives: chains and SVI on JAX, SVI on Pyro under torchrun."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import device_cases  # at collection: it imports JAX, which draws from NumPy's generator
import numpy as np
import process_cases as cases
import pytest

import ppl_lvm as lvm
from ppl_lvm import ELBO, SVI, Renyi

TESTS = Path(__file__).resolve().parent
REPO = TESTS.parent
Arrays = dict[str, np.ndarray]
SLOW_JAX = ("jax_nuts", "jax_chees", "jax_full", "jax_restarts", "jax_vae")
SLOW_TORCH = ("torch_full", "torch_batches", "torch_resumed", "torch_differ")


def started(command: list[str], **env: str) -> None:
    path = os.pathsep.join((str(REPO), str(TESTS)))
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", **env},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def read(folder: Path, name: str) -> Arrays:
    with np.load(folder / f"{name}.npz") as found:
        return {k.replace("|", "/"): found[k] for k in found.files}


def on_two_devices(folder: Path, *names: str) -> dict[str, Arrays]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    started([str(TESTS / "device_cases.py"), ",".join(names), str(folder)], XLA_FLAGS=flags)
    return {name: read(folder, name) for name in names}


def torchrun(folder: Path, *names: str) -> dict[str, list[Arrays]]:
    """What each of two processes found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    script = [str(TESTS / "process_cases.py"), ",".join(names), str(folder)]
    started(["-m", "torch.distributed.run", *where, *script], OMP_NUM_THREADS="1")
    return {name: [read(folder, f"{name}_{rank}") for rank in (0, 1)] for name in names}


@pytest.fixture(scope="module")
def jax_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    return on_two_devices(tmp_path_factory.mktemp("jax"), "jax_walk", "jax_batches")


@pytest.fixture(scope="module")
def torch_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Arrays]]:
    return torchrun(tmp_path_factory.mktemp("torch"), "torch_local", "torch_vae")


@pytest.fixture(scope="module")
def slow_jax_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    return on_two_devices(tmp_path_factory.mktemp("jax"), *SLOW_JAX)


@pytest.fixture(scope="module")
def slow_torch_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Arrays]]:
    return torchrun(tmp_path_factory.mktemp("torch"), *SLOW_TORCH)


def assert_close(found: Arrays, expected: Arrays, rtol: float) -> None:
    """Entries by name, with room relative to the largest of an array."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        room = rtol * max(np.abs(value).max(), 1e-12)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=room, err_msg=name)


def part(found: Arrays, prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}


# ---- chains on JAX -------------------------------------------------------------------------------


def test_chains_on_two_devices(jax_runs: dict[str, Arrays]) -> None:
    """A walk that rounds alike for two chains and for four: the same bits, also from a checkpoint."""
    found = jax_runs["jax_walk"]
    assert found["devices"].tolist() == [2, 2, 1]
    two, one, again = (part(found, name) for name in ("two/", "one/", "again/"))
    assert np.unique(one["draws"]).size == 4 * 6 * 2
    assert all(np.array_equal(two[k], one[k]) and np.array_equal(again[k], one[k]) for k in one)


@pytest.mark.slow
def test_nuts_on_two_devices(slow_jax_runs: dict[str, Arrays]) -> None:
    """Each chain's numbers are its own, but a program for two chains may round otherwise (1e-16) than one for
    four; its 20 trajectories amplify that by less than 1e8."""
    found = slow_jax_runs["jax_nuts"]
    assert found["devices"].tolist() == [2, 1]
    two, one = part(found, "two/"), part(found, "one/")
    assert one["draw slope"].shape == (4, 10)
    assert np.unique(one["draw slope"]).size > 20
    assert_close(two, one, 1e-8)


@pytest.mark.slow
def test_chees_on_two_devices(slow_jax_runs: dict[str, Arrays]) -> None:
    """Warm-up's averages over chains are sums of two parts (1e-16 apart), amplified as those of NUTS."""
    found = slow_jax_runs["jax_chees"]
    assert found["devices"].tolist() == [2, 1]
    assert_close(part(found, "two/"), part(found, "one/"), 1e-8)


# ---- SVI on JAX ----------------------------------------------------------------------------------


def test_batches_on_two_devices(jax_runs: dict[str, Arrays]) -> None:
    _svi_on_two_devices(jax_runs["jax_batches"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jax_full", "jax_restarts"])
def test_svi_on_two_devices(name: str, slow_jax_runs: dict[str, Arrays]) -> None:
    _svi_on_two_devices(slow_jax_runs[name])


def _svi_on_two_devices(found: Arrays) -> None:
    assert found["devices"].tolist() == [2, 2]  # both arguments
    two, one = part(found, "two/"), part(found, "one/")
    assert {"loss", "evidence"} <= one.keys()
    assert one["loss"].size == 20
    assert_close(two, one, 1e-9)


@pytest.mark.slow
def test_a_vae_on_two_devices(slow_jax_runs: dict[str, Arrays]) -> None:
    found = slow_jax_runs["jax_vae"]
    assert_close(part(found, "two/"), part(found, "one/"), 1e-9)


def test_gradients_are_summed_over_devices_and_rows_stay(jax_runs: dict[str, Arrays]) -> None:
    """The program has a sum over devices, and gathers nothing from them."""
    found = jax_runs["jax_batches"]
    assert int(found["all-reduce"]) > 0
    assert int(found["all-gather"]) == 0


# ---- SVI on Pyro ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["local", "vae"])
def test_two_processes_as_one(name: str, torch_runs: dict[str, list[Arrays]]) -> None:
    _two_processes_as_one(name, torch_runs[f"torch_{name}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "batches"])
def test_two_processes_as_one_without_latents_of_rows(
    name: str, slow_torch_runs: dict[str, list[Arrays]]
) -> None:
    _two_processes_as_one(name, slow_torch_runs[f"torch_{name}"])


def _two_processes_as_one(name: str, ranks: list[Arrays]) -> None:
    """Gradients on half of the rows each, at the noise of the joined batch (torch draws it in blocks of 16,
    of which each process takes whole ones), are those of one process; so are the params, alike on both."""
    one = cases.torch_case(name, distributed=False)
    total = cases.TORCH[name][2].get("batch_size", cases.N)
    for rank, found in enumerate(ranks):
        assert int(found.pop("rank")) == rank
        assert found.pop("rows").tolist() == [total // 2]
    assert ranks[0].keys() == ranks[1].keys()
    assert all(np.array_equal(ranks[0][k], ranks[1][k]) for k in ranks[0])
    assert {"loss", "evidence", "gradient 0 0", "gradient 1 0"} <= one.keys()
    assert_close(part(ranks[0], "gradient"), part(one, "gradient"), 1e-10)
    assert_close(ranks[0], one, 1e-9)


@pytest.mark.slow
def test_two_processes_go_on_from_a_checkpoint(slow_torch_runs: dict[str, list[Arrays]]) -> None:
    """To the same bits; the first process alone writes it, after each of two windows."""
    first, second = slow_torch_runs["torch_resumed"]
    assert (int(first["saved"]), int(second["saved"])) == (2, 0)
    for found in (first, second):
        resumed, whole = part(found, "two/"), part(found, "one/")
        assert whole["loss"].size == 20
        assert all(np.array_equal(resumed[k], whole[k]) for k in whole)


@pytest.mark.slow
def test_processes_that_differ_are_told(slow_torch_runs: dict[str, list[Arrays]]) -> None:
    for found in slow_torch_runs["torch_differ"]:
        seeds, rows = found["said"].tolist()
        assert "processes differ in ['seed']" in seeds
        assert "processes differ in ['y']" in rows


# ---- refusals ------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[SVI, str]] = {
    "devices of Pyro": (SVI(num_devices=2), "num_devices is of JAX"),
    "processes of JAX": (SVI(backend="numpyro", distributed=True), "distributed is of Pyro"),
    "both": (SVI(distributed=True, num_devices=2), "give one of them"),
    "no such device": (SVI(backend="numpyro", num_devices=64), "num_devices is 64, and JAX finds"),
    "no torchrun": (SVI(distributed=True), "torchrun"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    engine, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        lvm.fit(device_cases.MODEL, cases.LINE, engine)


SHARED: dict[str, tuple[Any, Any, SVI, str]] = {
    "rows that do not divide": (
        device_cases.MODEL,
        cases.LINE,
        SVI(distributed=True, batch_size=31),
        "2 processes cannot share 31 rows",
    ),
    "latents of rows in a family": (
        cases.LOCAL,
        cases.LINE["y"],
        SVI(distributed=True, guide="mean_field"),
        "a value per datum.*leave out distributed",
    ),
    "a Renyi bound of shared latents": (
        device_cases.MODEL,
        cases.LINE,
        SVI(distributed=True, objective=Renyi()),
        "is no bound.*leave out distributed",
    ),
    "free bits": (
        cases.vae(),
        cases.BITS,
        SVI(backend="pyro", distributed=True, num_epochs=1, batch_size=32, objective=ELBO(free_bits=0.1)),
        "free_bits",
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_two_processes_cannot_share(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    model, data, engine, words = SHARED[name]
    with pytest.raises(ValueError, match=words):
        lvm.fit(model, data, engine)


def test_chains_take_as_many_devices_as_divide_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from ppl_lvm.engines import _jax_devices

    monkeypatch.setattr(_jax_devices.jax, "local_devices", lambda: list(range(4)))
    monkeypatch.setattr(_jax_devices, "mesh_of", lambda num, axis: num)
    assert [_jax_devices.chain_mesh(n) for n in (1, 2, 4, 6, 7, 128)] == [1, 2, 4, 3, 1, 4]
