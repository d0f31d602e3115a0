"""What the latents of a trained model carry, and where their aggregate differs from the prior."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.amortised import at, rows_of
from ppl_lvm.backends.amortised import BLOCK, Arrays, Evaluator
from ppl_lvm.comparison_joint import classifier_test
from ppl_lvm.diagnostics import Finding
from ppl_lvm.engines._checks import check_count
from ppl_lvm.gaps._findings import findings_of
from ppl_lvm.gaps._setup import check_fit
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

ACTIVE = 0.01
"""Burda et al. (2016), section 5.2: a unit is active if the variance over data of its mean is above this."""
_ELBO_DRAWS = 50
_CLASSIFIED = 1000  # draws of each side that the classifier sees
_PAIRWISE = 300  # data and draws where log q(z_j | x_i) of all pairs needs the networks
_ENTRIES = 4_000_000  # numbers held at once


@dataclass(frozen=True, eq=False, repr=False)
class LatentDiagnostics:
    """The result of :func:`latent_diagnostics`.

    Attributes
    ----------
    table
        A row per latent dimension: ``kl`` (nats, of its marginal to the prior), ``activity`` (the variance
        over data of its mean), ``active``, and ``mean`` and ``variance`` of the aggregate posterior, where a
        standard normal prior has 0 and 1; each with ``..._error``.
    summary
        A row per figure: ``value``, ``error`` and ``kind``.
    num_data
        How many data were looked at.
    """

    table: pd.DataFrame
    summary: pd.DataFrame
    num_data: int
    model: str

    @functools.cached_property
    def findings(self) -> list[Finding]:
        """What is alarming, with advice; also part of ``fit.diagnose()``."""
        return findings_of(self.table, self.summary)

    def plot(self, **options: Any) -> Any:
        """KL and activity by dimension (:func:`ppl_lvm.plots.plot_latent_diagnostics`), a Figure."""
        from ppl_lvm.plots import plot_latent_diagnostics

        return plot_latent_diagnostics(self, **options)

    def __repr__(self) -> str:
        head = f"Latents of {self.model} on {self.num_data} data"
        show = {"float_format": lambda v: f"{v:.4g}"}
        lines = [head, self.summary.to_string(**show), "", self.table.to_string(**show), ""]
        return "\n".join([*lines, *(f"{f.level}: {f.sentence}" for f in self.findings)])

    def _repr_html_(self) -> str:
        from html import escape

        items = "".join(f"<li><b>{f.level}</b>: {escape(f.sentence)}</li>" for f in self.findings)
        return f"{self.summary.to_html()}{self.table.to_html()}<ul>{items}</ul>"


def latent_diagnostics(
    fit: Fit,
    data: Any = None,
    *,
    heldout: Any = None,
    num_data: int = 2000,
    seed: int = 0,
    block: int = BLOCK,
) -> LatentDiagnostics:
    r"""Active units, KL by dimension, the aggregate posterior against the prior, and the train/test gap.

    Rows of ``summary``, nats per datum unless said otherwise:

    - ``elbo``, ``log_lik`` and ``kl``: the encoder's bound and its two parts; errors are of the mean over the
      population that the data are a sample of;
    - ``aggregate_kl`` = KL(q(z) || p(z)) of the aggregate posterior :math:`q(z) = \frac1n \sum_i q(z | x_i)`,
      and ``information``, the mutual information of z and the datum's index: kl = information + aggregate_kl
      (Hoffman and Johnson 2016, "ELBO surgery"); the information is at most log n;
    - ``c2st``, the accuracy of a classifier that tells draws of q(z) from draws of the prior (0.5: it
      cannot);
    - ``heldout_elbo`` and ``train_test_gap``, elbo less heldout_elbo: of independent samples, so unpaired.

    Parameters
    ----------
    fit, data
        A fit of a model with an encoder; its own data if None.
    heldout
        Data that the training has not seen.
    num_data
        The most data that are looked at, chosen by the seed.
    seed, block
        As for :func:`ais_log_likelihood`.

    Raises
    ------
    TypeError, ValueError
        For fits of models without an encoder.
    """
    import pandas as pd

    check_count("num_data", num_data, least=10)
    check_count("seed", seed, least=0)
    check_fit("latent_diagnostics", fit)
    problem, of, params = at(fit, data)
    rng = np.random.default_rng([seed, 71])
    rows = _some(rows_of(problem), num_data, rng)
    n = len(next(iter(rows.values())))
    if n < 10:
        raise ValueError(f"data: expected at least 10 rows to look at the latents of, got {n}.")
    parts = of.elbo(params, rows, _ELBO_DRAWS, seed, block)
    drawn = {k: v[0] for k, v in of.draw(params, rows, 1, seed + 1, block).items()}
    mean, sd = _flat(of.moments(params, rows, seed, block))
    figures = {
        "elbo": (*_mean(parts["bound"]), "lower bound"),
        "log_lik": (*_mean(parts["log_lik"]), "part of the bound"),
        "kl": (*_mean(parts["kl"].sum(1)), "part of the bound"),
        **_aggregate(of, params, rows, drawn, (mean, sd), seed, block, rng),
    }
    if heldout is not None:
        other, of_other, _ = at(fit, heldout)
        theirs = _some(rows_of(other), num_data, rng)
        found = _mean(of_other.elbo(params, theirs, _ELBO_DRAWS, seed + 2, block)["bound"])
        figures["heldout_elbo"] = (*found, "lower bound")
        gap = figures["elbo"][0] - found[0]
        figures["train_test_gap"] = (
            gap,
            math.hypot(figures["elbo"][1], found[1]),
            "unpaired difference of bounds",
        )
    summary = pd.DataFrame.from_dict(figures, orient="index", columns=["value", "error", "kind"])
    names = [f"{k}[{i}]" for k, v in drawn.items() for i in range(v.reshape(len(v), -1).shape[1])]
    kl = parts["kl"] if parts["kl"].shape[1] == len(names) else _marginal_kl(mean, sd)
    return LatentDiagnostics(_table(names, kl, mean, sd), summary, n, fit.model.describe())


def _some(rows: Arrays, most: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    n = len(next(iter(rows.values())))
    take = np.sort(rng.choice(n, most, replace=False)) if n > most else np.arange(n)
    return {k: v[take] for k, v in rows.items()}


def _flat(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    parts = [np.concatenate([v[i].reshape(len(v[i]), -1) for v in found.values()], 1) for i in range(2)]
    return parts[0].astype(float), parts[1].astype(float)


def _mean(values: np.ndarray) -> tuple[float, float]:
    values = np.asarray(values, float)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def _marginal_kl(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """KL of normal marginals (n, q) to a standard normal; with correlations they do not sum to q's KL."""
    return np.asarray(0.5 * (mean**2 + sd**2 - 1) - np.log(sd))


