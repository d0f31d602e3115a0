"""The mixture as a Pyro model (the readable statement of the model)."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
from torch import Tensor

from ppl_lvm.emissions import Emission
from ppl_lvm.emissions._pyro import row_given, sample_params


def model(
    x: Tensor,
    prior: Mapping[str, Tensor],
    seen: Tensor | None = None,
    *,
    num_components: int,
    emission: Emission,
) -> None:
    """Enumerated mixture; x (n, d), ``prior`` and ``seen`` (n, d) as in ``Mixture.arguments``."""
    n, d = x.shape
    weights = pyro.sample("weights", dist.Dirichlet(prior["concentration"]))
    params = sample_params(emission, prior, num_components, d)
    with pyro.plate("data", n):
        assignment = pyro.sample("assignment", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("obs", row_given(emission, params, d, assignment, seen), obs=x)
