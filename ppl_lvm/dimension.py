"""How many latent dimensions: likelihood criteria, evidence, leave-one-out and ARD side by side.

For each dimension q a maximum-likelihood point gives log likelihood, AIC and BIC. Where the model has one,
the Laplace approximation of the evidence stands beside them (Minka 2000, for PPCA). With an engine for draws,
PSIS-LOO is added (Vehtari, Gelman and Gabry 2017). With ``ard``, the largest model is fitted once with a
precision for each column of the loadings (Bishop 1999), and the columns that stay are counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.core import Engine
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

_ACTIVE_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class DimensionChoice:
    """The result of :func:`choose_dimension`.

    Attributes
    ----------
    table
        A row per dimension: ``log_likelihood`` (nats), ``num_parameters``, ``aic``, ``bic``, and where they
        were asked for or exist ``laplace_evidence`` (nats, up to a constant that all rows share),
        ``elpd_loo`` (nats) with its standard error ``se``, and its difference from the best, ``elpd_diff``,
        with the standard error ``dse`` of the paired terms; ``bad_k`` counts the rows whose Pareto k is too
        large for ``elpd_loo`` to be reliable.
    best
        The dimension that each criterion prefers, by its column; for ``elpd_loo`` the smallest one whose
        difference from the best is within its standard error; ``ard`` is the number of columns that stay.
    eigenvalues
        Of the sample covariance, descending, (d,): the scree.
    fits
        The maximum-likelihood points by dimension; ``ard`` that with the precisions, or None.
    """

    table: pd.DataFrame
    best: Mapping[str, int]
    eigenvalues: np.ndarray
    fits: Mapping[int, Fit]
    ard: Fit | None = None

    def plot(self) -> Any:
        """Scree and criteria against the dimension; a Figure."""
        from ppl_lvm.plots import plot_dimension

        return plot_dimension(self)

    def __repr__(self) -> str:
        chosen = ", ".join(f"{k}: {v}" for k, v in self.best.items())
        table = self.table.to_string(float_format=lambda v: f"{v:.2f}")
        return f"Latent dimensions preferred: {chosen}\n{table}"


def choose_dimension(
    model: Any,
    data: Any,
    dims: Iterable[int],
    *,
    loo: Engine | None = None,
    ard: Engine | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> DimensionChoice:
    """Compare latent dimensions of a factor model (:mod:`ppl_lvm.dimension`).

    Parameters
    ----------
    model
        A model with a field ``latent_dim``, such as ``models.PPCA`` or ``models.FactorAnalysis``; its own
        ``latent_dim`` is not used.
    data
        As for :func:`ppl_lvm.fit`.
    dims
        The dimensions to try.
    loo
        An engine that gives draws (``NUTS()``, ``SVI()``): PSIS-LOO of every dimension by it. None: left out.
    ard
        An engine that gives draws, for one fit of the largest dimension with ``ard=True``. None: left out.

    Raises
    ------
    TypeError, ValueError
        For a model without ``latent_dim``, or without a maximum-likelihood point; for no dimensions.
    """
    from ppl_lvm.engines.em import EM
    from ppl_lvm.fitting import fit, fit_to_the_end

    wanted = _check(model, dims)
    data = dataclasses.replace(model, latent_dim=wanted[0]).bind(data)  # once: it may be an iterator
    settings: dict[str, Any] = {"seed": seed, "progress": progress}
    fits = {q: fit(dataclasses.replace(model, latent_dim=q), data, EM(), **settings) for q in wanted}
    rows = {q: _row(found) for q, found in fits.items()}
    scores: dict[int, np.ndarray] = {}
    if loo is not None:
        for q in wanted:
            whole = fit_to_the_end(dataclasses.replace(model, latent_dim=q), data, loo, **settings)
            scores[q], rows[q]["bad_k"] = _loo(whole)
    found = None
    if ard is not None:
        found = fit(dataclasses.replace(model, latent_dim=max(wanted), ard=True), data, ard, **settings)
    return _choice(rows, fits, scores, found)


def _check(model: Any, dims: Iterable[int]) -> list[int]:
    if not dataclasses.is_dataclass(model) or not hasattr(model, "latent_dim"):
        raise TypeError(
            f"model: expected one with a latent_dim, such as models.PPCA(latent_dim=2), got {model!r}."
        )
    named = [name for name in ("mask", "anchors") if getattr(model, name, None) is not None]
    if named:
        raise ValueError(f"model: {named[0]} belongs to one latent_dim; leave it out to compare several.")
    if getattr(model, "scale", None) == 0:
        raise ValueError("model: scale=0.0 has no density to compare dimensions by; leave it out.")
    wanted = list(dims) if isinstance(dims, Iterable) and not isinstance(dims, str) else []
    if not wanted or any(isinstance(q, bool) or not isinstance(q, (int, np.integer)) for q in wanted):
        raise ValueError(f"dims: expected whole numbers, such as range(1, 6), got {dims!r}.")
    return sorted({int(q) for q in wanted})


def _row(found: Fit) -> dict[str, float]:
    row = {
        "log_likelihood": float(found.log_likelihood or 0.0),
        "num_parameters": found.num_parameters or 0,
        "aic": found.aic,
        "bic": found.bic,
    }
    value = _laplace_evidence(found)
    return row if value is None else {**row, "laplace_evidence": value}


def _laplace_evidence(found: Fit) -> float | None:
    """Minka's evidence, for PPCA of complete data with the noise free; None for anything else."""
    from ppl_lvm.models._statistics import SufficientStatistics
    from ppl_lvm.models.ppca import PPCA, laplace_evidence

    model, problem = found.model, found.problem
    if not isinstance(model, PPCA) or model.scale is not None or problem is None:
        return None
    arrays = model.fingerprint(problem.data)
    own = SufficientStatistics(**arrays) if arrays is not None else None
    return laplace_evidence(own, model.latent_dim) if own is not None and own.complete else None


