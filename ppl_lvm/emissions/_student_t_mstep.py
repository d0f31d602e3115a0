"""ECME for Student t columns (Liu and Rubin 1995, Statistica Sinica 5, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from ppl_lvm.emissions._base import Values
from ppl_lvm.emissions._gaussian_moments import FLOOR_SHARE, column_moments, diagonal_moments
from ppl_lvm.emissions._priors import Array
from ppl_lvm.emissions._search import maximise

LEAST_DF, MOST_DF = 0.5, 1000.0
_START_CYCLES = 10


def m_step(
    x: Array, seen: Array | None, weights: Array, prior: Values | None, current: Values | None
) -> dict[str, Array]:
    """Next parameters; see ``Emission.m_step``.

    A t variable is normal with variance scale^2 / u, u ~ Gamma(df / 2, df / 2). Given E[u | x] at the present
    parameters, loc and then scale have closed forms; df is then maximised on the objective itself. None of
    the three lowers it.
    """
    cycle = _Cycle(x, np.ones_like(x) if seen is None else seen, weights, prior)
    if current is not None:
        return cycle(dict(current), seek=False)
    moments = diagonal_moments(x, seen, weights)
    _, variance = column_moments(x, seen)
    alive = moments.count > 1e-10
    spread = np.where(alive, moments.scatter, variance) / np.where(alive, moments.count, 1.0)
    params = {
        "loc": moments.mean,
        "scale": np.sqrt(np.maximum(spread, FLOOR_SHARE * variance)),
        "df": np.full(spread.shape, 10.0),
    }
    for _ in range(_START_CYCLES):
        params = cycle(params, seek=True)
    return params


def at_floor(params: Values, x: Array, seen: Array | None) -> Array:
    """States (k,) with a scale within a factor of sqrt(2) of the floor."""
    floor = FLOOR_SHARE * column_moments(x, seen)[1]
    return np.asarray((np.asarray(params["scale"]) ** 2 < 2.0 * floor).any(-1))


@dataclass(frozen=True, eq=False)
class _Cycle:
    x: Array
    seen: Array
    weights: Array
    prior: Values | None

    def __call__(self, params: dict[str, Array], *, seek: bool) -> dict[str, Array]:
        loc, scale, df = (np.asarray(params[name], dtype=float) for name in ("loc", "scale", "df"))
        share = self.weights[:, :, None] * self.seen  # (k, n, d)
        z = (self.x - loc[:, None]) / scale[:, None]
        heavy = share * (df[:, None] + 1.0) / (df[:, None] + z**2)
        loc = self._loc(heavy, loc, scale)
        scale = self._scale(heavy, share, loc, scale)
        square = ((self.x - loc[:, None]) / scale[:, None]) ** 2
        return {"loc": loc, "scale": scale, "df": self._df(share, square, df, seek)}

    def _loc(self, heavy: Array, loc: Array, scale: Array) -> Array:
        count = heavy.sum(1)
        alive = count > 1e-10
        step = (heavy * (self.x - loc[:, None])).sum(1) / np.where(alive, count, 1.0)
        mean = np.where(alive, loc + step, loc)
        if self.prior is None:
            return mean
        shrink = (scale / self.prior["loc_scale"]) ** 2
        return mean + shrink * (self.prior["loc_mean"] - mean) / (count + shrink)

    def _scale(self, heavy: Array, share: Array, loc: Array, scale: Array) -> Array:
        scatter = (heavy * (self.x - loc[:, None]) ** 2).sum(1)
        count = share.sum(1)
        if self.prior is None:
            _, variance = column_moments(self.x, self.seen)
            alive = count > 1e-10
            raised = np.maximum(scatter / np.where(alive, count, 1.0), FLOOR_SHARE * variance)
            return np.where(alive, np.sqrt(raised), scale)
        from ppl_lvm.emissions._modes import log_scale_mode  # scipy.optimize is slow to load

        mode = log_scale_mode(scatter, count, self.prior["scale_loc"], float(self.prior["scale_scale"]))
        return np.asarray(np.exp(mode))

    def _df(self, share: Array, square: Array, df: Array, seek: bool) -> Array:
        count = share.sum(1)

        def objective(log_df: Array) -> Array:
            at = np.exp(log_df)
            value = count * (gammaln(0.5 * (at + 1.0)) - gammaln(0.5 * at) - 0.5 * log_df)
            value -= 0.5 * (at + 1.0) * (share * np.log1p(square / at[:, None])).sum(1)
            if self.prior is not None:
                value += (self.prior["df_shape"] - 1.0) * log_df - self.prior["df_rate"] * at
            return np.asarray(value)

        now = np.log(df)
        low, high = np.log(LEAST_DF), np.log(MOST_DF)
        if not seek:
            low, high = np.maximum(now - 1.0, low), np.minimum(now + 1.0, high)
        ends = np.broadcast_to(low, now.shape), np.broadcast_to(high, now.shape)
        found = maximise(objective, *ends, num_grid=15 if seek else 5)
        return np.exp(np.where(objective(found) > objective(now), found, now))
