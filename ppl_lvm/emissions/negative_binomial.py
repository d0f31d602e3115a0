r"""Counts more spread out than Poisson's: :math:`x_{f} \mid z = j \sim \mathrm{NB}(\mu_{jf}, r_{jf})`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln

from ppl_lvm.emissions._base import Emission, Library, Values, own_states
from ppl_lvm.emissions._checks import check_counts, check_hyper, column_values
from ppl_lvm.emissions._priors import Array, Prior
from ppl_lvm.emissions._search import maximise
from ppl_lvm.emissions.poisson import LEAST_RATE, prior_rate_mean

LEAST_CONCENTRATION, MOST_CONCENTRATION = 1e-3, 1e5
"""Bounds of point estimates: the likelihood of counts no more spread than Poisson's grows for ever in r."""


@dataclass(frozen=True)
class NegativeBinomial(Emission):
    r"""Independent negative binomial counts per column, by mean and concentration.

    Sites ``rate`` (k, d), the means :math:`\mu`, positive, counts per row, with a Gamma(rate_shape,
    rate_shape / rate_mean) prior, and ``concentration`` (k, d), positive, with a Gamma(concentration_shape,
    concentration_rate) prior:

    .. math:: p(x \mid \mu, r) = \frac{\Gamma(x + r)}{\Gamma(r)\, x!}
        \Big(\frac{r}{r + \mu}\Big)^{r} \Big(\frac{\mu}{r + \mu}\Big)^{x},
        \qquad \mathrm{var}(x) = \mu + \mu^2 / r,

    Poisson as r grows ("NB2" of Cameron and Trivedi, *Regression Analysis of Count Data* (2013), section
    3.3). Point estimates keep r between 1e-3 and 1e5.

    Parameters
    ----------
    rate_shape
        Shape of the means' Gamma prior, positive.
    rate_mean
        Prior mean of the means, one number or one per column (counts). None: the column means.
    concentration_shape, concentration_rate
        Shape and rate of the Gamma prior of ``concentration``, positive.

    Raises
    ------
    ValueError
        Naming the field, for settings outside their range, or the column, for data that are not counts.
    """

    rate_shape: float = 1.5
    rate_mean: float | tuple[float, ...] | None = None
    concentration_shape: float = 2.0
    concentration_rate: float = 0.1

    def __post_init__(self) -> None:
        check_hyper(self, "rate_mean", positive=True)
        for name in ("rate_shape", "concentration_shape", "concentration_rate"):
            check_hyper(self, name, positive=True, optional=False)

    def check(self, x: Array, columns: Sequence[str]) -> None:
        check_counts(x, columns, "NegativeBinomial")

    def resolve(self, x: Array, num_states: int) -> NegativeBinomial:
        if self.rate_mean is not None:
            return self
        return dataclasses.replace(self, rate_mean=prior_rate_mean(x))

    def sites(self, num_states: int, num_columns: int) -> dict[str, Prior]:
        shape, dims = (num_states, num_columns), ("state", "feature")
        spread = ("concentration_shape", "concentration_rate")
        return {
            "rate": Prior("Gamma", ("rate_shape", "rate_rate"), shape, dims),
            "concentration": Prior("Gamma", spread, shape, dims),
        }

    def prior(self, num_states: int, num_columns: int) -> dict[str, Array]:
        names = ("rate_shape", "rate_mean", "concentration_shape", "concentration_rate")
        table = {name: column_values(name, getattr(self, name), num_columns) for name in names}
        table["rate_rate"] = table["rate_shape"] / table.pop("rate_mean")
        return table

    def num_parameters(self, num_states: int, num_columns: int) -> int:
        return 2 * num_states * num_columns

    def log_prob(self, lib: Library, params: Values, x: Any, seen: Any | None) -> Any:
        xp, gammaln_ = lib.xp, lib.special.gammaln
        mean, r = params["rate"], params["concentration"]
        counts = x if seen is None else x * seen
        none = -r * xp.log1p(mean / r)  # log p(0)
        zeros = none.sum(-1)[..., None] if seen is None else none @ seen.T
        ways = gammaln_(counts.T + r[..., None]).sum(-2) - gammaln_(r).sum(-1)[..., None]
        # where nothing was seen the count is 0, and its two terms cancel
        odds = xp.log(xp.maximum(mean, LEAST_RATE)) - xp.log(r + mean)
        return odds @ counts.T + zeros + ways - gammaln_(counts + 1.0).sum(-1)

    def row(self, dist: Any, params: Values, seen: Any | None) -> Any:
        mean, r = params["rate"], params["concentration"]
        each = dist.NegativeBinomial(r, logits=mean.log() - r.log())
        return (each if seen is None else each.mask(seen > 0)).to_event(1)

    def m_step(
        self, x: Array, seen: Array | None, weights: Array, prior: Values | None, current: Values | None
    ) -> dict[str, Array]:
        """The mean given r, then r given the mean (ECM): the mean's maximiser is free of r under ML."""
        share = np.ones_like(x) if seen is None else seen
        exposure = weights @ share
        total = weights @ (x * share)
        r = np.full(total.shape, 10.0) if current is None else np.asarray(current["concentration"], float)
        tables = [_Histogram.of(x[:, f], share[:, f], weights) for f in range(x.shape[1])]
        for _ in range(1 if current is not None or prior is None else 5):
            mean = _best_mean(total, exposure, r, prior)
            r = self._best_concentration(tables, mean, r, prior, seek=current is None)
        return {"rate": mean, "concentration": r}

    def _best_concentration(
        self, tables: list[_Histogram], mean: Array, r: Array, prior: Values | None, *, seek: bool
    ) -> Array:
        """r for each state and column: over the whole range, or near the present one; never worse."""
        out = r.copy()
        for f, table in enumerate(tables):

            def objective(log_r: Array, f: int = f, table: _Histogram = table) -> Array:
                at = np.exp(log_r)
                value = table.log_likelihood(mean[:, f], at)
                if prior is not None:
                    shape, rate = prior["concentration_shape"][f], prior["concentration_rate"][f]
                    value = value + (shape - 1.0) * log_r - rate * at
                return value

            now = np.log(r[:, f])
            least, most = np.log(LEAST_CONCENTRATION), np.log(MOST_CONCENTRATION)
            low, high = (least, most) if seek else (np.maximum(now - 3.0, least), np.minimum(now + 3.0, most))
            found = maximise(objective, np.broadcast_to(low, now.shape), np.broadcast_to(high, now.shape))
            out[:, f] = np.exp(np.where(objective(found) > objective(now), found, now))
        return out

    def sample(self, params: Values, states: Array, rng: np.random.Generator) -> Array:
        mean, r = own_states(params["rate"], states), own_states(params["concentration"], states)
        return rng.poisson(rng.gamma(r) * mean / r).astype(float)

    def features(self, params: Values) -> Array:
        return np.concatenate([np.log(params["rate"]), np.log(params["concentration"])], axis=-1)

    def moments(self, params: Values) -> tuple[Array, Array]:
        mean, r = params["rate"], params["concentration"]
        return mean, mean + mean**2 / r


