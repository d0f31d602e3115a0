"""Different models, same data: which predicts or explains them better."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.core import Problem
from ppl_lvm.predictive import observed_values
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

_WAYS = ("loo", "bic", "evidence", "heldout")


def rank(fits: Mapping[str, Fit], by: str = "loo", *, data: Any = None) -> pd.DataFrame:
    """Rank fits of different models to the same data, best first.

    Parameters
    ----------
    fits
        Fits by name.
    by
        ``"loo"``: PSIS leave-one-out by arviz-stats' ``compare`` (draws needed; draws of a guide are
        reweighted by p / q); ``"bic"``: points; ``"evidence"``: log evidence, where the kinds allow it;
        ``"heldout"``: log predictive density of ``data``.
    data
        Held-out data, for ``by="heldout"`` only.

    Returns
    -------
    A table with a row per fit; ``rank`` is missing where the evidence settles no order.

    Raises
    ------
    ValueError
        If a fit cannot be ranked that way, in words.
    """
    if by not in _WAYS:
        raise ValueError(f"by: expected one of {_WAYS}, got {by!r}.")
    if not isinstance(fits, Mapping) or len(fits) < 2:
        raise ValueError("fits: expected a mapping of at least two names to fits.")
    for name, fit in fits.items():
        if not isinstance(fit, Fit):
            raise TypeError(f"fits[{name!r}]: expected a Fit, got {type(fit).__name__}.")
    if (data is None) == (by == "heldout"):
        raise ValueError("data: pass held-out data with by='heldout', and only then.")
    _check_data(fits)
    _check_values(fits)
    if by == "heldout":
        return _by_heldout(fits, data)
    return {"loo": _by_loo, "bic": _by_bic, "evidence": _by_evidence}[by](fits)


def _check_data(fits: Mapping[str, Fit]) -> None:
    sizes = {name: fit.meta.get("num_data") for name, fit in fits.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"fits: fitted to different data (rows: {sizes}); rank takes models of the same data."
        )


def _check_values(fits: Mapping[str, Fit]) -> None:
    with_data = [(name, fit) for name, fit in fits.items() if fit.problem is not None]
    for (a, first), (b, second) in itertools.combinations(with_data, 2):
        if not same_data(first.problem, second.problem):  # type: ignore[arg-type]  # those with a problem
            raise ValueError(f"fits: {a!r} and {b!r} were fitted to different data.")


def same_data(first: Problem, second: Problem) -> bool:
    """Whether two problems hold the same observations, missing entries (NaN) at the same places."""
    known = _same_statistics(first, second)
    if known is not None:
        return known
    mine, other = observed_values(first), observed_values(second)
    return all(_equal(mine[site], other[site]) for site in set(mine) & set(other))


def same_inputs(first: Problem, second: Problem) -> bool:
    """Whether two problems of one model hold the same data, arguments that are not observed included."""
    known = _same_statistics(first, second)
    if known is not None:
        return known
    mine, other = first.data.values, second.data.values
    return set(mine) == set(other) and all(_equal(np.asarray(mine[k]), np.asarray(other[k])) for k in mine)


def _same_statistics(first: Problem, second: Problem) -> bool | None:
    """By the models' fingerprints, up to the rounding of how sums were taken; None where one has none."""
    a, b = (p.model.fingerprint(p.data) for p in (first, second))
    if a is None or b is None:
        return None
    return all(np.shape(a[k]) == np.shape(b[k]) and _close(a[k], b[k]) for k in a)


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal but for the rounding of long sums, relative to the largest entry, whatever the units."""
    return bool(np.abs(a - b).max(initial=0.0) <= 1e-8 * np.abs(a).max(initial=0.0))


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    floats = a.dtype.kind == "f" and b.dtype.kind == "f"
    return np.array_equal(a, b, equal_nan=floats)


def _by_loo(fits: Mapping[str, Fit]) -> pd.DataFrame:
    import arviz_stats

    points = [n for n, f in fits.items() if f.is_point]
    if points:
        raise ValueError(
            f"by: {points} are points, which LOO cannot rank; use by='bic', or fit with SVI or NUTS."
        )
    for name, fit in fits.items():
        _refuse_uneven_weights(fit, f"fits: the importance weights of {name!r}")
    found = {name: loo(fit) for name, fit in fits.items()}
    with _silent():
        return arviz_stats.compare(found)


def _refuse_uneven_weights(fit: Fit, which: str) -> None:
    if fit.posterior.attrs.get("draws") == "resampled" and not fit.status.ok:
        raise ValueError(
            f"{which} are too uneven for LOO (effective size "
            f"{fit.status.details.get('ess', 0):.0f}); fit a better proposal, or use NUTS"
        )


def loo(fit: Fit, tree: Any = None) -> Any:
    """PSIS-LOO of one fit (arviz-stats' ELPDData); draws of a guide are reweighted by p / q.

    ``tree`` is what ``fit.to_arviz()`` returned, where it is at hand.
    """
    import arviz_stats

    tree = fit.to_arviz() if tree is None else tree
    if "log_likelihood" not in tree.children:
        raise ValueError(
            f"{fit.model.describe()}: no log likelihood per datum (no data plate, or the fit was loaded "
            "without its data); use by='heldout'."
        )
    drawn = tree["posterior"].sizes
    used = tree["log_likelihood"].sizes
    if tree["log_likelihood"].to_dataset()[_only(tree)].shape[-1] < 2:
        raise ValueError(
            f"{fit.model.describe()}: there is one datum (one sequence), and leaving it out leaves nothing; "
            "cut it into several sequences, or use by='heldout'."
        )
    if drawn["chain"] * drawn["draw"] != used["chain"] * used["draw"]:
        tree["posterior"] = tree["posterior"].isel(draw=slice(0, used["draw"]), chain=slice(0, used["chain"]))
    guide = fit.posterior.attrs.get("draws") == "independent" and fit.sample_stats is not None
    with _silent():
        if guide and "log_q" in fit.sample_stats and used["draw"] == drawn["draw"]:  # type: ignore[operator]  # not None
            stats: Any = fit.sample_stats
            log_p, log_q = stats["log_p"].values.reshape(-1), stats["log_q"].values.reshape(-1)
            return arviz_stats.loo_approximate_posterior(tree, log_p, log_q, pointwise=True)
        return arviz_stats.loo(tree, pointwise=True)


def loo_by_datum(fit: Fit, tree: Any) -> tuple[np.ndarray, int, Any]:
    """Leave-one-out log densities (n,), for how many data Pareto's k is too large, and ArviZ's whole answer.

    Raises
    ------
    ValueError
        Where importance weights are too uneven, or PSIS has no finite value for a datum.
    """
    _refuse_uneven_weights(fit, "the importance weights")
    found = loo(fit, tree)
    scores = np.asarray(found.elpd_i, dtype=float).ravel()
    lost = int((~np.isfinite(scores)).sum())
    if lost:
        raise ValueError(f"PSIS found no finite value for {lost} of {len(scores)} rows; use more draws")
    return scores, int((~(np.asarray(found.pareto_k).ravel() <= found.good_k)).sum()), found


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the warnings of PSIS."""
    # NumPy's: weights that underflow or are all zero, whose scores are not finite and refused as such
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # said once, of all data together; tables count them by fit (``bad_k``, ArviZ's ``warning``)
        warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto")
        yield


def _only(tree: Any) -> str:
    """The name of the pointwise log likelihood's variable."""
    return str(next(iter(tree["log_likelihood"].data_vars)))


def _by_bic(fits: Mapping[str, Fit]) -> pd.DataFrame:
    import pandas as pd

    rows = {
        name: {
            "bic": fit.bic,
            "aic": fit.aic,
            "log_likelihood": fit.log_likelihood,
            "num_parameters": fit.num_parameters,
            "degenerate": fit.status.outcome.name == "DEGENERATE",
        }
        for name, fit in fits.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").sort_values("bic")
    table.insert(0, "rank", np.arange(len(table)))
    table["bic_diff"] = table["bic"] - table["bic"].iloc[0]
    return table


def _by_evidence(fits: Mapping[str, Fit]) -> pd.DataFrame:
    """Order only what the intervals settle: rank r means that exactly r fits are certainly better."""
    import pandas as pd

    missing = [n for n, f in fits.items() if f.evidence is None]
    if missing:
        raise ValueError(f"by: {missing} have no evidence; use SVI or ImportanceSampling, or by='loo'.")
    found: dict[str, Any] = {n: f.evidence for n, f in fits.items()}
    conditional = {n: e.conditional_on for n, e in found.items() if e.conditional_on}
    if conditional and len(conditional) < len(found):
        raise ValueError(
            f"by: the evidence of {sorted(conditional)} is conditional on params and that of the others is "
            "not; they cannot be ranked against each other."
        )
    ends = {n: e.interval() for n, e in found.items()}
    rows = {}
    for name, evidence in found.items():
        below = [n for n in found if n != name and ends[n][1] < ends[name][0]]
        above = [n for n in found if n != name and ends[n][0] > ends[name][1]]
        settled = len(below) + len(above) == len(found) - 1
        rows[name] = {
            "rank": len(above) if settled else None,
            "log_evidence": evidence.nats,
            "std_error": evidence.std_error,
            "kind": evidence.kind,
            "certainly_above": ", ".join(below),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").sort_values("log_evidence", ascending=False)
    table["rank"] = table["rank"].astype("Int64")
    return table


def _by_heldout(fits: Mapping[str, Fit], data: Any) -> pd.DataFrame:
    import pandas as pd

    scores = {name: fit.log_predictive(data) for name, fit in fits.items()}
    best = max(scores, key=lambda n: scores[n].total)
    rows = {}
    for name, score in scores.items():
        gap = score.pointwise - scores[best].pointwise
        rows[name] = {
            "elpd": score.total,
            "mc_error": score.total_std_error,
            "elpd_diff": float(gap.sum()),
            "dse": float(np.sqrt(len(gap)) * gap.std(ddof=1)) if len(gap) > 1 else float("nan"),
            "kind": score.kind,
        }
    table = pd.DataFrame.from_dict(rows, orient="index").sort_values("elpd", ascending=False)
    table.insert(0, "rank", np.arange(len(table)))
    return table
