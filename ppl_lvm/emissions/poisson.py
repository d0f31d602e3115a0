r"""Counts: :math:`x_{f} \mid z = j \sim \mathrm{Poisson}(\lambda_{jf})`, columns independent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.emissions._base import Emission, Library, Values, own_states
from ppl_lvm.emissions._checks import check_counts, check_hyper, column_values
from ppl_lvm.emissions._priors import Array, Prior
from ppl_lvm.streams import column_moments

LEAST_RATE = 1e-12
"""Point estimates of rates are at least this: 0 is not inside the support."""


def prior_rate_mean(x: Array) -> tuple[float, ...]:
    """The column means; for a column of zeros, half a count in all its rows."""
    mean = column_moments(x)[0]
    return tuple(np.where(mean > 0, mean, 0.5 / len(x)).tolist())


@dataclass(frozen=True)
class Poisson(Emission):
    r"""Independent Poisson counts per column.

    Site ``rate`` (k, d), positive, counts per row, with a Gamma(rate_shape, rate_shape / rate_mean) prior.

    .. math:: \log p(x_i \mid j) = \sum_f x_{if} \log \lambda_{jf} - \lambda_{jf} - \log x_{if}!,

    one matrix product (two with missing entries). Point estimates of rates are at least 1e-12.

    Parameters
    ----------
    rate_shape
        Shape of the rates' Gamma prior, positive: their prior sd is the mean divided by its root.
    rate_mean
        Prior mean of the rates, one number or one per column (counts). None: the column means.

    Raises
    ------
    ValueError
        Naming the field, for settings outside their range, or the column, for data that are not counts.
    """

    rate_shape: float = 1.5
    rate_mean: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_hyper(self, "rate_shape", positive=True, optional=False)
        check_hyper(self, "rate_mean", positive=True)

    def check(self, x: Array, columns: Sequence[str]) -> None:
        check_counts(x, columns, "Poisson")

    def resolve(self, x: Array, num_states: int) -> Poisson:
        if self.rate_mean is not None:
            return self
        return dataclasses.replace(self, rate_mean=prior_rate_mean(x))

    def sites(self, num_states: int, num_columns: int) -> dict[str, Prior]:
        shape = (num_states, num_columns)
        return {"rate": Prior("Gamma", ("rate_shape", "rate_rate"), shape, ("state", "feature"))}

    def prior(self, num_states: int, num_columns: int) -> dict[str, Array]:
        mean = column_values("rate_mean", self.rate_mean, num_columns)
        shape = column_values("rate_shape", self.rate_shape, num_columns)
        return {"rate_shape": shape, "rate_rate": shape / mean}

    def num_parameters(self, num_states: int, num_columns: int) -> int:
        return num_states * num_columns

    def log_prob(self, lib: Library, params: Values, x: Any, seen: Any | None) -> Any:
        xp, rate = lib.xp, params["rate"]
        counts = x if seen is None else x * seen
        expected = rate.sum(-1)[..., None] if seen is None else rate @ seen.T
        # a rate that underflowed to 0 would make 0 log 0
        logs = xp.log(xp.maximum(rate, xp.finfo(rate.dtype).tiny))
        return logs @ counts.T - expected - lib.special.gammaln(counts + 1.0).sum(-1)

    def row(self, dist: Any, params: Values, seen: Any | None) -> Any:
        each = dist.Poisson(params["rate"])
        return (each if seen is None else each.mask(seen > 0)).to_event(1)

    def m_step(
        self, x: Array, seen: Array | None, weights: Array, prior: Values | None, current: Values | None
    ) -> dict[str, Array]:
        total = weights @ (x if seen is None else x * seen)
        exposure = weights.sum(1)[:, None] if seen is None else weights @ seen
        if prior is not None:  # the mode of a Gamma density; at a shape below 1 it can lie at 0
            total, exposure = (
                np.maximum(total + prior["rate_shape"] - 1.0, 0.0),
                exposure + prior["rate_rate"],
            )
        rate = total / np.maximum(exposure, np.finfo(float).tiny)
        return {"rate": np.maximum(rate, LEAST_RATE)}

    def sample(self, params: Values, states: Array, rng: np.random.Generator) -> Array:
        return rng.poisson(own_states(params["rate"], states)).astype(float)

    def features(self, params: Values) -> Array:
        return np.log(params["rate"])

    def moments(self, params: Values) -> tuple[Array, Array]:
        return params["rate"], params["rate"]
