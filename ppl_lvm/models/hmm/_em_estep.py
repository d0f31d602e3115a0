"""The E-step of Baum-Welch in NumPy: the reference, and the faster one for small data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ppl_lvm.emissions import Emission
from ppl_lvm.models.hmm import _forward
from ppl_lvm.models.hmm._layout import Rows, emission_values, log_densities, start_distribution

Array = np.ndarray


class Expected(NamedTuple):
    """What the E-step gives.

    ``log_likelihood`` of all sequences, nats; ``states`` (k, n) responsibilities of the valid rows in
    time-major order; ``first`` (k,) summed over sequences; ``pairs`` (k, k) expected transitions.
    """

    log_likelihood: float
    states: Array
    first: Array
    pairs: Array


EStep = Callable[[Mapping[str, Array]], Expected]


def e_step(emission: Emission, initial: str, rows: Rows) -> EStep:
    """A function of values (one draw) for the data in ``rows``."""

    def run(values: Mapping[str, Array]) -> Expected:
        one = {n: np.asarray(v, dtype=float)[None] for n, v in values.items()}
        log_obs = log_densities(emission, emission_values(one), rows)
        start = start_distribution(one, initial)
        found = _forward.smooth(start, one["transition"], log_obs, rows.valid)
        states = found.states[0].reshape(len(found.states[0]), -1)
        inside = states[:, rows.valid.ravel()] if rows.padded else states
        first = found.states[0, :, 0].sum(-1)
        return Expected(float(found.log_likelihood.sum()), inside, first, found.pairs[0])

    return run
