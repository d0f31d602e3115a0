"""The guard of global state in conftest.py catches each kind of leak, names it, and costs next to nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

REPO = Path(__file__).resolve().parents[1]

# What a test does wrong, and the entry that has to be named. In this order: the last two leave handlers open.
LEAKS = {
    "python_random": ("random.random()", "random: generator"),
    "numpy_random": ("np.random.rand()", "numpy: generator"),
    "torch_random": ("torch.rand(1)", "torch: generator"),
    "torch_dtype": ("torch.set_default_dtype(torch.float16)", "torch: default dtype"),
    "torch_threads": ("torch.set_num_threads(torch.get_num_threads() + 1)", "torch: threads"),
    "torch_grad": ("torch.set_grad_enabled(False)", "torch: grad mode"),
    "param_added": ("pyro.param('a', torch.zeros(2))", "pyro: parameter store"),
    "param_changed": ("pyro.get_param_store()['a'] = torch.ones(2)", "pyro: parameter store"),
    "param_data": ("pyro.param('a').data += 1", "pyro: parameter store"),
    "param_removed": ("pyro.clear_param_store()", "pyro: parameter store"),
    "pyro_validation": ("pyro.enable_validation(False)", "pyro: validate_infer"),
    "pyro_setting": ("pyro.settings.set(cholesky_relative_jitter=8.0)", "pyro: cholesky_relative_jitter"),
    "jax_x64": ("jax.config.update('jax_enable_x64', True)", "jax: jax_enable_x64"),
    "jax_promotion": (
        "jax.config.update('jax_numpy_dtype_promotion', 'strict')",
        "jax: jax_numpy_dtype_promotion",
    ),
    "jax_cache": ("jax.config.update('jax_compilation_cache_dir', 'x')", "jax: jax_compilation_cache_dir"),
    "numpyro_platform": ("numpyro.set_platform('cpu')", "jax: jax_platforms"),
    "numpyro_validation": (
        "numpyro.enable_validation(not dist.Distribution._validate_args)",
        "numpyro: validation",
    ),
    "pyro_handler": ("pyro.poutine.trace().__enter__()", "pyro: open handlers"),
    "numpyro_handler": ("numpyro.handlers.seed(rng_seed=0).__enter__()", "numpyro: open handlers"),
}
GUARDED = """
import random, sys, time
import pytest
from conftest import changes, global_state

def test_lazy_start():
    assert not {"torch", "jax", "pyro", "numpyro"} & sys.modules.keys()

def test_leak_at_first_import():
    import torch
    torch.set_default_dtype(torch.float64)

def test_imports_are_no_leak():
    global jax, np, numpyro, dist, pyro, torch
    import jax, numpyro, numpyro.distributions as dist, numpy as np, pyro, torch

@pytest.fixture(scope="module")
def shared():
    return torch.rand(1)

def test_leak_in_shared_fixture(shared):
    pass

def test_session_is_no_leak():
    with torch.random.fork_rng(), jax.enable_x64(True), pyro.get_param_store().scope():
        torch.rand(1)
        pyro.param("a", torch.zeros(1))

@pytest.mark.changes_global_state
def test_marked():
    random.random(), np.random.rand(), torch.rand(1)

@pytest.mark.changes_global_state
def test_leak_that_the_marker_does_not_cover():
    torch.set_num_threads(torch.get_num_threads() + 1)

@pytest.mark.changes_global_state("torch: threads")
def test_marked_by_name():
    torch.set_num_threads(torch.get_num_threads() + 1)

def test_cost():
    times = []
    for _ in range(50):
        began = time.perf_counter()
        changes(global_state(), global_state())
        times.append(time.perf_counter() - began)
    assert min(times) < 1e-3, min(times)
"""
LEAKS_ELSEWHERE = {
    "at_first_import": "torch: default dtype",
    "in_shared_fixture": "the fixture 'shared' left global state changed: torch: generator",
    "that_the_marker_does_not_cover": "torch: threads",
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name of each planted test -> what was reported against it (nothing where it passed), from one run."""
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copy(REPO / "tests" / "conftest.py", folder)
    leaks = "".join(f"\ndef test_leak_{name}():\n    {source}\n" for name, (source, _) in LEAKS.items())
    (folder / "test_planted.py").write_text(GUARDED + leaks)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    changes_global_state: as in the real one\n")
    surroundings = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "JAX_PLATFORM"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", "report.xml"],
        cwd=folder, env=surroundings, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    cases = ElementTree.parse(folder / "report.xml").getroot().iter("testcase")
    reports: dict[str, str] = {}
    for case in cases:
        messages = [
            found.get("message", "") + (found.text or "")
            for found in case
            if found.tag in ("error", "failure")
        ]
        reports[case.get("name", "")] = reports.get(case.get("name", ""), "") + " ".join(messages)
    assert len(reports) == 9 + len(LEAKS), done.stdout
    return reports


@pytest.mark.parametrize("name", LEAKS)
def test_each_kind_of_leak_is_reported(guarded: dict[str, str], name: str) -> None:
    assert LEAKS[name][1] in guarded[f"test_leak_{name}"]


@pytest.mark.parametrize("name", LEAKS_ELSEWHERE)
def test_leaks_at_the_edges_are_reported(guarded: dict[str, str], name: str) -> None:
    assert LEAKS_ELSEWHERE[name] in guarded[f"test_leak_{name}"]


def test_clean_and_marked_tests_pass(guarded: dict[str, str]) -> None:
    clean = {name: report for name, report in guarded.items() if not name.startswith("test_leak_")}
    assert len(clean) == 6
    assert set(clean.values()) == {""}, clean
