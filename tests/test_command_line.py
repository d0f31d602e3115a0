"""The command line: what it writes, where, and how it ends."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax  # noqa: F401  (at collection: importing it draws from NumPy's generator, which conftest.py would report)
import numpy as np
import pandas as pd
import pytest

import ppl_lvm as lvm
from ppl_lvm import EM, SVI, models
from ppl_lvm.command_line import main

QUICK = (
    "--set",
    "svi.num_steps=60",
    "--set",
    "svi.num_draws=100",
    "--set",
    "svi.window=20",
    "--set",
    "em.num_init=1",
)
GMM = ("--model", "gmm", "--num-components", "2", "--covariance", "diag")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("command line")
    rng = np.random.default_rng(3)
    rows = np.concatenate([rng.normal(0, 1, (40, 2)), rng.normal(5, 1, (20, 2))])
    table = pd.DataFrame(rows, columns=["length", "width"])
    table.to_csv(home / "data.csv", index=False)
    table.iloc[::4].to_csv(home / "held_out.csv", index=False)
    table.assign(species="a").to_csv(home / "words.csv", index=False)
    np.save(home / "data.npy", rows)
    counts = pd.DataFrame({"count": rng.poisson(4, 30), "who": np.repeat(["x", "y"], 15)})
    counts.to_csv(home / "counts.tsv", sep="\t", index=False)
    return home


@pytest.fixture(scope="module")
def compared(folder: Path) -> Path:
    """The folder that a run of compare has filled."""
    out = folder / "out"
    held_out = ("--held-out", str(folder / "held_out.csv"))
    arguments = ("compare", str(folder / "data.csv"), *GMM, "--engines", "is,svi,em", "--out", str(out))
    assert main([*arguments, *QUICK, *held_out, "--quiet"]) == 0
    return out


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch, compared: Path) -> None:
    """Pictures take most of a report's time; tests/test_report.py looks at them; ``compared`` has them."""
    del compared
    monkeypatch.setattr("ppl_lvm.report._context.pictures_of", lambda wanted: ([], []))


def run(*arguments: Any) -> int:
    return main([str(a) for a in arguments])


# ---- compare -------------------------------------------------------------------------------------


def test_everything_is_written(compared: Path) -> None:
    found = {p.relative_to(compared).as_posix() for p in compared.rglob("*") if p.parent == compared}
    assert found == {"fits", "report.html", "table.csv", "overview.csv", "predictive.csv", "verdicts.json"}
    assert {p.name for p in (compared / "fits").iterdir()} == {"em", "svi", "is"}
    assert "Held-out rows" in (compared / "report.html").read_text("utf-8")
    verdicts = json.loads((compared / "verdicts.json").read_text())
    # how far the spot check gets in its time decides whether the point is seen to be off
    assert verdicts["em"]["level"] in {"inconclusive", "do_not_trust"}
    overview = pd.read_csv(compared / "overview.csv", index_col="fit")
    assert overview.loc["svi", "gradients"] == 60


def test_fits_can_be_loaded_and_took_the_settings(compared: Path) -> None:
    svi: Any = lvm.load(compared / "fits" / "svi")
    assert (svi.engine.num_steps, svi.posterior.sizes["draw"]) == (60, 100)
    assert svi.model.covariance == "diag"
    weighted: Any = lvm.load(compared / "fits" / "is")
    assert "SVI fit" in str(weighted.engine.proposal)  # the guide came first, though it was named second


