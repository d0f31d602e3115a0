"""A row whose groups of columns have distributions of their own, as one Pyro distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.distributions.util import broadcast_shape
from torch import Tensor


class Columns(TorchDistribution):
    """Independent groups of columns: ``rows`` have event shape (size of the group,), ``groups`` their places.

    The event is the whole row, (d,).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector

    def __init__(
        self, rows: Sequence[TorchDistribution], groups: Sequence[Sequence[int]], validate_args: Any = None
    ) -> None:
        self.rows, self.groups = list(rows), [list(group) for group in groups]
        batch = broadcast_shape(*(row.batch_shape for row in self.rows))
        width = sum(len(group) for group in self.groups)
        super().__init__(batch, torch.Size([width]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Columns:
        rows = [row.expand(torch.Size(batch_shape)) for row in self.rows]
        return Columns(rows, self.groups, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum over groups, (*batch)."""
        total = sum(row.log_prob(value[..., g]) for row, g in zip(self.rows, self.groups, strict=True))
        return torch.as_tensor(total).expand(broadcast_shape(self.batch_shape, value.shape[:-1]))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        raise NotImplementedError("Columns: groups may be discrete; use sample.")

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """One row for each batch entry."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        drawn = [row.expand(self.batch_shape).sample(torch.Size(sample_shape)) for row in self.rows]
        out = drawn[0].new_zeros(shape)
        for part, group in zip(drawn, self.groups, strict=True):
            out[..., group] = part.to(out.dtype)
        return out
