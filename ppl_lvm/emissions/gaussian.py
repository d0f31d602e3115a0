r"""Real numbers: :math:`x \mid z = j \sim \mathrm{Normal}(\mu_j, \Sigma_j)`, columns correlated or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.emissions._base import Emission, Library, Values, own_states
from ppl_lvm.emissions._checks import check_hyper, column_spread, column_values
from ppl_lvm.emissions._gaussian_density import by_column, log_prob, padded
from ppl_lvm.emissions._gaussian_mstep import at_floor, m_step
from ppl_lvm.emissions._priors import Array, Prior
from ppl_lvm.streams import column_moments

COVARIANCES = ("full", "tied", "diag", "spherical")


@dataclass(frozen=True)
class Gaussian(Emission):
    r"""A normal distribution per state, with the sites, priors and rules of ``models.GaussianMixture``.

    .. math::

        \mu_j \sim \mathrm{Normal}(m, \mathrm{diag}(s^2)), \quad
        \sigma_j \sim \mathrm{LogNormal}(a, b^2), \quad \Lambda_j \sim \mathrm{LKJCholesky}(\eta), \quad
        \Sigma_j = \mathrm{diag}(\sigma_j) \Lambda_j \Lambda_j^\top \mathrm{diag}(\sigma_j)

    Sites: ``loc`` (k, d), units of the data; ``scale``, positive, units of the data, (k, d), for "tied"
    (d,), for "spherical" (k,); ``corr_tril`` (k, d, d), for "tied" (d, d), Cholesky factors of correlation
    matrices, absent for "diag" and "spherical" and in one dimension. Missing coordinates are integrated
    out: what remains is the normal of the observed ones.

    Parameters
    ----------
    covariance
        ``"full"`` (each state its own), ``"tied"`` (one for all), ``"diag"`` or ``"spherical"``.
    loc_mean, loc_scale
        Prior mean and sd of ``loc``, a number or one per column. None: the column means, and twice the
        column sds.
    scale_loc
        Prior mean of the log sds, likewise (a number for "spherical"). None: the log of the column sds
        divided by the square root of k (for "spherical" of their root mean square).
    scale_scale
        Prior sd of the log sds.
    corr_concentration
        Concentration of the LKJ prior; 1 is uniform over correlation matrices.

    Raises
    ------
    ValueError
        Naming the field, for settings outside their range, or the column, where a rule needs a spread and
        the column is constant.
    """

    covariance: str = "full"
    loc_mean: float | tuple[float, ...] | None = None
    loc_scale: float | tuple[float, ...] | None = None
    scale_loc: float | tuple[float, ...] | None = None
    scale_scale: float = 0.75
    corr_concentration: float = 2.0

    def __post_init__(self) -> None:
        if self.covariance not in COVARIANCES:
            raise ValueError(f"covariance: expected one of {COVARIANCES}, got {self.covariance!r}.")
        for name in ("loc_mean", "loc_scale", "scale_loc"):
            check_hyper(self, name, positive=name == "loc_scale")
        for name in ("scale_scale", "corr_concentration"):
            check_hyper(self, name, positive=True, optional=False)
            if isinstance(getattr(self, name), tuple):
                raise ValueError(f"{name}: expected one number, got {getattr(self, name)!r}.")

    # ---- data ------------------------------------------------------------------------------------

    def check(self, x: Array, columns: Sequence[str]) -> None:
        """Every real number is legal."""

    def resolve(self, x: Array, num_states: int) -> Gaussian:
        filled: dict[str, Any] = {}
        if self.loc_mean is None:
            filled["loc_mean"] = tuple(column_moments(x)[0].tolist())
        if None in (self.loc_scale, self.scale_loc):
            spread = column_spread(x, "loc_scale and scale_loc")
            if self.loc_scale is None:
                filled["loc_scale"] = tuple((2.0 * spread).tolist())
            if self.scale_loc is None:
                typical = np.sqrt((spread**2).mean()) if self.covariance == "spherical" else spread
                centre = np.log(typical / np.sqrt(num_states))
                filled["scale_loc"] = float(centre) if centre.ndim == 0 else tuple(centre.tolist())
        return dataclasses.replace(self, **filled)

    # ---- parameters ------------------------------------------------------------------------------

    def sites(self, num_states: int, num_columns: int) -> dict[str, Prior]:
        k, d = num_states, num_columns
        shape, dims = {
            "tied": ((d,), ("feature",)),
            "spherical": ((k,), ("state",)),
        }.get(self.covariance, ((k, d), ("state", "feature")))
        tied = self.covariance == "tied"
        table = {
            "loc": Prior("Normal", ("loc_mean", "loc_scale"), (k, d), ("state", "feature")),
            "scale": Prior("LogNormal", ("scale_loc", "scale_scale"), shape, dims, per_state=not tied),
        }
        if self.covariance in ("full", "tied") and d > 1:
            states, names = ((), ()) if tied else ((k,), ("state",))
            corr_dims = (*names, "feature", "feature_bis")
            given = ("corr_concentration",)
            table["corr_tril"] = Prior("LKJCholesky", given, (*states, d, d), corr_dims, per_state=not tied)
        return table

    def prior(self, num_states: int, num_columns: int) -> dict[str, Array]:
        names = ["loc_mean", "loc_scale", "scale_loc"]
        table = {name: column_values(name, getattr(self, name), num_columns) for name in names}
        if self.covariance == "spherical":
            table["scale_loc"] = column_values("scale_loc", self.scale_loc, 1)[0]
        table["scale_scale"] = np.asarray(self.scale_scale)
        table["corr_concentration"] = np.asarray(self.corr_concentration)
        return table

    def num_parameters(self, num_states: int, num_columns: int) -> int:
        k, d = num_states, num_columns
        sizes = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}
        return k * d + sizes[self.covariance]

    # ---- densities -------------------------------------------------------------------------------

    def log_prob(self, lib: Library, params: Values, x: Any, seen: Any | None) -> Any:
        return log_prob(lib, params, x, seen, self.covariance)

    def row(self, dist: Any, params: Values, seen: Any | None) -> Any:
        loc, scale = params["loc"], params["scale"]
        if "corr_tril" in params:
            tril = scale[..., None] * params["corr_tril"]
            if seen is None:
                return dist.MultivariateNormal(loc, scale_tril=tril)
            mean, covariance = padded(loc, tril @ tril.mT, seen)
            return dist.MultivariateNormal(mean, covariance_matrix=covariance)
        each = dist.Normal(loc, scale[..., None] if self.covariance == "spherical" else scale)
        return (each if seen is None else each.mask(seen > 0)).to_event(1)

    # ---- point estimates, draws, summaries ---------------------------------------------------------

    def m_step(
        self, x: Array, seen: Array | None, weights: Array, prior: Values | None, current: Values | None
    ) -> dict[str, Array]:
        return m_step(x, seen, weights, prior, current, self.covariance)

    def collapsed(self, params: Values, x: Array, seen: Array | None) -> Array:
        return at_floor(params, x, seen, self.covariance)

    def sample(self, params: Values, states: Array, rng: np.random.Generator) -> Array:
        loc = own_states(params["loc"], states)
        noise = rng.standard_normal(loc.shape)
        if "corr_tril" in params:
            corr = params["corr_tril"]
            tied = self.covariance == "tied"
            corr = corr[..., None, :, :] if tied else own_states(corr, states, event_dim=2)
            noise = (corr @ noise[..., None])[..., 0]
        scale = params["scale"]
        if self.covariance == "tied":
            return loc + scale[..., None, :] * noise
        return loc + own_states(by_column(scale, self.covariance), states) * noise

    def features(self, params: Values) -> Array:
        if self.covariance == "tied":
            return np.asarray(params["loc"])
        log_scale = np.log(by_column(params["scale"], self.covariance))
        return np.concatenate([params["loc"], log_scale], axis=-1)

    def moments(self, params: Values) -> tuple[Array, Array]:
        scale = by_column(params["scale"], self.covariance)
        return params["loc"], np.broadcast_to(scale**2, np.shape(params["loc"]))
