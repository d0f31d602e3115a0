"""Filtering of one observation at a time, equal to the forward recursion on all of them. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ppl_lvm.emissions import Emission
from ppl_lvm.emissions._base import numpy_library
from ppl_lvm.models.hmm._log_space import log_sum_exp

Array = np.ndarray


class Prediction(NamedTuple):
    """The next step: ``state`` (k,) probabilities, and ``mean`` and ``sd`` (d,) of the observation."""

    state: Array
    mean: Array
    sd: Array


class Filter:
    """The states of one running sequence, given all observations so far.

    Over m draws of the parameters, answers are averages with weights p(x_1..x_t | draw), normalised: the
    draws' posterior given also this sequence. With one draw (a point) they are the filter's own. Steps are
    in log space, so that no state is ever lost.

    Parameters
    ----------
    start, transition, params
        Start distributions (m, k), transition matrices (m, k, k), the emission's sites (m, ...).
    emission
        The model's emission.
    """

    def __init__(
        self, start: Array, transition: Array, params: Mapping[str, Array], emission: Emission
    ) -> None:
        with np.errstate(divide="ignore"):
            self._log_ahead = np.log(start)  # p(next state | all so far)
            self._log_transition = np.log(transition)
        self._params, self._emission = dict(params), emission
        self._log_likelihood = np.zeros(len(start))
        self._num_columns: int | None = None
        self.columns: list[str] | None = None  # names by which the entries of a pandas Series are found
        self.num_steps = 0

    def update(self, x: Any) -> Array:
        """Take the next observation (d,), NaN where missing; p(its state | all so far), (k,).

        Raises
        ------
        ValueError
            If the row has another number of columns, or values outside the emission's support.
        """
        if self.columns is not None and hasattr(x, "index") and hasattr(x, "to_numpy"):
            names = [str(name) for name in x.index]
            if sorted(names) != sorted(self.columns):
                raise ValueError(f"x: expected the columns {self.columns} of the fit, got {names}.")
            x = x.iloc[[names.index(name) for name in self.columns]].to_numpy(dtype=float)
        log_joint = self._log_ahead + self._log_densities(x)
        total = log_sum_exp(log_joint, 1)
        if not np.isfinite(total).any():
            raise ValueError(f"x: the observation {x!r} is impossible under every state; check its values.")
        self._log_likelihood = self._log_likelihood + total
        with np.errstate(invalid="ignore"):
            log_filtered = np.nan_to_num(log_joint - total[:, None], nan=-np.inf, neginf=-np.inf)
        self._log_ahead = log_sum_exp(log_filtered[:, :, None] + self._log_transition, 1)
        self.num_steps += 1
        return self._average(np.exp(log_filtered))

    @property
    def log_likelihood(self) -> float:
        """log of the mean over draws of p(x_1..x_t | draw), nats; for one draw its log likelihood."""
        return float(log_sum_exp(self._log_likelihood, 0) - np.log(len(self._log_likelihood)))

    def predict(self) -> Prediction:
        """The state and the observation of the next step, given all so far."""
        ahead = np.exp(self._log_ahead)
        mean, variance = self._emission.moments(self._params)
        first = np.einsum("mk,mkd->md", ahead, mean)
        second = np.einsum("mk,mkd->md", ahead, variance + mean**2)
        average, square = self._average(first), self._average(second)
        return Prediction(self._average(ahead), average, np.sqrt(np.maximum(square - average**2, 0.0)))

    def _average(self, each: Array) -> Array:
        weights = np.exp(self._log_likelihood - log_sum_exp(self._log_likelihood, 0))
        return np.asarray(weights @ each)

    def _log_densities(self, x: Any) -> Array:
        row = np.atleast_1d(np.asarray(x, dtype=float))
        if self._num_columns is None:
            self._num_columns = self._emission.moments(self._params)[0].shape[-1]
        if row.shape != (self._num_columns,):
            raise ValueError(f"x: expected one observation ({self._num_columns},), got shape {row.shape}.")
        missing = np.isnan(row)
        self._emission.check(row[None], [str(f) for f in range(len(row))])
        filled = np.where(missing, self._emission.fill, row)[None]
        seen = (~missing)[None].astype(float) if missing.any() else None
        return np.asarray(self._emission.log_prob(numpy_library(), self._params, filled, seen))[..., 0]
