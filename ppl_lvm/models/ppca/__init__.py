r"""Probabilistic principal component analysis (Tipping and Bishop 1999).

Factor analysis (:mod:`ppl_lvm.models.factor_analysis`) with one noise sd for all columns:

.. math::

    \mathrm{loc}_f \sim \mathrm{Normal}(m_f, s_f^2), \quad
    W_{fj} \sim \mathrm{Normal}(0, l^2), \quad \sigma \sim \mathrm{LogNormal}(a, b^2), \quad
    z_i \sim \mathrm{Normal}(0, I_q), \quad x_i \sim \mathrm{Normal}(\mathrm{loc} + W z_i,\ \sigma^2 I)

The sites are those of factor analysis, but ``scale`` is one number. Its maximum likelihood is closed: with
eigenvalues and eigenvectors (lambda_j, u_j) of the covariance (divisor n),

.. math:: \sigma^2 = \frac{1}{d - q} \sum_{j > q} \lambda_j, \qquad W = U_q (\Lambda_q - \sigma^2 I)^{1/2},

up to a turn of the factors; as the noise goes to 0 this is ordinary PCA.

Sources: Tipping and Bishop (1999), *Journal of the Royal Statistical Society B* 61, equations 7 and 8; Bishop
(1999), *Advances in Neural Information Processing Systems* 11 (ARD); Minka (2000), the same, 13 (evidence).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.core import Array
from ppl_lvm.models.factor_analysis._base import FactorModel
from ppl_lvm.models.factor_analysis._checks import check_scalar
from ppl_lvm.models.factor_analysis._structure import Structure
from ppl_lvm.models.ppca._evidence import laplace_evidence

__all__ = ["PPCA", "laplace_evidence"]


@dataclass(frozen=True)
class PPCA(FactorModel):
    """Probabilistic PCA with ``latent_dim`` components; the module's page has the generative story.

    Parameters
    ----------
    latent_dim
        q, at least 1 and fewer than the columns of the data.
    loc_mean, loc_scale
        Prior mean and sd of ``loc`` by column (units of the data). None: the column means, and twice the root
        mean square of the column sds.
    loadings_scale
        Prior sd of the loadings, one number (units of the data), so that no turn is preferred, of the factors
        or of the data. None: the root mean square of the column sds divided by the root of q (with ``ard``
        not divided).
    scale_loc, scale_scale
        Prior mean and sd of the log noise sd. ``scale_loc`` None: the log of the root of half the mean
        column variance.
    scale
        A noise sd to hold fixed (units of the data), in place of the site. 0.0 is ordinary PCA: EM and
        ``transform`` work, and whatever needs a density says that there is none.
    ard, ard_shape, ard_rate, collapsed, anchors, keep_latents
        As in :class:`~ppl_lvm.models.factor_analysis.FactorAnalysis`.

    Raises
    ------
    TypeError, ValueError
        Naming the field, for settings outside their range.
    """

    latent_dim: int
    loc_mean: float | tuple[float, ...] | None = None
    loc_scale: float | tuple[float, ...] | None = None
    loadings_scale: float | None = None
    scale_loc: float | None = None
    scale_scale: float = 1.0
    scale: float | None = None
    ard: bool = False
    ard_shape: float = 0.5
    ard_rate: float = 0.005
    collapsed: bool = True
    anchors: tuple[int, ...] | None = None
    keep_latents: bool = False

    def __post_init__(self) -> None:
        value = self.scale
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value < np.inf):
            raise ValueError(f"scale: expected a number of at least 0, or None, got {value!r}.")
        if value is not None:
            object.__setattr__(self, "scale", float(value))
        if value == 0 and not self.collapsed:
            raise ValueError(
                "collapsed: without noise (scale=0.0) there is no density of x given z; use True."
            )
        self._check_shared()
        check_scalar(self, "loadings_scale", "scale_loc", "scale_scale", "ard_shape", "ard_rate")

    @property
    def structure(self) -> Structure:
        return Structure(
            self.latent_dim,
            tied=True,
            ard=bool(self.ard),
            fixed_scale=self.scale is not None,
            degenerate=self.scale == 0,
        )

    @property
    def _fixed_scale(self) -> float | None:
        return self.scale

    def describe(self) -> str:
        options = [f"latent_dim={self.latent_dim}"]
        options += ["ard=True"] if self.ard else []
        options += [f"scale={self.scale:g}"] if self.scale is not None else []
        return f"PPCA({', '.join(options)})"

    def _resolve_prior(self, mean: Array, spread: Array) -> dict[str, Any]:
        typical = float(np.sqrt((spread**2).mean()))
        rules = {
            "loc_mean": tuple(mean.tolist()),
            "loc_scale": 2.0 * typical,
            "loadings_scale": typical / (1.0 if self.ard else np.sqrt(self.latent_dim)),
            "scale_loc": float(np.log(typical * np.sqrt(0.5))),
        }
        return {k: v if getattr(self, k) is None else getattr(self, k) for k, v in rules.items()}
