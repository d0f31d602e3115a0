"""Every example runs on bundled data, prints its tables and writes its pictures; its figures are right."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[1]
EXAMPLES = REPO / "examples"

# What the output says, in order, and the pictures.
SHORT = {
    "factor_analysis": (
        ("wine", "Loadings: maximum likelihood", "Correlations of the factors", "Number of factors"),
        {"factor_loadings", "factor_confirmatory", "factor_dimension"},
    ),
    "ppca_oil": (
        ("wine", "Centre of each class on the map", "removed entries filled in"),
        {"ppca_latents", "ppca_imputation"},
    ),
    "earthquakes_hmm": (
        ("digit 3", "Maximum likelihood", "Three states by NUTS", "Forecast by row"),
        {"hmm_states", "hmm_forecast"},
    ),
    "latent_classes": (
        ("breast tumours", "Maximum likelihood", "in each of 2 classes", "in each of 3 classes"),
        {"latent_classes"},
    ),
    "word_clusters": (("digits", "agreement with the groups", "clusters by BIC"), {"word_clusters"}),
    "chorales_hmm": (("digits", "Log likelihood per time step"), {"chorales_heldout", "chorales_states"}),
    "vae_digits": (
        ("digits", "Test data, nats per image", "Latents of the test data", "vae_digits.html"),
        {f"vae_{name}" for name in (
            "training", "samples", "reconstructions", "traversals", "interpolation", "arithmetic", "manifold",
            "latents",
        )},
    ),
}  # fmt: skip
# Those that need a file that the user has, and their pictures.
FROM_FILES = {
    "vae_mnist": {f"mnist_{name}" for name in (
        "training", "samples", "reconstructions", "traversals", "interpolation", "arithmetic", "manifold",
        "latents",
    )},
}  # fmt: skip


def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
    )


# Those that draw by NUTS compile several programs first.
SLOW = {"factor_analysis", "ppca_oil", "earthquakes_hmm", "vae_digits"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in SHORT]
)
def test_an_example_runs_on_bundled_data(name: str, tmp_path: Path) -> None:
    said, pictures = SHORT[name]
    done = run(name, "--quick", "--bundled", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    at = [done.stdout.find(words) for words in said]
    assert min(at) >= 0, dict(zip(said, at, strict=True))
    assert at == sorted(at)
    assert "nan" not in done.stdout.lower()
    written = {path.stem: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert set(written) == pictures
    for picture, content in written.items():
        assert content.startswith(b"\x89PNG"), picture
        assert 5_000 < len(content) < 120_000, picture
        assert f"wrote {tmp_path / picture}.png" in done.stdout


def test_every_example_is_in_the_table_and_on_the_page() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("[!_]*.py")} - {"iris_mixture"}
    assert scripts == {*SHORT, *FROM_FILES}
    page = (REPO / "docs" / "examples.md").read_text("utf-8")
    models = "".join(p.read_text("utf-8") for p in (REPO / "docs" / "models").glob("*.md"))
    for name in FROM_FILES:
        assert f"examples/{name}.py" in page
    for name, (_, pictures) in SHORT.items():
        assert f"examples/{name}.py" in page
        for picture in pictures:
            assert f"images/{picture}.png" in page + models
            assert (REPO / "docs" / "images" / f"{picture}.png").stat().st_size < 120_000


def test_mnist_that_is_absent_is_asked_for_in_words(tmp_path: Path) -> None:
    done = run("vae_mnist", "--bundled", "--out", str(tmp_path))
    assert done.returncode == 1
    for word in ("--mnist", "mnist.npz", "train-images-idx3-ubyte", "PPL_LVM_DATA"):
        assert word in done.stderr
    assert not done.stdout


@pytest.mark.slow
def test_mnist_from_a_file_that_the_user_has(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    found = load_digits()
    enlarged = np.kron(found.images, np.ones((1, 2, 2)))  # (n, 16, 16)
    x = np.clip(enlarged * 16, 0, 255).astype(np.uint8)
    labels = found.target
    arrays = {"x_train": x[:1500], "y_train": labels[:1500], "x_test": x[1500:], "y_test": labels[1500:]}
    np.savez(tmp_path / "set.npz", **arrays)
    done = run("vae_mnist", "--quick", "--mnist", str(tmp_path / "set.npz"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Data: 1000 images of 16 x 16" in done.stdout
    assert "Test images, nats per image" in done.stdout
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == FROM_FILES["vae_mnist"]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the data, and with it the way to import the others."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("_data")
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_data_come_from_the_named_folder(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.csv").write_text("a\n1\n", "utf-8")
    monkeypatch.setenv("PPL_LVM_DATA", str(tmp_path))
    assert example.find("set/file.csv", bundled=False) == tmp_path / "set" / "file.csv"
    assert example.find("set/file.csv", bundled=True) is None
    assert example.find("set/other.csv", bundled=False) is None
    monkeypatch.setenv("PPL_LVM_DATA", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"PPL_LVM_DATA.*not a folder"):
        example.find("set/file.csv", bundled=False)


def test_tables_of_patterns_become_rows(example: ModuleType) -> None:
    import pandas as pd

    table = pd.DataFrame({"A": [1, 2, 1], "B": [2, 2, 1], "count": [2, 1, 0]})
    rows = importlib.import_module("latent_classes").expand(table)
    assert rows.to_numpy().tolist() == [[0, 1], [0, 1], [1, 1]]
    assert list(rows.columns) == ["A", "B"]


def test_bits_are_unpacked_in_order(example: ModuleType) -> None:
    rows = np.random.default_rng(0).integers(0, 2, (5, 11))
    assert np.array_equal(example.unpack_bits(np.packbits(rows.astype(np.uint8), axis=1), 11), rows)


def column(output: str, title: str, name: str) -> dict[str, float]:
    """A column of numbers of a printed table, by the row's first word."""
    lines = output.split(title, 1)[1].splitlines()[1:]
    width = 2  # the header, and the line with the index's name
    place = re.split(r"\s{2,}", lines[0].strip()).index(name)
    found = {}
    for line in lines[width:]:
        if not line.strip():
            break
        words = line.split()
        found[words[0]] = float(words[1 + place])
    return found


def test_published_latent_classes(shared_data: Path, tmp_path: Path) -> None:
    """Deviances of Goodman (1974) and of Agresti (2002, section 13.1.2), as they are printed there."""
    done = run("latent_classes", "--quick", "--out", str(tmp_path), PPL_LVM_DATA=str(shared_data))
    assert done.returncode == 0, done.stderr[-3000:]
    conflicts, carcinoma = done.stdout.split("Data: ")[1:]
    published = {"1": 81.08, "2": 2.72}
    found = column(conflicts, "Maximum likelihood (nats)", "G2")
    assert {k: found[k] for k in published} == pytest.approx(published, abs=0.005)
    found = column(carcinoma, "Maximum likelihood (nats)", "G2")
    assert found == pytest.approx({"1": 476.8, "2": 62.4, "3": 15.3}, abs=0.05)