def _loo(found: Fit) -> tuple[np.ndarray, int]:
    """Leave-one-out log predictive densities of the rows, (n,), and how many of them are not reliable."""
    from ppl_lvm.ranking import loo_by_datum

    if found.is_point:
        raise ValueError(
            f"loo: {type(found.engine).__name__} gives points, which leave-one-out cannot score; use an "
            "engine with draws, such as NUTS()."
        )
    scores, bad, _ = loo_by_datum(found, found.to_arviz())
    return scores, bad


def _add_loo(table: pd.DataFrame, scores: Mapping[int, np.ndarray]) -> int:
    """Columns of LOO, and the smallest dimension whose distance from the best is within its own error."""
    table["elpd_loo"] = {q: float(own.sum()) for q, own in scores.items()}
    top = scores[int(table["elpd_loo"].idxmax())]
    root = np.sqrt(len(top))
    table["se"] = {q: float(root * own.std(ddof=1)) for q, own in scores.items()}
    table["elpd_diff"] = {q: float((own - top).sum()) for q, own in scores.items()}
    table["dse"] = {q: float(root * (own - top).std(ddof=1)) for q, own in scores.items()}
    return int(table.index[-table["elpd_diff"] <= table["dse"]].min())


def _choice(
    rows: dict[int, dict[str, float]],
    fits: dict[int, Fit],
    scores: Mapping[int, np.ndarray],
    ard: Fit | None,
) -> DimensionChoice:
    import pandas as pd

    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "latent_dim"
    best = {name: int(table[name].idxmin()) for name in ("aic", "bic")}
    if "laplace_evidence" in table:
        best["laplace_evidence"] = int(table["laplace_evidence"].idxmax())
    if scores:
        best["elpd_loo"] = _add_loo(table, scores)
    if ard is not None:
        best["ard"] = active_columns(ard)
    return DimensionChoice(table, best, _eigenvalues(fits), fits, ard)


def active_columns(fit: Fit) -> int:
    """Columns of the loadings with at least one percent of the factors' posterior mean variance."""
    squares = (fit.posterior["loadings"] ** 2).mean(("chain", "draw")).values.sum(0)
    return int((squares >= _ACTIVE_SHARE * squares.sum()).sum())


def _eigenvalues(fits: Mapping[int, Fit]) -> np.ndarray:
    """Of the sample covariance; with missing entries, of the covariance that the largest model implies."""
    found = fits[max(fits)]
    problem: Any = found.problem
    own = problem.model.fingerprint(problem.data)
    if len(own["count"]) == 1:
        covariance = own["scatter"][0] / own["count"][0]
    else:
        loadings, scale = found.params["loadings"], found.params["scale"]
        covariance = loadings @ loadings.T + np.eye(len(loadings)) * scale**2
    return np.asarray(np.linalg.eigvalsh(covariance)[::-1])
