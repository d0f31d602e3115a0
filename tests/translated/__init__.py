"""A zoo of plain Pyro models, written for the tests of the translation to JAX; none knows of ppl_lvm.

``ZOO`` maps names to entries: the function, a factory of its (small, seeded) data, and what it exercises.
"""

from translated import (
    assorted,
    counts,
    covariance,
    dynamics,
    ecology,
    gaussian_process,
    handlers,
    hidden_markov,
    item_response,
    missing,
    mixtures,
    networks,
    nonparametric,
    ordinal,
    regression,
    robust,
    schools,
    spatial,
    state_space,
    survival,
    time_series,
    topics,
)
from translated._registry import ZOO, Entry

FAMILIES = (
    regression, schools, item_response, mixtures, counts, gaussian_process, covariance, state_space,
    time_series, hidden_markov, topics, survival, networks, ordinal, robust, nonparametric, ecology, missing,
    spatial, dynamics, handlers, assorted,
)  # fmt: skip

__all__ = ["FAMILIES", "ZOO", "Entry"]
