"""How well each fit predicts: leave-one-out, or the log predictive density of data that were held out.

Every row of the data has one number, its log predictive density in nats with all local latents summed out.
The difference of two fits is the sum of the differences row by row, and its standard error is that of a sum
of n paired differences, sqrt(n) sd (Vehtari, Gelman and Gabry 2017, *Statistics and Computing* 27, eq. 24).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.predictive import effective_size
from ppl_lvm.ranking import loo_by_datum
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

FEWEST_DRAWS = 100
MOST_BAD = 0.05
"""Share of rows with too large a Pareto k up to which a LOO score may be the one that others are held to."""
COLUMNS = ("elpd", "elpd_error", "diff", "diff_error", "mc_error", "p_loo", "bad_k", "kind", "note")


@dataclass(frozen=True)
class _Score:
    """Log predictive density by row (n,), and what is said of their sum."""

    pointwise: np.ndarray
    mc_error: float
    kind: str
    p_loo: float = math.nan
    bad_k: float = math.nan
    note: str = ""


def predictive_table(fits: Mapping[str, Fit], reference: str | None, data: Any = None) -> pd.DataFrame:
    """A row per fit: expected log predictive density, and its difference to the reference (or to the best).

    ``elpd`` is the sum over rows, nats, ``elpd_error`` its standard error over rows; ``diff`` and
    ``diff_error`` the paired difference; ``mc_error`` the Monte Carlo error of ``elpd`` from the finite
    number of draws; ``kind`` is "loo" (PSIS, arviz-stats; Vehtari, Gelman and Gabry 2017), "held-out", or
    "plug-in" for the density at a point. ``p_loo`` and ``bad_k`` (rows whose Pareto k is too large) go with
    LOO. Where a fit has no score, ``note`` says why. ``attrs["against"]`` names the fit that
    differences are taken to.
    """
    import pandas as pd

    found: dict[str, _Score] = {}
    notes: dict[str, str] = {}
    for name, fit in fits.items():
        try:
            found[name] = _loo(fit) if data is None else _held_out(fit, data)
        except ValueError as reason:  # in words: a point, one datum, weights that are too uneven
            notes[name] = str(reason)
    base = _base(found, reference)
    rows = {}
    for name in fits:
        row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan) | {"kind": "", "note": notes.get(name, "")}
        rows[name] = row | (_row(found[name], found[base]) if name in found and base is not None else {})
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS)).rename_axis("fit")
    table.attrs["against"] = base
    return table


def _base(found: Mapping[str, _Score], reference: str | None) -> str | None:
    """The reference, else the best of those whose score can be trusted."""
    if reference in found or not found:
        return reference if reference in found else None
    sound = [n for n, s in found.items() if not s.bad_k > MOST_BAD * len(s.pointwise)] or list(found)
    return max(sound, key=lambda n: float(found[n].pointwise.sum()))


def _row(score: _Score, base: _Score) -> dict[str, Any]:
    gap = score.pointwise - base.pointwise
    return {
        "elpd": float(score.pointwise.sum()),
        "elpd_error": _over_rows(score.pointwise),
        "diff": float(gap.sum()),
        "diff_error": _over_rows(gap),
        "mc_error": score.mc_error,
        "p_loo": score.p_loo,
        "bad_k": score.bad_k,
        "kind": score.kind,
        "note": score.note,
    }


def _over_rows(values: np.ndarray) -> float:
    """Standard error of the sum of n independent values."""
    return float(math.sqrt(len(values)) * values.std(ddof=1)) if len(values) > 1 else math.nan


def _held_out(fit: Fit, data: Any) -> _Score:
    score = fit.log_predictive(data)
    return _Score(score.pointwise, score.total_std_error, {"plug_in": "plug-in"}.get(score.kind, "held-out"))


def _loo(fit: Fit) -> _Score:
    if fit.is_point:
        raise ValueError("a point has no draws to reweight; give held-out data to compare(..., data=)")
    drawn = fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]
    if drawn < FEWEST_DRAWS:
        raise ValueError(f"{drawn} draws are too few for LOO (at least {FEWEST_DRAWS})")
    tree = fit.to_arviz()
    pointwise, bad, found = loo_by_datum(fit, tree)
    note = f"Pareto k of {bad} of {len(pointwise)} rows is above {found.good_k:.2f}" if bad else ""
    return _Score(pointwise, _loo_error(fit, tree), "loo", float(found.p), float(bad), note)


def _loo_error(fit: Fit, tree: Any) -> float:
    r"""Monte Carlo error of the sum of :math:`\log \sum_s r_s / \sum_s (r_s / p_{is})`, by the delta method.

    r are the draws' own weights p / q (1 for draws of the posterior), :math:`p_{is}` the density of row i at
    draw s. Draw s moves the sum by the difference of its share of r, for all n rows, and its shares of r / p.
    """
    terms = next(iter(tree["log_likelihood"].data_vars.values())).values
    terms = terms.reshape(-1, terms.shape[-1]).astype(float)
    size = len(terms)
    own = _shares(_log_ratio(fit, size)[:, None])
    others = _shares(_log_ratio(fit, size)[:, None] - terms)
    moved = terms.shape[1] * own[:, 0] - others.sum(1)
    return float(np.sqrt((moved**2).sum() * size / effective_size(fit, size)))


def _log_ratio(fit: Fit, size: int) -> np.ndarray:
    stats = fit.sample_stats
    guide = fit.posterior.attrs.get("draws") == "independent" and stats is not None and "log_q" in stats
    if not guide or stats is None or stats["log_q"].size != size:
        return np.zeros(size)
    return np.asarray((stats["log_p"] - stats["log_q"]).values, dtype=float).reshape(-1)


def _shares(log_weights: np.ndarray) -> np.ndarray:
    """Weights (s, n) that sum to one over draws."""
    out: np.ndarray = np.exp(log_weights - log_weights.max(0))
    return out / out.sum(0)


__all__ = ["COLUMNS", "predictive_table"]
