r"""What a Gaussian mixture has in closed form: joint, marginal, responsibilities, and EM. NumPy only.

The model, its sites and their supports are those of `ppl_lvm.models.gaussian_mixture`; labels are summed out
by log-sum-exp over components,

.. math:: p(x_i \mid \pi, \mu, \Sigma) = \sum_j \pi_j \, \mathrm{Normal}(x_i; \mu_j, \Sigma_j).

Source: McLachlan and Peel, *Finite Mixture Models* (2000), chapters 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.models.gaussian_mixture._checks import (
    COVARIANCES,
    Array,
    Values,
    check_prior,
    check_values,
    check_x,
)
from ppl_lvm.models.gaussian_mixture._density import log_joint_chunks, log_prior, log_sum_exp

if TYPE_CHECKING:
    from ppl_lvm.models._restarts import Recall
    from ppl_lvm.models.gaussian_mixture._em import EMResult, Progress


@dataclass(frozen=True)
class GaussianMixtureExact:
    """Closed forms of a mixture of `num_components` Gaussians.

    Every method takes `values`, a mapping from site name to array with any draw axes on the left (the same on
    every site; other names are ignored), and `data`, a mapping with

    - `x`: (n, d), finite, in any units; and
    - `prior`, where it is used: `concentration` (k,), `loc_mean` (d,), `loc_scale` (d,), `scale_loc` (d,)
      or, for "spherical", a number, `scale_scale` and `corr_concentration`, numbers.

    Sites: `weights` (k,) on the simplex; `loc` (k, d) in the units of x; `scale` > 0, standard deviations
    in the units of x, (k, d) for "full" and "diag", (d,) for "tied", (k,) for "spherical"; `corr_tril`,
    Cholesky factors of correlation matrices, (k, d, d) for "full", (d, d) for "tied", absent otherwise
    and for d = 1. Densities are in nats.

    Raises
    ------
    TypeError, ValueError
        For settings out of range; in the methods, for a site, datum or hyperparameter that is missing,
        misshapen or outside its support. The message names it.
    """

    num_components: int
    covariance: str

    def __post_init__(self) -> None:
        if isinstance(self.num_components, bool) or not isinstance(self.num_components, (int, np.integer)):
            raise TypeError(
                f"num_components: expected an integer >= 1, got {self.num_components!r}; pass a plain int"
            )
        if self.num_components < 1:
            raise ValueError(
                f"num_components: expected an integer >= 1, got {self.num_components}; use at least 1"
            )
        if self.covariance not in COVARIANCES:
            raise ValueError(
                f"covariance: expected one of {COVARIANCES}, got {self.covariance!r}; pick one of these"
            )

    # -- densities -----------------------------------------------------------------------------------

    def log_prior(self, values: Mapping[str, Any], data: Mapping[str, Any]) -> Array:
        """Log density (...) of the continuous sites in constrained space, normalised (LKJ included)."""
        num_features = check_x(data).shape[1]
        draws, flat = self._flat(values, num_features)
        prior = check_prior(data, self.num_components, self.covariance, num_features)
        return log_prior(flat, prior).reshape(draws)

    def log_likelihood(self, values: Mapping[str, Any], data: Mapping[str, Any]) -> Array:
        """Log p(x_i | values), labels summed out, (..., n). Memory beyond the result is bounded."""
        x = check_x(data)
        draws, flat = self._flat(values, x.shape[1])
        result = np.empty((len(flat["loc"]), len(x)))
        for chunk, rows, log_terms in log_joint_chunks(flat, x, self.covariance):
            result[chunk, rows] = log_sum_exp(log_terms)
        return result.reshape(*draws, len(x))

    def predict_proba(self, values: Mapping[str, Any], data: Mapping[str, Any]) -> Array:
        """Responsibilities p(assignment_i = j | x_i, values), (..., n, k), summing to 1 over j."""
        x = check_x(data)
        draws, flat = self._flat(values, x.shape[1])
        result = np.empty((len(flat["loc"]), len(x), self.num_components))
        for chunk, rows, log_terms in log_joint_chunks(flat, x, self.covariance):
            shares = np.exp(log_terms - log_terms.max(1, keepdims=True))
            result[chunk, rows] = np.moveaxis(shares / shares.sum(1, keepdims=True), 1, 2)
        return result.reshape(*draws, len(x), self.num_components)

    def log_joint(self, values: Mapping[str, Any], data: Mapping[str, Any], assignment: Any) -> Array:
        """Log prior plus log p(x, assignment | values) for labels (n,) in 0..k-1, (...)."""
        x = check_x(data)
        labels = np.asarray(assignment)
        if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"assignment: expected ({len(x)},) integers, one per row of x, got {labels.dtype} "
                f"{labels.shape}; pass labels such as predict_proba(...).argmax(-1)"
            )
        if labels.min() < 0 or labels.max() >= self.num_components:
            raise ValueError(
                f"assignment: expected labels in 0..{self.num_components - 1}, got {labels.min()} to "
                f"{labels.max()}; number components from 0"
            )
        draws, flat = self._flat(values, x.shape[1])
        total = log_prior(flat, check_prior(data, self.num_components, self.covariance, x.shape[1]))
        for chunk, rows, log_terms in log_joint_chunks(flat, x, self.covariance):
            chosen = np.take_along_axis(log_terms, labels[None, None, rows], axis=1)
            total[chunk] += chosen[:, 0].sum(-1)
        return total.reshape(draws)

    # -- draws and starting points ---------------------------------------------------------------------

    def sample(self, values: Mapping[str, Any], num: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`num` new data for every draw: `obs` (..., num, d) and `assignment` (..., num)."""
        if num < 0:
            raise ValueError(f"num: expected a number of rows >= 0, got {num}; ask for at least one")
        draws, flat = self._flat(values, self._num_features(values))
        weights, loc, (scale, tril) = flat["weights"], flat["loc"], self._factors(flat)
        edges = np.cumsum(weights, -1)[:, :-1]
        uniform = rng.random((len(weights), num))
        assignment = (uniform[:, :, None] >= edges[:, None, :]).sum(-1)
        noise = rng.standard_normal((len(weights), num, loc.shape[-1]))
        obs = np.empty_like(noise)
        for j in range(self.num_components):
            made = noise
            if tril is not None:
                made = noise @ np.swapaxes(tril[:, j if self.covariance == "full" else 0], -1, -2)
            made = loc[:, j, None, :] + scale[:, j, None, :] * made
            np.copyto(obs, made, where=(assignment == j)[:, :, None])
        return {"obs": obs.reshape(*draws, *obs.shape[1:]), "assignment": assignment.reshape(*draws, num)}

    def initial_values(self, data: Mapping[str, Any], rng: np.random.Generator) -> Values:
        """A start from k-means, strictly inside every support; see `_start.kmeans_point` for the rule."""
        # here, since scikit-learn and scipy.optimize are slow to load
        from ppl_lvm.models.gaussian_mixture._start import kmeans_values

        return kmeans_values(check_x(data, self.num_components), self.num_components, self.covariance, rng)

    # -- point estimates --------------------------------------------------------------------------------

    def num_parameters(self, data: Mapping[str, Any]) -> int:
        """Free parameters, for AIC and BIC: k - 1 weights, k d means, and the covariances."""
        k, d = self.num_components, check_x(data).shape[1]
        covariance = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}
        return k - 1 + k * d + covariance[self.covariance]

    def em(
        self,
        data: Mapping[str, Any],
        *,
        num_init: int = 10,
        tol: float = 1e-6,
        max_iter: int = 1000,
        rng: np.random.Generator | None = None,
        start: Mapping[str, Any] | None = None,
        estimate: str = "ml",
        variance_floor: float | None = None,
        progress: Progress | None = None,
        recall: Recall | None = None,
    ) -> EMResult:
        """Maximum likelihood ("ml") or maximum posterior ("map") by EM; see `_em.em` for every argument."""
        from ppl_lvm.models.gaussian_mixture._em import em

        return em(
            data,
            self.num_components,
            self.covariance,
            num_init=num_init,
            tol=tol,
            max_iter=max_iter,
            rng=rng,
            start=start,
            estimate=estimate,
            variance_floor=variance_floor,
            progress=progress,
            recall=recall,
        )

    # -- labels ------------------------------------------------------------------------------------------

    @property
    def label_axes(self) -> dict[str, tuple[int, ...]]:
        """Event axes, counted from the first, that run over components; sites not named have none."""
        axes: dict[str, tuple[int, ...]] = {"weights": (0,), "loc": (0,)}
        if self.covariance != "tied":
            axes["scale"] = (0,)
        if self.covariance == "full":
            axes["corr_tril"] = (0,)  # absent from the values when d = 1
        return axes

    def label_features(self, values: Mapping[str, Any]) -> Array:
        """Real-valued coordinates (..., k, f) of each component, by which draws are relabelled.

        Log weight, then loc (d), then, unless tied, log scale (d; spherical: 1).
        """
        draws, flat = self._flat(values, self._num_features(values))
        tiny = np.finfo(np.float64).tiny
        parts = [np.log(np.maximum(flat["weights"], tiny))[..., None], flat["loc"]]
        if self.covariance != "tied":
            log_scale = np.log(flat["scale"])
            parts.append(log_scale[..., None] if self.covariance == "spherical" else log_scale)
        features = np.concatenate(parts, axis=-1)
        return features.reshape(*draws, *features.shape[1:])

    def invariants(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """Quantities that relabelling leaves alone.

        Of one new datum, by the law of total variance: `mixture_mean` (..., d) and `mixture_sd` (..., d)
        in the units of x and, for d > 1, `mixture_corr` (..., d, d); and `sorted_weights` (..., k),
        descending.
        """
        num_features = self._num_features(values)
        draws, flat = self._flat(values, num_features)
        weights, (scale, tril) = flat["weights"], self._factors(flat)
        mean = np.einsum("sk,skd->sd", weights, flat["loc"])
        away = np.sqrt(weights)[:, :, None] * (flat["loc"] - mean[:, None, :])
        covariance = np.swapaxes(away, 1, 2) @ away
        if tril is None:
            diagonal = np.arange(num_features)
            covariance[:, diagonal, diagonal] += np.einsum("sk,skd->sd", weights, scale**2)
        else:
            for j in range(self.num_components):
                root = np.sqrt(weights[:, j, None]) * scale[:, j]
                factor = root[:, :, None] * tril[:, j if self.covariance == "full" else 0]
                covariance += factor @ np.swapaxes(factor, 1, 2)
        sd = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        result = {"mixture_mean": mean, "mixture_sd": sd, "sorted_weights": -np.sort(-weights, axis=-1)}
        if num_features > 1:
            corr = covariance / (sd[:, :, None] * sd[:, None, :])
            corr[:, np.arange(num_features), np.arange(num_features)] = 1.0
            result["mixture_corr"] = corr
        return {name: value.reshape(*draws, *value.shape[1:]) for name, value in result.items()}

    # -- helpers -----------------------------------------------------------------------------------------

    def _flat(self, values: Mapping[str, Any], num_features: int) -> tuple[tuple[int, ...], Values]:
        return check_values(values, self.num_components, self.covariance, num_features)

    def _num_features(self, values: Mapping[str, Any]) -> int:
        if "loc" not in values or np.ndim(values["loc"]) < 2:
            raise ValueError(
                "values: expected the site 'loc' of shape (..., k, d), got none; pass all sites of the model"
            )
        return int(np.shape(values["loc"])[-1])

    def _factors(self, flat: Values) -> tuple[Array, Array | None]:
        """Scales (draws, k, d), and correlation factors (draws, k or 1, d, d) where there are any."""
        scale = flat["scale"]
        scale = {"tied": scale[:, None, :], "spherical": scale[..., None]}.get(self.covariance, scale)
        tril = flat.get("corr_tril")
        tril = tril[:, None] if tril is not None and self.covariance == "tied" else tril
        return np.broadcast_to(scale, flat["loc"].shape), tril
