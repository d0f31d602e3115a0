"""Ranks of many simulations to a table of quantities and to findings in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.calibration import _uniform
from ppl_lvm.calibration._simulate import FEWEST_DRAWS
from ppl_lvm.diagnostics import Finding, entries
from ppl_lvm.result import chain_dataset

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ppl_lvm.core import Problem

MOST_FAILING = 0.05
_CLEAR = 0.01


def gather(
    records: Mapping[int, dict[str, Any]], problem: Problem, asked: Sequence[str] | None
) -> xr.Dataset:
    """Finished simulations as a Dataset: ``rank``, ``pit``, ``truth`` (simulation, quantity), and figures."""
    import xarray as xr

    done = {i: r for i, r in sorted(records.items()) if not r["error"]}
    shared = [k for k in next(iter(done.values()))["rank"] if all(k in r["rank"] for r in done.values())]
    truth = {k: np.stack([r["truth"][k] for r in done.values()]) for k in shared}
    finite = {k: v for k, v in truth.items() if np.isfinite(v).all()}
    named = chain_dataset(
        problem, {k: v[None] for k, v in finite.items()}, kind="prior", event_dims=problem.model.dims
    )
    figures = {k: {"mean": v.mean(0), "sd": v.std(0)} for k, v in finite.items()}
    places = [p for p in entries(named, figures) if asked is None or p[2] in asked or p[0] in asked]
    if not places:
        raise ValueError(
            f"quantities: none of {list(asked or finite)} varies from one simulation to the next, so there "
            "is nothing to rank; ask for others."
        )

    def column(part: str) -> np.ndarray:
        rows = [[r[part][site][index] for site, index, _ in places] for r in done.values()]
        return np.array(rows).reshape(len(done), len(places))

    both = ("simulation", "quantity")
    single = {k: ("simulation", [r[k] for r in done.values()]) for k in ("num_draws", "ess", "seconds")}
    parts = {part: (both, column(part)) for part in ("rank", "pit", "truth")}
    status = {"status": ("simulation", [str(r["status"]) for r in done.values()])}
    coords = {"simulation": list(done), "quantity": [label for _, _, label in places]}
    return xr.Dataset({**parts, **single, **status}, coords)


def make_table(simulations: xr.Dataset, kind: str, false_alarm: float) -> pd.DataFrame:
    """A row for each quantity; columns as in :class:`ppl_lvm.Calibration`."""
    import pandas as pd

    names = [str(q) for q in simulations["quantity"].values]
    rows = {name: _row(u, kind) for name, u in zip(names, simulations["pit"].values.T, strict=True)}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "quantity"
    table["p_adjusted"] = _uniform.holm(table["p_value"].to_numpy())
    table["finding"] = [_words(row, kind, false_alarm) for _, row in table.iterrows()]
    return table


def _row(u: np.ndarray, kind: str) -> dict[str, float]:
    n = len(u)
    row = {
        "bias": 0.5 - float(u.mean()),
        "bias_error": math.sqrt(1 / (12 * n)),
        "spread": math.sqrt(12 * float(((u - 0.5) ** 2).mean())),
        "spread_error": math.sqrt(0.2 / n),
        "p_chi_square": _uniform.chi_square_p(u),
        "p_ecdf": _uniform.ecdf_p(u),
        "p_bias": _uniform.mean_p(u) if kind == "sbc" else _uniform.symmetry_p(u),
        "p_spread": _uniform.spread_p(u),
    }
    used = ("p_chi_square", "p_ecdf", "p_bias", "p_spread") if kind == "sbc" else ("p_bias", "p_spread")
    return {**row, "p_value": _uniform.combined_p(np.array([row[k] for k in used]))}


def _words(row: Any, kind: str, false_alarm: float) -> str:
    """Which way a quantity's posterior is off, where it is beyond chance over all quantities together."""
    if not row["p_adjusted"] < false_alarm:
        return ""
    found = []
    if row["p_bias"] < _CLEAR:
        found.append("too high" if row["bias"] > 0 else "too low")
    if row["p_spread"] < _CLEAR:
        found.append("too narrow" if row["spread"] > 1 else "too wide")
    return ", ".join(found) or ("not uniform" if kind == "sbc" else "not symmetric")


def make_findings(
    table: pd.DataFrame, simulations: xr.Dataset, failures: Mapping[int, str], num_draws: int
) -> list[Finding]:
    """What is wrong, in words, the most alarming first."""
    total = simulations.sizes["simulation"] + len(failures)
    out = []
    if failures:
        share = len(failures) / total
        first = next(iter(failures.values()))
        out.append(
            Finding(
                "error" if share > MOST_FAILING else "warning",
                "failures",
                share,
                f"{len(failures)} of {total} simulations failed, the first with {first!r}",
            )
        )
    for name, row in table[table["finding"] != ""].sort_values("p_value").iterrows():
        sentence = f"{name}: the posterior is {row['finding']} ({_figures(row)})"
        out.append(Finding("error", str(name), float(row["p_adjusted"]), sentence))
    return out + _about_fits(simulations, num_draws)


def _figures(row: Any) -> str:
    return (
        f"bias of ranks {row['bias']:+.3f} ± {row['bias_error']:.3f}, spread {row['spread']:.2f} ± "
        f"{row['spread_error']:.2f} of uniform ranks', adjusted p = {row['p_adjusted']:.2g}"
    )


def _about_fits(simulations: xr.Dataset, num_draws: int) -> list[Finding]:
    out = []
    count = simulations.sizes["simulation"]
    few = int((simulations["ess"].values < max(FEWEST_DRAWS, num_draws / 4)).sum())
    if few > MOST_FAILING * count:
        out.append(
            Finding(
                "warning",
                "ess",
                few / count,
                f"{few} of {count} fits have an effective size below {max(FEWEST_DRAWS, num_draws // 4)}: "
                "their ranks are among few draws, which hides faults; draw more",
            )
        )
    bad = [s for s in simulations["status"].values if s not in ("OK", "CONVERGED")]
    if bad:
        worst = max(sorted(set(bad)), key=bad.count)
        out.append(
            Finding(
                "warning",
                "status",
                len(bad) / count,
                f"{len(bad)} of {count} fits did not end well, most often {worst.lower()}",
            )
        )
    return out
