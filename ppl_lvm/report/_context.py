"""From a comparison to what the template prints: plain strings, nothing computed that a fit has not."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ppl_lvm.comparison import MAX_BIAS, Comparison
from ppl_lvm.core import Problem, Site
from ppl_lvm.evidence import EvidenceLadder
from ppl_lvm.plots._verdicts import LEVELS
from ppl_lvm.report._figures import graph_picture, pictures_of, wanted
from ppl_lvm.report._predictions import checks, predictive
from ppl_lvm.report._story import story_of
from ppl_lvm.report._tables import evidence, overview, points, quantities, rungs, show
from ppl_lvm.result import Fit
from ppl_lvm.structure import ModelGraph, model_graph

MEANING = {
    "means_and_spreads": f"every bias is below {MAX_BIAS} posterior sd, every sd ratio 3/4 to 4/3",
    "means_only": f"every bias is below {MAX_BIAS} posterior sd, but some spread is off or unknown",
    "inconclusive": "Monte Carlo errors are too large to tell",
    "do_not_trust": f"some bias is above {MAX_BIAS} posterior sd, beyond its error",
}


def page_of(comparison: Comparison, ladder: EvidenceLadder | None = None) -> dict[str, Any]:
    """Everything that the template names."""
    first = next(iter(comparison.fits.values()))
    graph, no_graph = _graph(comparison)
    drawn, undrawn = pictures_of(graph_picture(graph))
    pictures, missing = pictures_of(wanted(comparison, ladder))
    return {
        "title": f"Comparison of {_count(len(comparison.fits), 'fit')}",
        "model": first.model.describe(),
        "reference": comparison.reference,
        "verdicts": [
            {
                "fit": n,
                "level": v.level,
                "label": LEVELS[v.level],
                "sentence": _sentence(v.sentence),
                "is_reference": n == comparison.reference,
            }
            for n, v in comparison.verdicts.items()
        ],
        "meaning": [(LEVELS[k], k, v) for k, v in MEANING.items()],
        "story": story_of(first.model),
        "graph": drawn[0] if drawn else None,
        "no_graph": no_graph or "".join(undrawn),
        "statements": [] if graph is None else [(n.sentence, graph.where(n)) for n in graph.nodes],
        "sites": _sites(comparison),
        "data": _data(comparison),
        "overview": overview(comparison),
        "table": quantities(comparison),
        "pictures": pictures,
        "missing": missing,
        "predictive": predictive(comparison),
        "checks": checks(comparison),
        "ladder": None if ladder is None else rungs(ladder),
        "evidence": evidence(comparison),
        "points": points(comparison),
        "runs": [_run(name, fit) for name, fit in comparison.fits.items()],
        "versions": _versions(comparison),
        "max_bias": MAX_BIAS,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }  # fmt: skip


def _sentence(text: str) -> str:
    text = text.replace("+-", "±")
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


# ---- model and data ------------------------------------------------------------------------------


def _problem(comparison: Comparison) -> Problem | None:
    return next((f.problem for f in comparison.fits.values() if f.problem is not None), None)


def _graph(comparison: Comparison) -> tuple[ModelGraph | None, str]:
    """The model's graph, or why there is none."""
    with_data = [f for f in comparison.fits.values() if f.problem is not None]
    if not with_data:
        return None, ""  # that the data are not there is said elsewhere
    try:
        return model_graph(with_data[0]), ""
    except ValueError as reason:
        return None, str(reason)


def _sites(comparison: Comparison) -> list[dict[str, str]]:
    """What tracing found; without data, the names and shapes of the draws."""
    problem = _problem(comparison)
    if problem is not None:
        return [_site(s, problem) for s in problem.sites.values()]
    draws = next((f.posterior for f in comparison.fits.values() if not f.is_point), None)
    if draws is None:
        return []
    unknown = {"kind": "latent", "plates": "–", "support": "–"}
    return [{"name": str(k), "shape": str(v.shape[2:]), "dims": ", ".join(map(str, v.dims[2:])), **unknown}
            for k, v in draws.data_vars.items()]  # fmt: skip


