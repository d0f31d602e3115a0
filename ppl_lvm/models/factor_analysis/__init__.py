r"""Factor analysis.

Generative story, for n rows of d columns and q factors:

.. math::

    \mathrm{loc}_f &\sim \mathrm{Normal}(m_f, s_f^2) \\
    W_{fj} &\sim \mathrm{Normal}(0, l_f^2) \\
    \sigma_f &\sim \mathrm{LogNormal}(a_f, b^2) \\
    z_i &\sim \mathrm{Normal}(0, I_q) \\
    x_{if} &\sim \mathrm{Normal}(\mathrm{loc}_f + (W z_i)_f,\ \sigma_f^2)

The factors are integrated out by default: x_i ~ Normal(loc, W W' + diag(sigma^2)), and missing entries (NaN)
with them, exactly. The likelihood then depends on the data through their counts, means and scatter alone, so
that a step of any engine costs the same for a thousand rows and for a million.

================ ======================= ===================================== ====================
site             symbol                  shape                                 support
================ ======================= ===================================== ====================
loc              loc                     (d,), units of the data               real
loadings         W                       (d, q), units of the data             real
precision        (ard) tau               (q,)                                  positive
factor_corr_tril (correlated) L          (q, q)                                Cholesky factor of a
                                                                               correlation matrix
scale            sigma, sds of the noise (d,), units of the data               positive
z                z                       (n, q), integrated out if collapsed   real
obs              x                       (n, d), NaN where missing             real
================ ======================= ===================================== ====================

*Turns of the factors.* W and W Q give the same density for every orthogonal Q, so W is parametrised by what
remains: with the rows of q ``anchors`` first, W = L Q where L is lower trapezoidal with a positive diagonal
and Q is uniform and independent of L. Under the normal prior on W, L_jj is l times a chi variable with q - j
degrees of freedom (j from 0) and the entries below it are normal as before (Leung and Drton 2016). The sites
are ``loadings_diag`` (q,) and ``loadings_lower``; ``loadings`` is put together from them. The posterior of
everything that no turn changes is that of the normal prior, whichever columns anchor it. After a fit all
draws of the loadings are turned onto one varimax-rotated orientation.

*ARD* (Bishop 1999): W_fj ~ Normal(0, l_f^2 / tau_j), tau_j ~ Gamma(shape, rate): surplus factors vanish.
*Mask* (confirmatory factor analysis): only entries where the mask is True are free (site ``loadings_free``);
with ``correlated``, z_i ~ Normal(0, R), R = L L' ~ LKJ.

Sources: Lawley and Maxwell, *Factor Analysis as a Statistical Method* (1971); Rubin and Thayer (1982),
*Psychometrika* 47; Geweke and Zhou (1996), *Review of Financial Studies* 9; Leung and Drton (2016),
*Statistics and Probability Letters* 111; Bishop (1999), *Advances in Neural Information Processing Systems*
11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.core import Array
from ppl_lvm.models._statistics import SufficientStatistics
from ppl_lvm.models.factor_analysis._base import FactorModel
from ppl_lvm.models.factor_analysis._checks import check_mask, check_number, check_scalar, per_column
from ppl_lvm.models.factor_analysis._structure import Structure

__all__ = ["FactorAnalysis", "SufficientStatistics"]


@dataclass(frozen=True)
class FactorAnalysis(FactorModel):
    """Factor analysis with ``latent_dim`` factors; the module's page has the generative story.

    Parameters
    ----------
    latent_dim
        q, at least 1 and fewer than the columns of the data. Above the Ledermann bound, where
        (d - q)^2 < d + q, the likelihood does not determine all parameters; the prior then does.
    loc_mean, loc_scale
        Prior mean and sd of ``loc`` by column (units of the data). None: the column means, and twice the
        column sds.
    loadings_scale
        Prior sd of the loadings by column (units of the data), the same for all factors, so that no turn of
        the factors is preferred. None: the column's sd divided by the root of the number of factors that it
        may load on (with ``ard`` the column's sd): the factors then explain as much as the column's
        variance a priori, whatever q.
    scale_loc
        Prior mean of the log noise sd by column. None: the log of the column's sd times the root of 1/2.
    scale_scale
        Prior sd of the log noise sd.
    ard
        Whether each factor has a precision of its own, which switches surplus factors off.
    ard_shape, ard_rate
        Gamma prior of the precisions. A factor's loadings then have a multivariate t prior with
        2 x shape degrees of freedom and scale sqrt(rate / shape) x ``loadings_scale``.
    mask
        (d, q) booleans, True where a column may load on a factor; None: everywhere.
    correlated
        Whether the factors are correlated; needs a mask, without which a turn undoes any correlation.
    factor_corr_concentration
        Concentration of the LKJ prior of their correlation; 1 is uniform.
    collapsed
        Whether z is integrated out. False keeps it as a site ``z`` (n, q); the posterior is the same.
    anchors
        q columns that fix the turn of the factors; they change no result. None: chosen from the data.
    keep_latents
        Whether ``Fit.posterior`` also holds draws of ``z``.

    Raises
    ------
    TypeError, ValueError
        Naming the field, for settings outside their range.
    """

    latent_dim: int
    loc_mean: float | tuple[float, ...] | None = None
    loc_scale: float | tuple[float, ...] | None = None
    loadings_scale: float | tuple[float, ...] | None = None
    scale_loc: float | tuple[float, ...] | None = None
    scale_scale: float = 1.0
    ard: bool = False
    ard_shape: float = 0.5
    ard_rate: float = 0.005
    mask: Any | None = None
    correlated: bool = False
    factor_corr_concentration: float = 2.0
    collapsed: bool = True
    anchors: tuple[int, ...] | None = None
    keep_latents: bool = False

    def __post_init__(self) -> None:
        check_number(self, "factor_corr_concentration", positive=True)
        check_scalar(self, "factor_corr_concentration")
        if self.mask is not None:
            if self.ard:
                raise ValueError("ard: with a mask the factors are given, none is surplus; leave one out.")
            object.__setattr__(self, "mask", check_mask(self.mask, self.latent_dim))
        if self.correlated and self.mask is None:
            raise ValueError(
                "correlated: needs a mask, without which turning the factors undoes any correlation."
            )
        self._check_shared()
        check_scalar(self, "scale_scale", "ard_shape", "ard_rate")

    @property
    def structure(self) -> Structure:
        return Structure(
            self.latent_dim, ard=bool(self.ard), mask=self.mask, correlated=bool(self.correlated)
        )

    def describe(self) -> str:
        options = [f"latent_dim={self.latent_dim}"]
        options += ["ard=True"] if self.ard else []
        options += ["mask=..."] if self.mask is not None else []
        options += ["correlated=True"] if self.correlated else []
        return f"FactorAnalysis({', '.join(options)})"

    def _prior(self, d: int) -> dict[str, Array]:
        return {
            **super()._prior(d),
            "factor_corr_concentration": np.asarray(self.factor_corr_concentration),
        }

    def _resolve_prior(self, mean: Array, spread: Array) -> dict[str, Any]:
        d = len(mean)
        if self.mask is not None and len(self.mask) != d:
            raise ValueError(f"mask: expected {d} rows (one per column of x), got {len(self.mask)}.")
        uses = np.full(d, self.latent_dim) if self.mask is None else np.asarray(self.mask).sum(1)
        share = np.ones(d) if self.ard else 1.0 / np.sqrt(np.maximum(uses, 1))
        rules = {
            "loc_mean": mean,
            "loc_scale": 2.0 * spread,
            "loadings_scale": spread * share,
            "scale_loc": np.log(spread * np.sqrt(0.5)),
        }
        given = {k: rules[k].tolist() if getattr(self, k) is None else getattr(self, k) for k in rules}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        return {k: tuple(per_column(k, v, d).tolist()) for k, v in values.items()}
