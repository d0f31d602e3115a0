r"""Finite mixture of Gaussians.

Generative story, for n data points in d dimensions and k components:

.. math::

    \pi &\sim \mathrm{Dirichlet}(\alpha_1, \dots, \alpha_k) \\
    \mu_j &\sim \mathrm{Normal}(m, \mathrm{diag}(s^2)) \\
    \sigma_j &\sim \mathrm{LogNormal}(a, b^2)             \\
    \Lambda_j &\sim \mathrm{LKJCholesky}(\eta)  \\
    z_i &\sim \mathrm{Categorical}(\pi) \\
    x_i &\sim \mathrm{Normal}(\mu_{z_i}, \Sigma_{z_i}), \qquad
    \Sigma_j = \mathrm{diag}(\sigma_j) \Lambda_j \Lambda_j^\top \mathrm{diag}(\sigma_j)

========== =========================== ==================================== ==========================
site       symbol                      shape                                support
========== =========================== ==================================== ==========================
weights    :math:`\pi`                 (k,)                                 simplex
loc        :math:`\mu`                 (k, d), units of the data            real
scale      :math:`\sigma`              (k, d); tied (d,); spherical (k,)    positive, units of the data
corr_tril  :math:`\Lambda`             full (k, d, d); tied (d, d)          Cholesky factor of a
                                                                            correlation matrix
assignment :math:`z`                   (n,), summed out                     0..k-1
obs        :math:`x`                   (n, d)                               real
========== =========================== ==================================== ==========================

``corr_tril`` is absent for ``"diag"`` and ``"spherical"`` covariances, and in one dimension.

Sources: McLachlan and Peel, *Finite Mixture Models* (2000); for the LKJ prior Lewandowski, Kurowicka
and Joe (2009), *Journal of Multivariate Analysis* 100.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.core import AbstractModel, Array, Program, Values
from ppl_lvm.data import Data, bind_matrix
from ppl_lvm.models.gaussian_mixture._exact import GaussianMixtureExact
from ppl_lvm.streams import column_moments

COVARIANCES = ("full", "tied", "diag", "spherical")


@dataclass(frozen=True)
class GaussianMixture(AbstractModel):
    """A mixture of ``num_components`` Gaussians; the module's page has the generative story.

    Parameters
    ----------
    num_components
        k, at least 1.
    covariance
        ``"full"`` (each component its own), ``"tied"`` (one for all), ``"diag"`` or ``"spherical"``.
    concentration
        Dirichlet concentration of the weights: a positive number, or one per component (the
        components then differ in the prior, and draws are not relabelled).
    loc_mean, loc_scale
        Prior mean and sd of the component means, per feature (units of the data).
        None: the column means, and twice the column sds.
    scale_loc
        Prior mean of the log sds, per feature (a number for ``"spherical"``). None: the log of the
        column sds divided by the square root of k (for ``"spherical"`` of their root mean square).
    scale_scale
        Prior sd of the log sds.
    corr_concentration
        Concentration of the LKJ prior; 1 is uniform over correlation matrices.
    keep_latents
        Whether ``Fit.posterior`` also holds draws of ``assignment``.

    Raises
    ------
    ValueError
        Naming the field, for settings outside their range.
    """

    num_components: int
    covariance: str = "full"
    concentration: float | tuple[float, ...] = 2.0
    loc_mean: float | tuple[float, ...] | None = None
    loc_scale: float | tuple[float, ...] | None = None
    scale_loc: float | tuple[float, ...] | None = None
    scale_scale: float = 0.75
    corr_concentration: float = 2.0
    keep_latents: bool = False

    def __post_init__(self) -> None:
        k = self.num_components
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ValueError(f"num_components: expected a positive integer, got {k!r}.")
        if self.covariance not in COVARIANCES:
            raise ValueError(f"covariance: expected one of {COVARIANCES}, got {self.covariance!r}.")
        for name in (
            "concentration",
            "loc_mean",
            "loc_scale",
            "scale_loc",
            "scale_scale",
            "corr_concentration",
        ):
            self._check_number(name, positive=name not in ("loc_mean", "scale_loc"))
        if isinstance(self.concentration, tuple) and len(self.concentration) != k:
            raise ValueError(
                f"concentration: expected one number or {k} (one per component), "
                f"got {len(self.concentration)}."
            )

    def _check_number(self, name: str, *, positive: bool) -> None:
        value = getattr(self, name)
        if value is None:
            return
        try:
            array = np.asarray(value, dtype=float)
        except (TypeError, ValueError):
            raise TypeError(f"{name}: expected a number or a sequence of numbers, got {value!r}.") from None
        if array.ndim > 1 or not np.isfinite(array).all() or (positive and (array <= 0).any()):
            kind = "positive numbers" if positive else "finite numbers"
            raise ValueError(f"{name}: expected {kind}, got {value!r}.")
        plain = float(array) if array.ndim == 0 else tuple(float(v) for v in array)
        object.__setattr__(self, name, plain)

    def describe(self) -> str:
        return f"GaussianMixture(num_components={self.num_components}, covariance={self.covariance!r})"

    # ---- programs -------------------------------------------------------------------------------

    @property
    def _static(self) -> dict[str, Any]:
        return {"num_components": self.num_components, "covariance": self.covariance}

    @property
    def pyro(self) -> Program:
        from ppl_lvm.models.gaussian_mixture import _pyro

        return Program(
            functools.partial(_pyro.model, **self._static), functools.partial(_pyro.guide, **self._static)
        )

    @property
    def numpyro(self) -> Program:
        from ppl_lvm.models.gaussian_mixture import _numpyro

        return Program(
            functools.partial(_numpyro.model, **self._static),
            functools.partial(_numpyro.guide, **self._static),
        )

    @property
    def exact(self) -> GaussianMixtureExact:
        return GaussianMixtureExact(self.num_components, self.covariance)

    @property
    def cache_key(self) -> Any:
        return ("gaussian_mixture", self.num_components, self.covariance)

    @property
    def data_plate(self) -> str:
        return "data"

    @property
    def batched(self) -> tuple[str, ...]:
        return ("x",)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        scale = {"tied": ("feature",), "spherical": ("component",)}
        names = {
            "weights": ("component",),
            "loc": ("component", "feature"),
            "scale": scale.get(self.covariance, ("component", "feature")),
            "obs": ("feature",),
        }
        if self.covariance in ("full", "tied"):
            corr = ("feature", "feature_bis")
            names["corr_tril"] = corr if self.covariance == "tied" else ("component", *corr)
        names |= {
            "mixture_mean": ("feature",),
            "mixture_sd": ("feature",),
            "mixture_corr": ("feature", "feature_bis"),
            "sorted_weights": ("rank",),
        }
        return names

    # ---- symmetry -------------------------------------------------------------------------------

    @property
    def label_axes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Event axes indexed by the component, by site; None where the prior tells components apart."""
        if isinstance(self.concentration, tuple) and len(set(self.concentration)) > 1:
            return None
        return self.exact.label_axes if self.num_components > 1 else None

    @property
    def label_note(self) -> str:
        """Unequal concentrations shift the masses of the k! orders of the components, and remove none."""
        if self.num_components == 1 or self.label_axes is not None:
            return ""
        return f"of one order of the components: up to log {self.num_components}! nats may lie in the others"

    def label_features(self, values: Values) -> Array:
        """Coordinates (..., k, f) by which components are recognised (see :mod:`ppl_lvm.relabel`)."""
        return self.exact.label_features(values)

    def invariants(self, values: Values) -> dict[str, Array]:
        """Quantities that relabelling leaves alone: moments of the mixture and sorted weights."""
        return self.exact.invariants(values)

    # ---- data -----------------------------------------------------------------------------------

    def bind(self, raw: Any, *, fitting: bool = True) -> Data:
        why = f" for {self.num_components} components (fewer rows than components)"
        return bind_matrix(raw, min_rows=self.num_components if fitting else 1, why=why if fitting else "")

    def resolve(self, data: Any) -> GaussianMixture:
        """The model with data-dependent prior numbers filled in from x (n, d).

        Raises
        ------
        ValueError
            If a rule needs a spread and a column is constant, or a number of features disagrees.
        """
        x = self.bind(data).values["x"]
        d = x.shape[1]
        for name in ("loc_mean", "loc_scale", "scale_loc"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != (1 if self._scalar(name) else d):
                raise ValueError(f"{name}: expected one number or {d} (one per feature), got {len(value)}.")
        filled: dict[str, Any] = {}
        if self.loc_mean is None:
            filled["loc_mean"] = tuple(column_moments(x)[0].tolist())
        if None in (self.loc_scale, self.scale_loc):
            spread = self._column_spread(x)
            if self.loc_scale is None:
                filled["loc_scale"] = tuple((2.0 * spread).tolist())
            if self.scale_loc is None:
                typical = np.sqrt((spread**2).mean()) if self._scalar("scale_loc") else spread
                centre = np.log(typical / np.sqrt(self.num_components))
                filled["scale_loc"] = float(centre) if centre.ndim == 0 else tuple(centre.tolist())
        return dataclasses.replace(self, **filled)

    def _scalar(self, name: str) -> bool:
        return name == "scale_loc" and self.covariance == "spherical"

    def _column_spread(self, x: Array) -> Array:
        _, spread, largest = column_moments(x)
        flat = np.flatnonzero(spread <= 1e-12 * largest)
        if flat.size:
            raise ValueError(
                f"x: column {int(flat[0])} is constant, so the prior cannot be scaled to it; drop the "
                "column, or give loc_scale and scale_loc."
            )
        return spread

    def arguments(self, data: Data) -> dict[str, Any]:
        """x (n, d) and the prior's numbers as arrays; the model must be resolved."""
        x = data.values["x"]
        k, d = self.num_components, x.shape[1]
        for name in ("loc_mean", "loc_scale", "scale_loc"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != d:
                raise ValueError(f"x: expected {len(value)} features as in the fit, got {d}.")
        scale_loc = np.asarray(self.scale_loc, float)
        prior = {
            "concentration": np.full(k, self.concentration, float)
            if not isinstance(self.concentration, tuple)
            else np.asarray(self.concentration),
            "loc_mean": np.broadcast_to(np.asarray(self.loc_mean, float), (d,)).copy(),
            "loc_scale": np.broadcast_to(np.asarray(self.loc_scale, float), (d,)).copy(),
            "scale_loc": scale_loc if self._scalar("scale_loc") else np.broadcast_to(scale_loc, (d,)).copy(),
            "scale_scale": np.asarray(self.scale_scale),
            "corr_concentration": np.asarray(self.corr_concentration),
        }
        return {"x": x, "prior": prior}

    def to_settings(self) -> dict[str, Any]:
        return {"model": "GaussianMixture", "settings": dataclasses.asdict(self)}