@dataclasses.dataclass(frozen=True, eq=False)
class _Histogram:
    """Distinct counts (m,) of a column and their weights by state (k, m): far fewer than rows."""

    values: Array
    weights: Array

    @classmethod
    def of(cls, column: Array, seen: Array, weights: Array) -> _Histogram:
        values, index = np.unique(column[seen > 0], return_inverse=True)
        order = np.argsort(index, kind="stable")
        if not len(values):
            return cls(np.zeros(1), np.zeros((len(weights), 1)))
        starts = np.searchsorted(index[order], np.arange(len(values)))
        return cls(values, np.add.reduceat(weights[:, seen > 0][:, order], starts, axis=1))

    def log_likelihood(self, mean: Array, r: Array) -> Array:
        """Weighted log likelihood (k,), less what is free of both parameters."""
        r_, x = r[:, None], self.values
        odds = np.log(mean) - np.log(r + mean)
        terms = gammaln(x + r_) - gammaln(r_) + x * odds[:, None] - (r * np.log1p(mean / r))[:, None]
        return (self.weights * terms).sum(1)


def _best_mean(total: Array, exposure: Array, r: Array, prior: Values | None) -> Array:
    """The mean's maximiser given r: under the prior, the positive root of a quadratic.

    With A = total + a - 1 and prior rate b, A / mu - (total + r N) / (r + mu) - b = 0, that is
    b mu^2 + (r N + b r + 1 - a) mu - A r = 0.
    """
    if prior is None:
        return np.maximum(total / np.maximum(exposure, np.finfo(float).tiny), LEAST_RATE)
    shape, rate = prior["rate_shape"], prior["rate_rate"]
    product = np.maximum(total + shape - 1.0, 0.0) * r  # at a shape below 1 the mode can lie at 0
    half = 0.5 * (r * exposure + rate * r + 1.0 - shape)
    root = np.sqrt(half**2 + rate * product)
    with np.errstate(divide="ignore", invalid="ignore"):  # the branch that is not taken
        mean = np.where(half > 0.0, product / (half + root), (root - half) / rate)
    return np.maximum(mean, LEAST_RATE)