def test_results_are_on_stdout_and_progress_is_not(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("compare", folder / "data.npy", *GMM, "--engines", "em", "--out", tmp_path, *QUICK[-2:])
    assert run(*arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Comparison of 1 fits of GaussianMixture")
    assert "em: fitting (1 of 1)" in err
    assert "report: " in err
    assert "report" not in out
    assert run(*arguments, "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_a_failed_engine_costs_nothing_but_itself(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate at which the objective becomes NaN."""
    wild = ("--set", "svi.learning_rate=1e30", "--set", "svi.clip_norm=1e300")
    arguments = ("compare", folder / "data.csv", *GMM, "--engines", "svi,em", "--out", tmp_path, *QUICK)
    assert run(*arguments, *wild) == 1
    out, err = capsys.readouterr()
    assert "svi failed: " in err
    assert "Traceback" not in err
    assert "Traceback" in (tmp_path / "fits" / "svi.failed.txt").read_text()
    assert "em" in out
    assert (tmp_path / "report.html").exists()
    assert lvm.load(tmp_path / "fits" / "em").is_point
    assert run(*arguments, "--quiet") == 0  # again, without the fault
    assert not (tmp_path / "fits" / "svi.failed.txt").exists()


def test_strict_tells_by_its_exit_code(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("report", compared, "--out", tmp_path / "report.html")
    import ppl_lvm.comparison as comparison

    judge = comparison.judge
    assert run(*arguments, "--strict") in (0, 3)

    def doubted(name: str, *rest: Any) -> Any:
        import dataclasses

        return dataclasses.replace(judge(name, *rest), level="do_not_trust")

    monkeypatch.setattr(comparison, "judge", doubted)
    assert run(*arguments, "--strict") == 3
    assert run(*arguments) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{}/none.csv", *GMM), "no such file"),
        (("{}/data.csv", "--model", "gmm"), "needs --num-components"),
        (("{}/data.csv", "--model", "hmm", "--num-components", "2"), "does not take it"),
        (("{}/data.csv", "--model", "mixture", "--num-components", "2"), "needs --emission"),
        (("{}/data.csv", *GMM, "--covariance", "round"), "covariance"),
        (("{}/data.csv", *GMM, "--columns", "length,depth"), "no column 'depth'; there are length, width"),
        (("{}/data.npy", *GMM, "--columns", "length"), "no named columns"),
        (("{}/words.csv", *GMM), "species"),
        (("{}/data.csv", *GMM, "--set", "svi.steps=3"), "num_steps"),
        (("{}/data.csv", *GMM, "--set", "svi.num_steps=many"), "num_steps"),
        (("{}/data.csv", *GMM, "--set", "nuts.num_chains=2"), "not among --engines"),
        (("{}/data.csv", *GMM, "--set", "steps=2"), "WHAT.NAME=VALUE"),
        (("{}/data.csv", *GMM, "--reference", "nuts"), "not among --engines"),
        (("{}/data.csv", *GMM, "--held-out", "{}/words.csv"), "species"),
        (("{}/data.csv", *GMM, "--seed", "-1"), "whole number"),
        (("{}/data.csv", "--model", "mixture", "--num-components", "2", "--emission", "poisson"), "counts"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], words: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [a.replace("{}", str(folder)) for a in arguments]
    assert run("compare", *given, "--engines", "svi", "--out", tmp_path / "out") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()  # nothing ran


@pytest.mark.parametrize("engines", ["svi,sampler", "svi,svi", ""])
def test_unknown_and_repeated_engines(engines: str, folder: Path, tmp_path: Path) -> None:
    assert run("compare", folder / "data.csv", *GMM, "--engines", engines, "--out", tmp_path) == 2


# ---- report --------------------------------------------------------------------------------------


def test_a_report_of_saved_fits(compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "again.html"
    assert run("report", compared, "--out", target, "--reference", "svi") == 0
    assert "against 'svi'" in capsys.readouterr().out
    assert target.read_text("utf-8").startswith("<!DOCTYPE html>")
    one, two = compared / "fits" / "svi", compared / "fits" / "em"
    assert run("report", one, two, "--out", target) == 0
    assert "Comparison of 2 fits" in capsys.readouterr().out


def test_the_report_goes_beside_the_fits(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 2))
    lvm.fit(models.GaussianMixture(1), rows, EM(num_init=1)).save(tmp_path / "em")
    assert run("report", tmp_path / "em") == 0
    assert (tmp_path / "report.html").exists()


def schools_like(y: Any) -> None:
    import pyro
    import pyro.distributions as dist

    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)


def test_what_cannot_be_reported(compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lvm.fit(schools_like, np.zeros(4), SVI(num_steps=10, window=10, num_draws=10)).save(tmp_path / "plain")
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((tmp_path / "nothing",), "no such folder"),
        ((tmp_path / "empty",), "holds no saved fit"),
        ((tmp_path / "plain",), "model=function"),
        ((compared, "--reference", "nuts"), "no fit 'nuts'"),
        ((compared, "--reference", "em"), "point"),
        ((compared, compared, compared), "rename"),
        ((compared, "--out", tmp_path), "is a folder"),
    ):
        assert run("report", *arguments) == 2, arguments
        err = capsys.readouterr().err
        assert words in err
        assert len(err.splitlines()) == 1


# ---- engines, help and processes -----------------------------------------------------------------


def test_engines_says_which_and_why_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hmm = ("--model", "hmm", "--num-states", "2", "--emission", "poisson", "--sequence", "who")
    assert run("engines", folder / "counts.tsv", *hmm) == 0
    out = capsys.readouterr().out
    assert out.startswith("HMM(num_states=2")
    assert "nuts  takes it, on numpyro" in out
    arguments = ("--model", "ppca", "--latent-dim", "1", "--set", "svi.batch_size=5")
    assert run("engines", folder / "data.csv", *arguments) == 0
    assert "svi   no: " in capsys.readouterr().out


@pytest.mark.parametrize("command", [(), ("compare",), ("report",), ("engines",)])
def test_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    text = capsys.readouterr().out
    assert "usage: ppl_lvm" in text
    if not command or command == ("compare",):
        assert "do_not_trust" in text


def test_an_interruption_ends_with_130(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ppl_lvm.fitting as fitting

    real: Callable[..., Any] = fitting.fit

    def stopped(model: Any, data: Any, engine: Any, **options: Any) -> Any:
        if isinstance(engine, SVI):
            raise KeyboardInterrupt
        return real(model, data, engine, **options)

    monkeypatch.setattr(fitting, "fit", stopped)
    arguments = ("compare", folder / "data.csv", *GMM, "--engines", "em,svi", "--out", tmp_path, *QUICK)
    assert run(*arguments) == 130
    assert "interrupted" in capsys.readouterr().err
    assert lvm.load(tmp_path / "fits" / "em").is_point


def test_it_runs_as_a_module_and_helps_without_the_heavy_libraries() -> None:
    script = "import sys, runpy; sys.argv = ['ppl_lvm', '--help']\n"
    script += "try: runpy.run_module('ppl_lvm', run_name='__main__')\n"
    script += "except SystemExit as end: print(end.code, {'torch', 'jax', 'pandas'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.rstrip().endswith("0 set()")
    bad = subprocess.run(
        [sys.executable, "-m", "ppl_lvm", "nothing"], capture_output=True, text=True, timeout=60
    )
    assert bad.returncode == 2
