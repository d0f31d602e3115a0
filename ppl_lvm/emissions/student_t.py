r"""Real numbers with outliers: :math:`x_{f} \mid z = j \sim t_{\nu_{jf}}(\mu_{jf}, \sigma_{jf})`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.emissions._base import Emission, Library, Values, own_states
from ppl_lvm.emissions._checks import check_hyper, column_spread, column_values
from ppl_lvm.emissions._priors import Array, Prior
from ppl_lvm.emissions._student_t_mstep import at_floor, m_step


@dataclass(frozen=True)
class StudentT(Emission):
    r"""Independent Student t columns: normal, but for outliers.

    .. math::

        \mu_{jf} \sim \mathrm{Normal}(m_f, s_f^2), \quad \sigma_{jf} \sim \mathrm{LogNormal}(a_f, b^2), \quad
        \nu_{jf} \sim \mathrm{Gamma}(2, 0.1)

    Sites, each (k, d): ``loc``, units of the data; ``scale``, positive, units of the data (not the sd, which
    is larger by the root of df / (df - 2) and infinite for df of at most 2); ``df``, degrees of freedom,
    positive. The prior of ``df`` is that of Juarez and Steel (2010), *Journal of Business and Economic
    Statistics* 28. Point estimates come from ECME (Liu and Rubin 1995, *Statistica Sinica* 5) and keep ``df``
    between 0.5 and 1000; under maximum likelihood scales are at least 1e-3 of the column's sd.

    Parameters
    ----------
    loc_mean, loc_scale
        Prior mean and sd of ``loc``, a number or one per column. None: the column medians, and twice the
        column spreads (sds).
    scale_loc
        Prior mean of the log scales, likewise. None: the log of the column sds over the root of k.
    scale_scale
        Prior sd of the log scales.
    df_shape, df_rate
        Shape and rate of the Gamma prior of ``df``, positive.

    Raises
    ------
    ValueError
        Naming the field, for settings outside their range, or the column, where a rule needs a spread and
        the column is constant.
    """

    loc_mean: float | tuple[float, ...] | None = None
    loc_scale: float | tuple[float, ...] | None = None
    scale_loc: float | tuple[float, ...] | None = None
    scale_scale: float = 0.75
    df_shape: float = 2.0
    df_rate: float = 0.1

    def __post_init__(self) -> None:
        for name in ("loc_mean", "loc_scale", "scale_loc"):
            check_hyper(self, name, positive=name == "loc_scale")
        for name in ("scale_scale", "df_shape", "df_rate"):
            check_hyper(self, name, positive=True, optional=False)
            if isinstance(getattr(self, name), tuple):
                raise ValueError(f"{name}: expected one number, got {getattr(self, name)!r}.")

    def check(self, x: Array, columns: Sequence[str]) -> None:
        """Every real number is legal."""

    def resolve(self, x: Array, num_states: int) -> StudentT:
        filled: dict[str, Any] = {}
        if self.loc_mean is None:
            filled["loc_mean"] = tuple(np.nanmedian(x, axis=0).tolist())
        if None in (self.loc_scale, self.scale_loc):
            spread = column_spread(x, "loc_scale and scale_loc")
            if self.loc_scale is None:
                filled["loc_scale"] = tuple((2.0 * spread).tolist())
            if self.scale_loc is None:
                filled["scale_loc"] = tuple(np.log(spread / np.sqrt(num_states)).tolist())
        return dataclasses.replace(self, **filled)

    def sites(self, num_states: int, num_columns: int) -> dict[str, Prior]:
        shape, dims = (num_states, num_columns), ("state", "feature")
        return {
            "loc": Prior("Normal", ("loc_mean", "loc_scale"), shape, dims),
            "scale": Prior("LogNormal", ("scale_loc", "scale_scale"), shape, dims),
            "df": Prior("Gamma", ("df_shape", "df_rate"), shape, dims),
        }

    def prior(self, num_states: int, num_columns: int) -> dict[str, Array]:
        by_column = ("loc_mean", "loc_scale", "scale_loc")
        table = {name: column_values(name, getattr(self, name), num_columns) for name in by_column}
        return table | {n: np.asarray(getattr(self, n)) for n in ("scale_scale", "df_shape", "df_rate")}

    def num_parameters(self, num_states: int, num_columns: int) -> int:
        return 3 * num_states * num_columns

    def log_prob(self, lib: Library, params: Values, x: Any, seen: Any | None) -> Any:
        xp, gammaln = lib.xp, lib.special.gammaln
        loc, scale, df = params["loc"], params["scale"], params["df"]
        top = gammaln(0.5 * (df + 1.0)) - gammaln(0.5 * df)
        top = top - 0.5 * xp.log(df) - 0.5 * math.log(math.pi) - xp.log(scale)
        z = (x.T - loc[..., None]) / scale[..., None]
        if seen is not None:
            z = z * seen.T
        tails = 0.5 * ((df + 1.0)[..., None] * xp.log1p(z**2 / df[..., None])).sum(-2)
        return (top.sum(-1)[..., None] if seen is None else top @ seen.T) - tails

    def row(self, dist: Any, params: Values, seen: Any | None) -> Any:
        each = dist.StudentT(params["df"], params["loc"], params["scale"])
        return (each if seen is None else each.mask(seen > 0)).to_event(1)

    def m_step(
        self, x: Array, seen: Array | None, weights: Array, prior: Values | None, current: Values | None
    ) -> dict[str, Array]:
        return m_step(x, seen, weights, prior, current)

    def collapsed(self, params: Values, x: Array, seen: Array | None) -> Array:
        return at_floor(params, x, seen)

    def sample(self, params: Values, states: Array, rng: np.random.Generator) -> Array:
        loc, scale, df = (own_states(params[name], states) for name in ("loc", "scale", "df"))
        return loc + scale * rng.standard_t(df)

    def features(self, params: Values) -> Array:
        return np.concatenate([params["loc"], np.log(params["scale"]), np.log(params["df"])], axis=-1)

    def moments(self, params: Values) -> tuple[Array, Array]:
        """The centre (the mean, where df exceeds 1) and the variance, infinite for df of at most 2."""
        df = params["df"]
        with np.errstate(divide="ignore", invalid="ignore"):  # df of 2 and less
            variance = np.where(df > 2.0, params["scale"] ** 2 * df / (df - 2.0), np.inf)
        return params["loc"], variance

    @property
    def finite_variance(self) -> bool:
        return False
