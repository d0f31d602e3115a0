"""The sites of an HMM, its padded rows, and the stationary distribution: what all three writings share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ppl_lvm.emissions import Emission
from ppl_lvm.emissions._base import numpy_library
from ppl_lvm.emissions._priors import Prior

Array = np.ndarray
INITIAL = ("free", "uniform", "stationary")
MARKOV_SITES = ("initial", "transition")


def site_table(num_states: int, num_columns: int, emission: Emission, initial: str) -> dict[str, Prior]:
    """All parameter sites in the order of the programs."""
    k = num_states
    table = {}
    if initial == "free":
        table["initial"] = Prior("Dirichlet", ("initial_concentration",), (k,), ("state",))
    table["transition"] = Prior("Dirichlet", ("transition_concentration",), (k, k), ("state", "next_state"))
    return table | emission.sites(k, num_columns)


class Rows(NamedTuple):
    """All steps of all sequences as rows in time-major order, row t S + s.

    ``x`` (T S, d), ``seen`` the same or None, ``valid`` (T, S): before the sequence's end.
    """

    x: Array
    seen: Array | None
    valid: Array

    @property
    def padded(self) -> bool:
        return not self.valid.all()


def rows_of(data: Mapping[str, Any]) -> Rows:
    """The program's arguments x (S, T, d), lengths and seen as rows."""
    x, seen = np.asarray(data["x"], dtype=float), data.get("seen")
    valid = np.arange(x.shape[1])[:, None] < np.asarray(data["lengths"])
    return Rows(time_major(x), None if seen is None else time_major(np.asarray(seen, dtype=float)), valid)


def time_major(x: Array) -> Array:
    """(S, T, d) -> (T S, d), columns contiguous: sums over rows are then 5 times as fast."""
    return np.asfortranarray(np.swapaxes(x, 0, 1).reshape(-1, x.shape[-1]))


def emission_values(values: Mapping[str, Any]) -> dict[str, Array]:
    """The sites that are the emission's."""
    return {n: np.asarray(v, dtype=float) for n, v in values.items() if n not in MARKOV_SITES}


def log_densities(emission: Emission, params: Mapping[str, Array], rows: Rows) -> Array:
    """log p(x_t | state j) (..., k, T, S); zero beyond the end and where nothing was observed."""
    found = emission.log_prob(numpy_library(), params, rows.x, rows.seen)
    found = np.asarray(found).reshape(*np.shape(found)[:-1], *rows.valid.shape)
    return np.where(rows.valid, found, 0.0) if rows.padded else found


def stationary(transition: Array) -> Array:
    r"""The :math:`\pi = \pi A` of matrices A (..., k, k), by :math:`\pi (I - A + 1 1^\top) = 1^\top`.

    Where A has several closed classes, so that there are many, the limit of slightly mixed chains is given.
    """
    k = transition.shape[-1]
    system = np.swapaxes(np.eye(k) - transition + 1.0, -1, -2)
    try:
        found = np.linalg.solve(system, np.ones((*transition.shape[:-1], 1)))[..., 0]
        bad = not np.isfinite(found).all() or bool((found < -1e-8).any())
    except np.linalg.LinAlgError:
        bad = True
    if bad:
        mixed = (1.0 - 1e-9) * transition + 1e-9 / k
        system = np.swapaxes(np.eye(k) - mixed + 1.0, -1, -2)
        found = np.linalg.solve(system, np.ones((*transition.shape[:-1], 1)))[..., 0]
    found = np.maximum(found, np.finfo(float).tiny)
    return np.asarray(found / found.sum(-1, keepdims=True))


def start_distribution(values: Mapping[str, Any], initial: str) -> Array:
    """p(first state) (..., k)."""
    if initial == "free":
        return np.asarray(values["initial"], dtype=float)
    transition = np.asarray(values["transition"], dtype=float)
    if initial == "stationary":
        return stationary(transition)
    return np.full(transition.shape[:-1], 1.0 / transition.shape[-1])