def _table(names: list[str], kl: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    n = len(mean)
    center = mean.mean(0)
    square = (mean - center) ** 2
    activity = square.sum(0) / (n - 1)
    spread = square + sd**2  # its mean is the aggregate's variance
    columns = {
        "kl": kl.mean(0),
        "kl_error": kl.std(0, ddof=1) / math.sqrt(n),
        "activity": activity,
        "activity_error": square.std(0, ddof=1) / math.sqrt(n),
        "active": activity > ACTIVE,
        "mean": center,
        "mean_error": np.sqrt(spread.mean(0) / n),
        "variance": spread.mean(0),
        "variance_error": spread.std(0, ddof=1) / math.sqrt(n),
    }
    return pd.DataFrame(columns, index=pd.Index(names, name="latent"))


def _aggregate(
    of: Evaluator,
    params: Arrays,
    rows: Arrays,
    drawn: Arrays,
    moments: tuple[np.ndarray, np.ndarray],
    seed: int,
    block: int,
    rng: np.random.Generator,
) -> dict[str, tuple[float, float, str]]:
    """Draws of the aggregate posterior, one for each datum, against draws of the prior."""
    prior = of.prior(params, rows, seed + 3, block)
    a, b = (
        np.concatenate([v.reshape(len(v), -1) for v in s.values()], 1).astype(float) for s in (drawn, prior)
    )
    accuracy, error = classifier_test(a[:_CLASSIFIED], b[:_CLASSIFIED], rng)
    log_prior, log_q = _terms(of, params, rows, {k: v[None] for k, v in drawn.items()})
    mean, sd = moments
    own = (-0.5 * ((a - mean) / sd) ** 2 - np.log(sd) - 0.5 * math.log(2 * math.pi)).sum(1)
    # q is a diagonal normal if its log density is that, up to the rounding of standardised draws
    eps = float(np.finfo(next(iter(drawn.values())).dtype).eps)
    slack = 20 * eps * ((np.abs(a) / sd + 1) * (np.abs((a - mean) / sd) + 1)).sum(1)
    if (np.abs(own - log_q[0]) <= slack).all():  # pairs in closed form
        mixed = _pairs(a, mean, sd)
        log_prior, log_q = log_prior[0], log_q[0]
    else:
        few = min(len(a), _PAIRWISE)
        some = {k: v[:few] for k, v in rows.items()}
        mixed = np.empty(few)
        step = max(1, block // few)
        for first in range(0, few, step):
            points = {k: v[first : min(first + step, few)] for k, v in drawn.items()}
            grid = {k: np.broadcast_to(v[:, None], (len(v), few, *v.shape[1:])) for k, v in points.items()}
            each = _terms(of, params, some, grid)[1]
            mixed[first : first + len(each)] = np.logaddexp.reduce(each, axis=1) - math.log(few)
        log_prior, log_q = log_prior[0, :few], log_q[0, :few]
    limit = f"estimate, at most log n = {math.log(len(mixed)):.2f}"
    return {
        "information": (*_mean(log_q - mixed), limit),
        "aggregate_kl": (*_mean(mixed - log_prior), "estimate"),
        "c2st": (accuracy, error, "accuracy, 0.5 where nothing tells them apart"),
    }


def _side_by_side(values: Arrays) -> np.ndarray:
    """Latents (n, ...) by site as (n, q)."""
    return np.concatenate([v.reshape(len(v), -1) for v in values.values()], 1).astype(float)


def _terms(of: Evaluator, params: Arrays, rows: Arrays, values: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """log p(z) and log q(z | x) (s, n) at values (s, n, ...)."""
    _, log_prior, log_q = of.terms_at(params, rows, values)
    return log_prior.astype(float), log_q.astype(float)


def _pairs(z: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """log of the mean density, over the data's diagonal normals, of each draw."""
    from scipy.special import logsumexp

    log_det = np.log(sd).sum(1) + 0.5 * z.shape[1] * math.log(2 * math.pi)
    step = max(1, _ENTRIES // mean.size)  # bounds what is held at once
    out = []
    for first in range(0, len(z), step):
        gaps = (z[first : first + step, None, :] - mean) / sd
        out.append(logsumexp(-0.5 * (gaps**2).sum(-1) - log_det, axis=1) - math.log(len(mean)))
    return np.concatenate(out)


__all__ = ["ACTIVE", "LatentDiagnostics", "latent_diagnostics"]
