"""What a run gives: draws or a point, evidence, status, and the questions a user asks of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.core import AbstractModel, Engine, Evidence, Problem, Status

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ppl_lvm.predictive import LogPredictive, PredictiveCheck


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """The answer of one engine to one model and data set.

    Attributes
    ----------
    model, engine
        The model with its numbers filled in, and the settings that were used.
    backend
        "pyro", "numpyro" or "exact".
    problem
        The traced model and its data; None for a fit loaded without its data.
    draws
        Posterior draws, (chain, draw, ...) in constrained space; None for a point. ``posterior`` is the
        same, and raises for a point.
    params
        Guide parameters and network weights; for EM the point itself. Constrained, by flat name.
    evidence
        Log evidence with its kind; None where the engine gives none.
    sample_stats
        Per-draw statistics by ArviZ's names.
    groups
        Further datasets by group name (weighted proposal draws, the optimisation's history).
    log_likelihood, num_parameters
        Of a point: maximised log likelihood in nats, and the number of free parameters.
    status
        How the run ended.
    meta
        Seed, dtype, versions, wall time and settings as plain values.
    """

    model: AbstractModel
    engine: Engine
    backend: str
    problem: Problem | None
    draws: xr.Dataset | None = None
    params: Mapping[str, np.ndarray] = field(default_factory=dict)
    evidence: Evidence | None = None
    sample_stats: xr.Dataset | None = None
    groups: Mapping[str, Any] = field(default_factory=dict)
    log_likelihood: float | None = None
    num_parameters: int | None = None
    status: Status = field(default_factory=Status)
    meta: Mapping[str, Any] = field(default_factory=dict)

    # ---- what came out ---------------------------------------------------------------------------

    @property
    def is_point(self) -> bool:
        """Whether this is a point estimate, without a posterior."""
        return self.draws is None

    @property
    def posterior(self) -> xr.Dataset:
        """Posterior draws, dims (chain, draw, ...).

        Raises
        ------
        ValueError
            For a point estimate, which has no spread.
        """
        if self.draws is None:
            if self.model.trains_by_epochs:
                raise ValueError(
                    f"{self.model.describe()} has weights, which are a point (fit.params); "
                    "fit.encode(x).posterior has draws of the latents of data x."
                )
            raise ValueError(
                f"{type(self.engine).__name__} gives a point, which has no posterior or spread: use "
                "fit.params and fit.log_likelihood, or fit with SVI, ImportanceSampling or NUTS."
            )
        return self.draws

    @property
    def aic(self) -> float:
        """Akaike's criterion, 2 p - 2 log L (points only; lower is better)."""
        log_likelihood, p = self._point_figures("aic")
        return 2 * p - 2 * log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion, p log n - 2 log L (points only; lower is better).

        n counts rows; for sequences, their steps.
        """
        log_likelihood, p = self._point_figures("bic")
        return p * float(np.log(self.meta.get("sample_size") or self.meta["num_data"])) - 2 * log_likelihood

    def _point_figures(self, what: str) -> tuple[float, int]:
        if self.log_likelihood is None or self.num_parameters is None:
            raise ValueError(f"{what} is of a maximum-likelihood point; fit with EM, or rank by='loo'.")
        if not np.isfinite(self.log_likelihood):
            raise ValueError(f"{what}: {self.model.describe()} has no density, hence no likelihood to score.")
        return self.log_likelihood, self.num_parameters

    def summary(self, *, prob: float = 0.89) -> pd.DataFrame:
        """Mean, sd, equal-tailed interval, MCSE and ESS by quantity (R-hat for chains)."""
        from ppl_lvm.diagnostics import summary

        return summary(self, prob=prob)

    def diagnose(self, *, heldout: Any = None) -> list[Any]:
        """Findings about this fit, each with its figure and advice.

        Models with an encoder: also of what their latents carry (:func:`ppl_lvm.latent_diagnostics`), and of
        the train/test gap where ``heldout`` data are given.
        """
        from ppl_lvm.amortised import is_amortised
        from ppl_lvm.findings import by_alarm, diagnose

        found = diagnose(self)
        if not (self.is_point and is_amortised(self)):
            if heldout is not None:
                raise ValueError("heldout: expected None, but for a fit of a model with an encoder.")
            return found
        if self.problem is None:
            return found
        from ppl_lvm.gaps import latent_diagnostics

        return by_alarm([*found, *latent_diagnostics(self, heldout=heldout).findings])

    # ---- prediction ------------------------------------------------------------------------------

    def predict(self, data: Any = None) -> np.ndarray:
        """Most probable label of each row (n,), averaged over draws; for sequences the Viterbi path."""
        from ppl_lvm.predictive import predict

        return predict(self, data)

    def predict_proba(self, data: Any = None) -> np.ndarray:
        """Posterior probability of each label, (n, k), averaged over draws."""
        from ppl_lvm.predictive import predict_proba

        return predict_proba(self, data)

    def transform(self, data: Any = None, *, return_std: bool = False) -> Any:
        """Posterior mean of the continuous local latents, (n, q); with ``return_std`` (mean, sd).

        Models with networks: of the encoder's q(z | x), in closed form for Gaussians; for flows from 200
        draws, so that a mean has the standard error sd / sqrt(200).
        """
        from ppl_lvm.predictive import transform

        mean, sd = transform(self, data)
        return (mean, sd) if return_std else mean

    def inverse_transform(self, z: Any) -> np.ndarray:
        """Posterior mean of the data at latents z (n, q), (n, d)."""
        from ppl_lvm.predictive import inverse_transform

        return inverse_transform(self, z)

    def impute(self, data: Any = None, *, num_draws: int = 200, seed: int = 0) -> xr.Dataset:
        """The data with missing entries drawn from their posterior predictive, (chain, draw, n, d)."""
        from ppl_lvm.predictive import impute

        return impute(self, data, num_draws=num_draws, seed=seed)

    def forecast(
        self, data: Any = None, *, steps: int = 10, num_draws: int = 500, seed: int = 0
    ) -> xr.Dataset:
        """Draws of the next ``steps`` observations of each sequence (models of sequences)."""
        from ppl_lvm.predictive import forecast

        return forecast(self, data, steps=steps, num_draws=num_draws, seed=seed)

    def filter(self) -> Any:
        """An object that takes a sequence one observation at a time (models of sequences)."""
        from ppl_lvm.predictive import online_filter

        return online_filter(self)

    def score_samples(self, data: Any = None, *, num_particles: int = 5000) -> np.ndarray:
        """Log predictive density of each row, (n,) nats: log of the mean over draws.

        Models with networks (a VAE): the IWAE bound of ``num_particles`` given the trained weights.
        """
        return self.log_predictive(data, num_particles=num_particles).pointwise

    def score(self, data: Any = None) -> float:
        """Mean of :meth:`score_samples`, nats per datum."""
        return float(self.score_samples(data).mean())

    def sample(self, num: int = 1, *, seed: int = 0, **options: Any) -> Any:
        """New data from the posterior predictive (a draw of the globals for each), (num, d).

        ``options`` are the model's own, such as the ``length`` of sequences.
        """
        from ppl_lvm.predictive import sample

        return sample(self, num, seed, **options)

    def latents(self, data: Any = None, *, num_draws: int = 200, seed: int = 0) -> xr.Dataset:
        """Draws of the local latents given data and draws of the globals, (chain, draw, n, ...)."""
        from ppl_lvm.predictive import latents

        return latents(self, data, num_draws=num_draws, seed=seed)

    def log_predictive(self, data: Any = None, *, num_particles: int = 5000) -> LogPredictive:
        """Pointwise log predictive density with standard errors and kind."""
        from ppl_lvm.predictive import log_predictive

        return log_predictive(self, data, num_particles=num_particles)

    def encode(self, data: Any = None, *, num_draws: int = 1000, seed: int = 0) -> Fit:
        """The encoder's q(z | x) as a fit of ``lvm.condition(fit.model, fit)`` (models with networks)."""
        from ppl_lvm.amortised import encode

        return encode(self, data, num_draws=num_draws, seed=seed)

    def reconstruct(self, data: Any = None, *, num_draws: int = 0, seed: int = 0) -> np.ndarray:
        """Mean of p(x | z) at the encoder's mean of z, or averaged over its draws, (n, ...)."""
        from ppl_lvm.amortised import reconstruct

        return reconstruct(self, data, num_draws=num_draws, seed=seed)

    def sample_predictive(self, data: Any = None, *, num_draws: int = 500, seed: int = 0) -> xr.Dataset:
        """Replicated data, dims (chain, draw, ...), at the fit's data or at new ones."""
        from ppl_lvm.predictive import sample_predictive

        return sample_predictive(self, data, num_draws=num_draws, seed=seed)

    def check(self, statistic: Any, *, num_draws: int = 500, seed: int = 0) -> PredictiveCheck:
        """Posterior predictive check: statistic(replicated) against statistic(observed)."""
        from ppl_lvm.predictive import check

        return check(self, statistic, num_draws=num_draws, seed=seed)

    # ---- out -------------------------------------------------------------------------------------

    def to_arviz(self, *, log_likelihood: bool = True, posterior_predictive: bool = False) -> xr.DataTree:
        """A DataTree by ArviZ's schema; points have a group ``point_estimate`` and no posterior."""
        from ppl_lvm.arviz_export import to_arviz

        return to_arviz(self, log_likelihood=log_likelihood, posterior_predictive=posterior_predictive)

    def save(self, path: str | Path, *, data: bool = True) -> Path:
        """Write the fit to a folder: netCDF, safetensors and JSON (``data=False`` leaves data out)."""
        from ppl_lvm.storage import save

        return save(self, path, data=data)

    def to_html(
        self, path: str | Path, *, data: Any = None, labels: Any = None, image_shape: Any = None
    ) -> Path:
        """Write the fit's report, one self-contained page; returns its path.

        Models with networks (a VAE): training, samples, reconstructions and walks through latent space, at
        ``data`` (None: the fit's own), whose ``labels`` colour the latents and name directions;
        ``image_shape`` (h, w) or (c, h, w) draws flat vectors as images. Other fits: the report of
        :func:`ppl_lvm.compare`.
        """
        from ppl_lvm.report._single import write_fit_report

        return write_fit_report(self, path, data=data, labels=labels, image_shape=image_shape)

    def __repr__(self) -> str:
        lines = [
            f"Fit of {self.model.describe()} by {type(self.engine).__name__} on {self.backend}",
            f"  status    {self.status}",
        ]
        if self.draws is not None:
            kind = self.draws.attrs.get("draws", "draws")
            lines.append(f"  posterior {self.draws.sizes['chain']} x {self.draws.sizes['draw']} ({kind})")
        if self.log_likelihood is not None:
            lines.append(f"  point     log likelihood {self.log_likelihood:.3f} nats")
        if self.evidence is not None:
            lines.append(f"  evidence  {self.evidence}")
        if "wall_seconds" in self.meta:
            lines.append(f"  time      {self.meta['wall_seconds']:.2f} s, seed {self.meta.get('seed')}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from ppl_lvm.notebook import fit_html

        return fit_html(self)


def chain_dataset(
    problem: Problem | None,
    values: Mapping[str, np.ndarray],
    *,
    kind: str,
    event_dims: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Arrays (chain, draw, ...) as a Dataset with named dimensions.

    ``kind`` says how draws relate: "chain", "independent" or "resampled".
    """
    import pandas as pd
    import xarray as xr

    names = dict(problem.dims if problem is not None else {}) | dict(event_dims or {})
    labels = dict(problem.coords) if problem is not None else {}
    variables, coords = {}, {}
    for site, value in values.items():
        dims = names.get(site) or tuple(f"{site}_dim_{i}" for i in range(value.ndim - 2))
        variables[site] = (("chain", "draw", *dims), value)
        for dim, size in zip(dims, value.shape[2:], strict=True):
            own = labels.get(dim, labels.get(dim.removesuffix("_bis")))
            coords[dim] = own if own is not None and len(own) == size else pd.RangeIndex(size)
    if not values:
        return xr.Dataset(attrs={"draws": kind})
    first = next(iter(values.values()))
    # As pandas' index: of an array xarray asks dask what it is, and loads dask for it.
    coords |= {"chain": pd.RangeIndex(first.shape[0]), "draw": pd.RangeIndex(first.shape[1])}
    return xr.Dataset(variables, coords, attrs={"draws": kind})


def flat_draws(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    """Draws by site with chain and draw merged, (s, ...)."""
    return {
        str(k): v.transpose("chain", "draw", ...).values.reshape(-1, *v.shape[2:])
        for k, v in dataset.data_vars.items()
    }
