"""The hidden Markov model as a Pyro program, in two forms of the same density."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.ops.indexing import Vindex
from torch import Tensor

from ppl_lvm.emissions import Emission
from ppl_lvm.emissions._priors import Prior
from ppl_lvm.models.hmm._layout import site_table
from ppl_lvm.models.hmm._pyro_forward import stationary
from ppl_lvm.models.hmm._pyro_sequence import MarkovSequence, of_state


def model(
    x: Tensor,
    lengths: Tensor,
    prior: Mapping[str, Tensor],
    seen: Tensor | None = None,
    *,
    num_states: int,
    emission: Emission,
    initial: str,
) -> None:
    """For work: one observed site per sequence, states summed out by the forward recursion.

    x (S, T, d) and the other arguments as in ``HMM.arguments``.
    """
    num_sequences, num_steps, d = x.shape
    table = site_table(num_states, d, emission, initial)
    start, transition, params = _parameters(table, prior, initial)
    with pyro.plate("sequence", num_sequences):
        own = {name: table[name] for name in params}
        whole = MarkovSequence(
            _beside_plate(start, 1),
            _beside_plate(transition, 2),
            emission,
            own,
            {name: _beside_plate(value, len(own[name].shape)) for name, value in params.items()},
            lengths,
            seen,
            num_steps,
            d,
        )
        pyro.sample("obs", whole, obs=x)


def markov_model(
    x: Tensor,
    lengths: Tensor,
    prior: Mapping[str, Tensor],
    seen: Tensor | None = None,
    *,
    num_states: int,
    emission: Emission,
    initial: str,
) -> None:
    """For reading and checking: a statement for each step, states enumerated.

    States beyond a sequence's end sum to one, so that only their observations are masked.
    """
    num_sequences, num_steps, d = x.shape
    table = site_table(num_states, d, emission, initial)
    start, transition, params = _parameters(table, prior, initial)
    state = None
    with pyro.plate("sequence", num_sequences, dim=-1):
        for t in pyro.markov(range(num_steps)):
            probs = start if state is None else Vindex(transition)[..., state, :]
            state = pyro.sample(f"state_{t}", dist.Categorical(probs), infer={"enumerate": "parallel"})
            row = emission.row(dist, of_state(table, params, state), None if seen is None else seen[:, t])
            with poutine.mask(mask=t < lengths):  # type: ignore[call-overload]  # a tensor of booleans
                pyro.sample(f"obs_{t}", row, obs=x[:, t])


def _parameters(
    table: Mapping[str, Prior], prior: Mapping[str, Tensor], initial: str
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Start distribution, transition matrix, and the emission's parameters, sampled from their priors."""
    values = {name: pyro.sample(name, site.build(dist, prior)) for name, site in table.items()}
    transition = values.pop("transition")
    if initial == "free":
        return values.pop("initial"), transition, values
    if initial == "stationary":
        return stationary(transition), transition, values
    k = transition.shape[-1]
    return torch.full(transition.shape[:-1], 1.0 / k, dtype=transition.dtype), transition, values


def _beside_plate(value: Tensor, event_dim: int) -> Tensor:
    """With a batch axis of length 1 for the plate: under particles there is one already."""
    if value.dim() > event_dim:
        return value
    return value.unsqueeze(0)
