"""Emissions inside Pyro programs: the parameter sites, and a row's distribution at an enumerated state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.ops.indexing import Vindex
from torch import Tensor

from ppl_lvm.emissions._base import Emission


def sample_params(
    emission: Emission, prior: Mapping[str, Tensor], num_states: int, num_columns: int
) -> dict[str, Tensor]:
    """A sample statement for each of the emission's sites, in order."""
    table = emission.sites(num_states, num_columns)
    return {name: pyro.sample(name, site.build(dist, prior)) for name, site in table.items()}


def row_given(
    emission: Emission, params: Mapping[str, Tensor], num_columns: int, state: Tensor, seen: Tensor | None
) -> Any:
    """The distribution of a row of ``num_columns`` whose state is ``state``: any shape, enumerated too.

    ``Vindex`` keeps batch dimensions right where particles or enumeration add some on the left.
    """
    own = {}
    for name, site in emission.sites(1, num_columns).items():  # only which axes sites have matters here
        value = params[name]
        if site.per_state:
            value = Vindex(value)[(..., state, *[slice(None)] * (len(site.shape) - 1))]
        own[name] = value
    return emission.row(dist, own, seen)