def _site(site: Site, problem: Problem) -> dict[str, str]:
    kind = site.kind
    words: dict[str, str] = {
        "latent": "latent",
        "observed": "observed",
        "deterministic": "deterministic",
        "param": "parameter",
    }
    text = words[kind]
    if kind == "latent" and site.discrete:
        text = "latent, discrete, summed out"
    if site.name in problem.model.held_sites:
        text = "held at a value"
    return {
        "name": site.name,
        "kind": text,
        "shape": " × ".join(str(n) for n in site.shape) or "scalar",
        "dims": ", ".join(problem.dims.get(site.name, ())) or "–",
        "plates": ", ".join(f"{p.name} ({p.size})" for p in site.plates) or "–",
        "support": support(site.support),
    }


def support(name: str) -> str:
    """Pyro's name of a constraint, in words."""
    if found := re.match(r"integerinterval\(lower_bound=(\S+), upper_bound=([^)\s]+)", name):
        return f"{found[1]} to {found[2]}"
    if re.match(r"greaterthan(eq)?\(lower_bound=0(\.0)?\)?$", name):
        return "positive"
    words = {"corrcholesky": "Cholesky factor of a correlation matrix", "lowercholesky": "Cholesky factor"}
    return words.get(name, name) or "–"


def _data(comparison: Comparison) -> dict[str, Any]:
    """Rows and columns, and what pandas' describe says of a matrix of at most thirty columns."""
    problem = _problem(comparison)
    rows = next((f.meta["num_data"] for f in comparison.fits.values() if f.meta.get("num_data")), None)
    found: dict[str, Any] = {"rows": rows, "arrays": [], "columns": [], "stored": problem is not None}
    if problem is None:
        return found
    for name, value in problem.data.values.items():
        if not isinstance(value, np.ndarray):
            found["arrays"].append((name, type(value).__name__, show(value)))
            continue
        shape = " × ".join(str(n) for n in value.shape) or "scalar"
        found["arrays"].append((name, shape, str(value.dtype)))
        if value.ndim == 2 and value.shape[1] <= 30 and not found["columns"]:
            found["columns"] = _columns(value, problem)
    return found


def _columns(matrix: np.ndarray, problem: Problem) -> list[tuple[str, list[str]]]:
    import pandas as pd

    dims = [
        problem.dims[s.name]
        for s in problem.sites.values()
        if s.kind == "observed" and s.shape == matrix.shape
    ]
    names = problem.coords.get(dims[0][-1]) if dims else None
    if names is None or len(names) != matrix.shape[1]:
        names = range(matrix.shape[1])
    described = pd.DataFrame(matrix).describe().loc[["mean", "std", "min", "50%", "max"]]
    return [(str(n), [show(float(described[i][k])) for k in described.index]) for i, n in enumerate(names)]


# ---- runs ----------------------------------------------------------------------------------------


def _run(name: str, fit: Fit) -> dict[str, Any]:
    settings = [(f.name, _setting(getattr(fit.engine, f.name))) for f in dataclasses.fields(fit.engine)]
    return {
        "fit": name,
        "engine": type(fit.engine).__name__,
        "backend": fit.backend,
        "seed": str(fit.meta.get("seed", "–")),
        "dtype": str(fit.meta.get("dtype", "–")),
        "seconds": show(fit.meta.get("wall_seconds")),
        "status": str(fit.status),
        "ok": fit.status.ok,
        "settings": settings,
    }


def _setting(value: Any) -> str:
    if isinstance(value, Fit):
        return f"a fit by {type(value.engine).__name__} on {value.backend}"
    return getattr(value, "__name__", None) or repr(value)


def _versions(comparison: Comparison) -> list[tuple[str, str]]:
    """Packages and their versions; several where fits were made with different ones."""
    found: dict[str, dict[str, None]] = {}
    for fit in comparison.fits.values():
        for package, version in (fit.meta.get("versions") or {}).items():
            found.setdefault(package, {})[str(version)] = None
    return [(package, ", ".join(versions)) for package, versions in found.items()]


__all__ = ["page_of", "support"]
