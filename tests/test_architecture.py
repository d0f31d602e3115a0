"""Imports follow the data: data -> Model -> Engine -> Fit -> diagnose, compare, predict -> plots, report.

Read from the source with ``ast``, nothing is imported; except for the last tests, which import the package in
a process of its own to see what that loads and how long it takes.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = "ppl_lvm"

PICTURES = {"plots", "report"}
RESULTS = {
    "amortised",
    "calibration",
    "conditioning",
    "predictive",
    "comparison",
    "comparison_table",
    "comparison_distances",
    "comparison_joint",
    "comparison_predictive",
    "comparison_checks",
    "notebook",
    "verdicts",
    "verdicts_alone",
    "findings",
    "dispersed",
    "ranking",
    "arviz_export",
    "storage",
    "storage_files",
    "dimension",
    "evidence",
    "gaps",
}
COMMAND_LINE = {"command_line", "__main__"}
DOWNSTREAM = RESULTS | PICTURES | COMMAND_LINE | {"diagnostics", "effort"}
UPSTREAM = {"data", "emissions", "core", "result", "fitting", "backends", "models", "engines"}
UPSTREAM |= {"networks", "families", "relabel", "rotation", "symmetry", "translation", "structure", "streams"}
ALL = UPSTREAM | DOWNSTREAM | {"progress"}

# An area is the first part of a file's path: a module, or a folder. What each may not import from ours.
FORBIDDEN: dict[str, set[str]] = {
    "errors": ALL,
    "progress": ALL,
    "streams": ALL,
    "data": ALL - {"streams"},
    "emissions": ALL - {"data", "emissions", "streams"},
    "networks": ALL,
    "core": ALL - {"data", "emissions"},
    "families": ALL,
    "result": ALL - {"data", "emissions", "core"},
    "failures": ALL - {"core"},
    "fitting": {"models", "engines"} | DOWNSTREAM,
    "backends": {"result", "fitting", "models", "engines"} | DOWNSTREAM,
    "rotation": ALL - {"core"},
    "symmetry": {"fitting", "models", "engines", "backends"} | DOWNSTREAM,
    "translation": {"models", "engines"} | DOWNSTREAM,
    "relabel": {"fitting", "models", "engines", "backends"} | DOWNSTREAM,
    "models": {"fitting", "engines"} | DOWNSTREAM,
    "engines": {"fitting", "models"} | RESULTS | PICTURES,
    "chain_checks": ALL,
    "diagnostics": {"models", "engines"} | RESULTS | PICTURES | COMMAND_LINE,
    "effort": ALL - {"core", "result"},
    "structure": {"models", "engines"} | DOWNSTREAM,
    **dict.fromkeys(RESULTS, PICTURES | COMMAND_LINE),
    "plots": {"models", "engines", "backends", "fitting", "report"} | COMMAND_LINE,
    "report": {"models", "engines", "backends", "fitting"} | COMMAND_LINE,
    "command_line": {"plots", "backends", "__main__"},  # the comparison writes its own report
    "__main__": ALL - {"command_line"},
}
# A method that is a shorthand for a later step (`fit.save`, `comparison.plot`) imports that step when it is
# called, and may name its type: these areas may delegate to anything in this way, others only as said here.
DELEGATES = {"__init__", "core", "result", "fitting"}
MAY_DELEGATE = (
    {("comparison", area) for area in PICTURES}
    | {("structure", "notebook")}
    | {
        (area, "plots")
        for area in ("predictive", "ranking", "dimension", "calibration", "evidence", "structure", "gaps")
    }
)

TORCH = {"torch", "pyro"}
JAX = {"jax", "jaxlib", "numpyro", "blackjax", "equinox", "optax", "funsor"}
COMPUTES = {"scipy", "sklearn"}
CLOSED = ("_exact*.py", "_em.py", "_em_*.py", "_statistics.py")
NOT_CLOSED = ("engines", "backends", "_pyro*", "_numpyro*", "_jax*")


@dataclass(frozen=True)
class Import:
    """One imported module: absolute dotted name, line; inside a function or not; only for type checkers."""

    name: str
    line: int
    deferred: bool = False
    typing_only: bool = False

    @property
    def library(self) -> str:
        return self.name.partition(".")[0]


def imports_of(path: str, tree: ast.AST) -> Iterator[Import]:
    """Every import in a file of the package (``path`` relative to it), ``import_module("...")`` included."""
    folder = [PACKAGE, *PurePosixPath(path).parts[:-1]]

    def absolute(level: int, module: str) -> str:
        base = folder[: len(folder) - level + 1] if level else []
        return ".".join([*base, *filter(None, [module])])

    def walk(node: ast.AST, deferred: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, deferred, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.level, node.module or "")
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, deferred, typing_only)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            named = str(getattr(node.args[0], "value", "")) if node.args else ""
            level = len(named) - len(named.lstrip("."))
            yield Import(absolute(level, named.lstrip(".")), node.lineno, deferred, typing_only)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            deferred = True
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                yield from walk(child, deferred, True)
            for child in node.orelse:
                yield from walk(child, deferred, typing_only)
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child, deferred, typing_only)

    yield from walk(tree, False, False)


def _any_part(path: str, *patterns: str) -> bool:
    return any(fnmatch(part, pattern) for part in PurePosixPath(path).parts for pattern in patterns)


def _area(path: str) -> str:
    return PurePosixPath(path).parts[0].removesuffix(".py")


def _closed_form(path: str) -> bool:
    return _area(path) == "models" and _any_part(path, *CLOSED)


def _inside_the_package(path: str, found: Import, areas: set[str]) -> str | None:
    """Why an import of our own package goes against the arrow; None where it does not."""
    area = _area(path)
    if area == "__init__" or (area in DELEGATES and (found.deferred or found.typing_only)):
        return None
    target = found.name.removeprefix(PACKAGE).lstrip(".").partition(".")[0]
    if _closed_form(path) and _any_part(found.name.replace(".", "/"), *NOT_CLOSED):
        return f"a closed form may not import {found.name}"
    if target == area:
        return None
    if target not in areas:
        return f"imports {found.name} through the package's public names: import the module that defines it"
    if target in FORBIDDEN.get(area, set()) and not (found.deferred and (area, target) in MAY_DELEGATE):
        return f"{area} may not import {target}"
    return None


def _of_a_library(path: str, found: Import) -> str | None:
    """Why an import of another library stands in the wrong file; None where it does not."""
    library, area = found.library, _area(path)
    if _closed_form(path) and library in TORCH | JAX:
        return f"a closed form may not import {library}"
    if area in PICTURES and library in TORCH | JAX | COMPUTES:
        return f"{area} computes nothing, so it may not import {library}"
    if found.deferred or found.typing_only or area == "backends":
        return None
    if library in TORCH and not _any_part(path, "_pyro*"):
        return f"{library} at module level belongs into a _pyro*.py file or backends/"
    if library in JAX and not _any_part(path, "_numpyro*", "_jax*"):
        return f"{library} at module level belongs into a _numpyro*.py or _jax*.py file or backends/"
    return None


def violations(files: Mapping[str, str]) -> list[str]:
    """What is wrong with a package, given as {path relative to it: source}: a line for each fault."""
    areas = {_area(path) for path in files} | FORBIDDEN.keys()
    wrong = []
    for path, source in files.items():
        tree = ast.parse(source, path)
        for found in imports_of(path, tree):
            ours = found.library == PACKAGE
            if why := _inside_the_package(path, found, areas) if ours else _of_a_library(path, found):
                wrong.append(f"{path}:{found.line}: {why}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                wrong.append(f"{path}:{node.lineno}: assert: raise ValueError or TypeError, with advice")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                wrong.append(f'{path}:{node.lineno}: print: use logging.getLogger("ppl_lvm")')
    return wrong


def package_files() -> dict[str, str]:
    root = REPO / PACKAGE
    return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in sorted(root.rglob("*.py"))}


def test_the_package_follows_the_arrow() -> None:
    files = package_files()
    assert {"__init__.py", "core.py", "data.py"} <= files.keys(), f"found only {sorted(files)}"
    assert violations(files) == []


def test_every_area_of_the_package_has_a_rule() -> None:
    unknown = {_area(path) for path in package_files()} - FORBIDDEN.keys() - {"__init__"}
    assert not unknown, f"say in FORBIDDEN what these may not import: {sorted(unknown)}"


PLANTED = {
    "closed form and torch": ("models/hmm/_exact.py", "def f():\n    import torch"),
    "closed form and jax": ("models/hmm/_em.py", "from jax import numpy as jnp"),
    "closed form and an engine": ("models/hmm/_exact.py", "from ppl_lvm.engines import em"),
    "closed form and its twin": ("models/hmm/_exact.py", "from . import _numpyro"),
    "engine and model": ("engines/em.py", "from ppl_lvm import models"),
    "engine and model, relative": ("engines/em.py", "from ..models.hmm import HMM"),
    "engine and model, deferred": ("engines/em.py", "def f():\n    import ppl_lvm.models.hmm as h"),
    "engine and model, by name": ("engines/em.py", "def f():\n    importlib.import_module('ppl_lvm.models')"),
    "engine and model, by relative name": ("engines/em.py", "import_module('..models.hmm', __package__)"),
    "engine and model, for types": ("engines/em.py", "if TYPE_CHECKING:\n    from ppl_lvm.models import HMM"),
    "engine and comparison": ("engines/em.py", "from ppl_lvm.comparison import compare"),
    "engine and storage": ("engines/em.py", "from ppl_lvm import storage"),
    "model and engine": ("models/hmm/__init__.py", "from ...engines.em import EM"),
    "model and engine, through the root": ("models/hmm/__init__.py", "from ppl_lvm import EM"),
    "model and the whole package": ("models/hmm/__init__.py", "import ppl_lvm"),
    "model and plots": ("models/hmm/__init__.py", "def f():\n    from ppl_lvm.plots import trace"),
    "backend and model": ("backends/session.py", "from ppl_lvm.models import hmm"),
    "backend and engine": ("backends/_pyro.py", "from ..engines import svi"),
    "plots and engine": ("plots.py", "from ppl_lvm.engines import svi"),
    "plots and scipy": ("plots.py", "def f():\n    from scipy import stats"),
    "report and sklearn": ("report/__init__.py", "import sklearn.metrics"),
    "report and the command line": ("report/page.py", "from ppl_lvm.command_line import main"),
    "the command line and plots": ("command_line/_compare.py", "def f():\n    from ppl_lvm import plots"),
    "report and backend": ("report/page.py", "from ..backends import session"),
    "data and core": ("data.py", "from ppl_lvm.core import Model"),
    "errors and data": ("errors.py", "from . import data"),
    "a Fit and its storage at module level": ("result.py", "from ppl_lvm.storage import save"),
    "core and backends at module level": ("core.py", "from .backends import session"),
    "comparison and plots at module level": ("comparison.py", "from . import plots"),
    "storage and plots": ("storage.py", "def f():\n    from . import plots"),
    "torch in a light file": ("models/hmm/__init__.py", "import torch.nn"),
    "jax in a light file": ("engines/nuts.py", "try:\n    import jax\nexcept ImportError:\n    pass"),
    "jax in a torch file": ("models/hmm/_pyro.py", "import numpyro"),
    "torch in a jax file": ("engines/_jax_nuts.py", "import pyro.distributions as dist"),
    "assert": ("data.py", "def f(x):\n    assert x"),
    "print": ("data.py", "print('hello')"),
}
ALLOWED = {
    "core delegates when called": ("core.py", "def save(self):\n    from ppl_lvm import storage"),
    "the root delegates": ("__init__.py", "from .core import fit\ndef f():\n    from . import engines"),
    "a Fit's methods delegate": ("result.py", "def save(self):\n    from ppl_lvm.storage import save"),
    "a Fit names later types": ("result.py", "if TYPE_CHECKING:\n    from ppl_lvm.predictive import Check"),
    "comparison delegates to its picture": ("comparison.py", "def plot(self):\n    from . import plots"),
    "engine and core": ("engines/svi.py", "from ppl_lvm.core import Fit\nfrom ..backends import session"),
    "engine and its own helpers": ("engines/svi.py", "from . import _pyro_svi"),
    "deferred torch in a light file": ("engines/svi.py", "def run():\n    import torch"),
    "torch for type checkers": ("core.py", "if TYPE_CHECKING:\n    import torch"),
    "torch and jax where they belong": ("backends/session.py", "import torch, jax"),
    "pyro file": ("models/hmm/_pyro.py", "import pyro, torch"),
    "numpyro file": ("models/hmm/_numpyro.py", "import jax, numpyro"),
    "scipy in a closed form": ("models/hmm/_exact.py", "from scipy import special"),
    "a docstring that says print": ("data.py", '"""print(x), assert x"""'),
    "a word that starts like the package": ("data.py", "import ppl_lvm_other"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case: str) -> None:
    path, source = PLANTED[case]
    found = violations({path: source})
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{source.count(chr(10)) + 1 if 'try' not in source else 2}:")


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_passes(case: str) -> None:
    path, source = ALLOWED[case]
    assert violations({path: source}) == []


# Starting the interpreter is not part of what is timed; sys.modules is read before json is needed.
IMPORT = """
import time
began = time.perf_counter()
import ppl_lvm
seconds = time.perf_counter() - began
import json, sys
print(json.dumps({"seconds": seconds, "loaded": sorted(sys.modules)}))
"""


def import_in_a_new_process() -> tuple[float, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], cwd=REPO, capture_output=True, text=True, check=True, timeout=60
    )
    answer = json.loads(done.stdout)
    return answer["seconds"], set(answer["loaded"])


def test_importing_the_package_loads_no_heavy_library() -> None:
    _, loaded = import_in_a_new_process()
    arviz = {"arviz_base", "arviz_stats", "arviz_plots"}
    heavy = TORCH | JAX | arviz | {"pandas", "xarray", "matplotlib", "sklearn"}
    assert PACKAGE in loaded
    assert not loaded & heavy


def test_importing_the_package_takes_under_300_ms() -> None:
    times: list[float] = []
    # The best of several: whatever else the machine does can only add to the time.
    while len(times) < 5 and (len(times) < 3 or min(times) >= 0.3):
        times.append(import_in_a_new_process()[0])
    assert min(times) < 0.3, f"seconds: {times}"
