"""What an HMM's draws are compared by when the order of the states means nothing. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.emissions import Emission
from ppl_lvm.models.hmm._layout import stationary

Array = np.ndarray
_LEAST = 1e-12


def features(emission: Emission, values: Mapping[str, Any]) -> Array:
    """Coordinates (..., k, f): the emission's, and the log odds of staying."""
    stay = np.clip(np.diagonal(values["transition"], axis1=-2, axis2=-1), _LEAST, 1.0 - _LEAST)
    odds = np.log(stay) - np.log1p(-stay)
    return np.concatenate([emission.features(values), odds[..., None]], axis=-1)


def invariants(emission: Emission, values: Mapping[str, Any]) -> dict[str, Array]:
    r"""Of the stationary process, with :math:`\pi = \pi A`.

    - ``stationary_mean``, ``stationary_sd`` (..., d): of one observation, units of the data, by the law of
      total variance; the sd is left out where it can be infinite.
    - ``sorted_stationary`` (..., k): the entries of pi, descending.
    - ``mean_run`` (...): mean steps between changes of state, :math:`1 / \sum_j \pi_j (1 - A_{jj})`.
    """
    transition = np.asarray(values["transition"], dtype=float)
    weights = stationary(transition)
    mean, variance = emission.moments(values)
    centre = np.einsum("...k,...kd->...d", weights, mean)
    out = {"stationary_mean": centre}
    if emission.finite_variance:
        total = variance + (mean - centre[..., None, :]) ** 2
        out["stationary_sd"] = np.sqrt(np.einsum("...k,...kd->...d", weights, total))
    leave = (weights * (1.0 - np.diagonal(transition, axis1=-2, axis2=-1))).sum(-1)
    out["sorted_stationary"] = -np.sort(-weights, axis=-1)
    if transition.shape[-1] > 1:
        out["mean_run"] = 1.0 / np.maximum(leave, _LEAST)
    return out
