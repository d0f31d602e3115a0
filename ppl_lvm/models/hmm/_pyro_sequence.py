"""The distribution of a whole sequence under an HMM, states summed out, as a Pyro distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.ops.indexing import Vindex
from torch import Tensor

from ppl_lvm.emissions import Emission
from ppl_lvm.emissions._priors import Prior
from ppl_lvm.models.hmm._pyro_forward import log_likelihood


def with_states(table: Mapping[str, Prior], params: Mapping[str, Tensor], num_axes: int) -> dict[str, Tensor]:
    """Parameters whose axis of states is the last batch axis, with ``num_axes`` axes of length 1 before it.

    Parameters that are not per state get one more, in its place.
    """
    out = {}
    for name, value in params.items():
        site = table[name]
        at = value.dim() - len(site.shape)
        ones = (1,) * (num_axes + (0 if site.per_state else 1))
        out[name] = value.reshape(*value.shape[:at], *ones, *value.shape[at:])
    return out


def of_state(table: Mapping[str, Prior], params: Mapping[str, Tensor], state: Tensor) -> dict[str, Tensor]:
    """Parameters of the states ``state``, whose dimensions are batch dimensions on the right."""
    out = {}
    for name, value in params.items():
        event = (slice(None),) * (len(table[name].shape) - 1)
        out[name] = Vindex(value)[(..., state, *event)] if table[name].per_state else value
    return out


class MarkovSequence(TorchDistribution):
    """Sequences (T, d) of observations of a Markov chain of states, padded to T steps.

    Parameters
    ----------
    start, transition
        (..., 1, k) and (..., 1, k, k): the last batch axis is that of sequences.
    emission, table, params
        The distribution of a row, its sites, and their values (..., 1, *site).
    lengths, seen
        (S,) whole numbers, and (S, T, d), 1 where an entry was observed; None: all were.
    num_steps, num_columns
        T and d.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = False

    def __init__(
        self,
        start: Tensor,
        transition: Tensor,
        emission: Emission,
        table: Mapping[str, Prior],
        params: Mapping[str, Tensor],
        lengths: Tensor,
        seen: Tensor | None,
        num_steps: int,
        num_columns: int,
        batch_shape: torch.Size | None = None,
    ) -> None:
        self.start, self.transition, self.emission, self.table = start, transition, emission, table
        self.params, self.lengths, self.seen = dict(params), lengths, seen
        if batch_shape is None:
            own = [v.shape[: v.dim() - len(table[n].shape)] for n, v in params.items()]
            batch_shape = torch.broadcast_shapes(start.shape[:-1], transition.shape[:-2], lengths.shape, *own)
        super().__init__(torch.Size(batch_shape), torch.Size((num_steps, num_columns)), validate_args=False)

    @constraints.dependent_property(event_dim=2)
    def support(self) -> Any:
        return constraints.independent(constraints.real, 2)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MarkovSequence:
        return MarkovSequence(
            self.start,
            self.transition,
            self.emission,
            self.table,
            self.params,
            self.lengths,
            self.seen,
            self.event_shape[0],
            self.event_shape[1],
            torch.Size(batch_shape),
        )

    @property
    def valid(self) -> Tensor:
        """(S, T): before the sequence's end."""
        return torch.arange(self.event_shape[0]) < self.lengths[:, None]

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x_s), by the forward recursion."""
        params = with_states(self.table, self.params, 1)
        seen = None if self.seen is None else self.seen.unsqueeze(-2)
        each = self.emission.row(dist, params, seen).log_prob(value.unsqueeze(-2))
        log_obs = torch.where(self.valid.unsqueeze(-1), each, 0.0)
        found = log_likelihood(self.start.squeeze(-2), self.transition.squeeze(-3), log_obs, self.valid)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Ancestral simulation; steps beyond the end hold the emission's fill value."""
        shape = self._extended_shape(torch.Size(sample_shape))[:-2]
        with torch.no_grad():
            state = dist.Categorical(self.start.expand(*shape, -1)).sample()
            path = [state]
            for _ in range(1, self.event_shape[0]):
                state = dist.Categorical(Vindex(self.transition)[..., state, :]).sample()
                path.append(state)
            states = torch.stack(path, -1)
            params = of_state(self.table, with_states(self.table, self.params, 1), states)
            for name, value in params.items():  # the row of states stands where the axis of states was
                if not self.table[name].per_state:
                    params[name] = value.squeeze(-1 - len(self.table[name].shape))
            drawn = self.emission.row(dist, params, None).sample()
            drawn = drawn.expand(*shape, *self.event_shape)
            return torch.where(self.valid.unsqueeze(-1), drawn, self.emission.fill)
