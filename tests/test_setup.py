"""The project's own set-up: what is pinned, and what `make` does before a target's own work."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ppl_lvm

REPO = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12")
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PLATFORM = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}


def applies(marker: Marker | None, python: str) -> bool:
    return marker is None or marker.evaluate({"python_version": python, "extra": "", **PLATFORM})


def pin_lines() -> list[str]:
    lines = (
        line.partition("#")[0].strip() for line in (REPO / "constraints.txt").read_text("utf-8").splitlines()
    )
    return [line for line in lines if line]


def pins(python: str) -> dict[str, Version]:
    """What constraints.txt pins for one Python, by canonical name."""
    found: dict[str, Version] = {}
    for requirement in map(Requirement, pin_lines()):
        if applies(requirement.marker, python):
            (exact,) = requirement.specifier
            name = canonicalize_name(requirement.name)
            assert exact.operator == "==", f"{requirement} is not an exact pin"
            assert name not in found, f"{name} is pinned twice for Python {python}"
            found[name] = Version(exact.version)
    return found


def declared() -> list[Requirement]:
    return [Requirement(text) for text in chain(PROJECT["dependencies"], *EXTRAS.values())]


def test_constraints_are_pins_without_hosts_or_paths() -> None:
    assert len(pin_lines()) > 80
    for line in pin_lines():
        assert re.fullmatch(
            r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*( ; python_version (<|>=) '3\.12')?", line
        ), line


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_within_its_range(python: str) -> None:
    pinned = pins(python)
    wanted = [requirement for requirement in declared() if applies(requirement.marker, python)]
    assert len(wanted) > 25
    for requirement in wanted:
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_lower_ends_of_ranges_are_versions_that_were_tried() -> None:
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        tried = [pins(python)[name] for python in PYTHONS if applies(requirement.marker, python)]
        lower = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "==")]
        assert lower == [min(tried)], f"{requirement}, tried: {sorted(tried)}"


def test_the_version_is_stated_alike() -> None:
    assert ppl_lvm.__version__ == PROJECT["version"]


def test_every_library_that_is_imported_is_a_dependency() -> None:
    provides = packages_distributions()
    listed = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    imported: dict[str, Path] = {}
    for path in sorted((REPO / "ppl_lvm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0]: path for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported[node.module.partition(".")[0]] = path
    third_party = imported.keys() - sys.stdlib_module_names - {"ppl_lvm"}
    assert {"numpy", "torch", "jax"} <= third_party
    for name in sorted(third_party):
        found = {canonicalize_name(distribution) for distribution in provides.get(name, [name])}
        assert found & listed, f"{imported[name]} imports {name}, which pyproject.toml does not list"


TOO_OLD = """#!/bin/sh
[ "$1" = -V ] && echo "Python 3.10.13" && exit 0
exit 1
"""
# Stands in for Python: notes its calls, makes an environment out of itself, and has pip do as PIP_EXIT says.
STAND_IN = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$1 $2" in
  "-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
  "-m pip")
    [ "$PIP_EXIT" = 0 ] && exit 0
    echo "ERROR: No matching distribution found for torch==2.13.0"
    exit 1 ;;
esac
"""


class Clone:
    """A copy of the files that `make` reads, in a folder with a space in its name, and a python3 to order."""

    def __init__(self, folder: Path, python3: str) -> None:
        self.root, self.calls = folder / "a clone", folder / "calls"
        self.root.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(REPO / name, self.root)
        fake = folder / "bin" / "python3"
        fake.parent.mkdir()
        fake.write_text(python3)
        fake.chmod(0o755)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MAKE", "MFLAGS", "GNUMAKE"))
        }
        for name in ("PYTHON", "VENV", "WORKERS", "PYTEST_ARGS"):
            inherited.pop(name, None)
        path = os.pathsep.join([str(fake.parent), inherited["PATH"]])
        self.env = {**inherited, "PATH": path, "CALLS": str(self.calls), "PIP_EXIT": "0"}

    def make(self, *targets: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *targets], cwd=self.root, env=self.env, capture_output=True, text=True, timeout=60
        )

    def number_of_installs(self) -> int:
        return self.calls.read_text().count("-m pip install")


def advice(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was printed as an error, without make's own last word."""
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]


def test_make_alone_lists_every_target(tmp_path: Path) -> None:
    clone = Clone(tmp_path, TOO_OLD)
    done = clone.make()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (REPO / "Makefile").read_text("utf-8"), re.MULTILINE)
    listed = [line.split()[1] for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert {"demo", "test", "test-slow", "lint", "docs", "bench", "help"} <= set(listed)
    assert sorted(listed) == sorted(phony.split())


def test_a_python_that_is_too_old_gets_one_line(tmp_path: Path) -> None:
    done = Clone(tmp_path, TOO_OLD).make("test")
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = advice(done)
    assert "3.11 or newer" in line
    assert "Python 3.10.13" in line
    assert "make test PYTHON=python3.12" in line


def test_a_python_that_is_missing_gets_one_line(tmp_path: Path) -> None:
    done = Clone(tmp_path, TOO_OLD).make("demo", "PYTHON=no-such-python")
    assert done.returncode != 0
    (line,) = advice(done)
    assert "no-such-python" in line
    assert "make demo PYTHON=python3.12" in line


def test_a_failed_install_gets_one_line_and_is_tried_again(tmp_path: Path) -> None:
    clone = Clone(tmp_path, STAND_IN)
    clone.env["PIP_EXIT"] = "1"
    done = clone.make("test")
    assert done.returncode != 0
    (line,) = advice(done)
    assert "No matching distribution found for torch==2.13.0" in line
    assert "run make again" in line
    assert ".cache/setup.log" in line
    clone.env["PIP_EXIT"] = "0"
    assert clone.make("test").returncode == 0
    assert clone.number_of_installs() == 2


def test_set_up_happens_once_until_the_pins_change(tmp_path: Path) -> None:
    clone = Clone(tmp_path, STAND_IN)
    first, second = clone.make("test"), clone.make("test")
    assert first.returncode == second.returncode == 0
    assert "once" in first.stdout
    assert second.stdout == ""
    assert clone.number_of_installs() == 1
    assert clone.calls.read_text().count("-m pytest") == 2
    installed = (clone.root / ".venv" / ".installed").stat().st_mtime
    os.utime(clone.root / "constraints.txt", (installed + 10, installed + 10))
    clone.make("setup")
    assert clone.number_of_installs() == 2
