"""Which rows each step takes."""

from __future__ import annotations

import numpy as np


class Batches:
    """Epochs of all rows in random order, each from the seed and its number; ``size`` rows a step.

    Rows that do not fill a batch are left out of an epoch: which ones is drawn anew in each, so that the rows
    of any one step are a uniform draw without replacement, and n / size times their sum is unbiased.
    """

    def __init__(self, seed: int, num_data: int, size: int) -> None:
        self.seed, self.num_data, self.size = seed, num_data, size
        self.per_epoch = num_data // size
        self._dtype = np.int64 if num_data > 2**31 - 1 else np.int32
        self._epoch, self._order = -1, np.empty(0, self._dtype)

    def rows(self, first: int, count: int) -> np.ndarray:
        """Rows of steps ``first``, ``first + 1``, ... as (count, size)."""
        out = np.empty((count, self.size), self._dtype)
        for i in range(count):
            epoch, place = divmod(first + i, self.per_epoch)
            out[i] = self._order_of(epoch)[place * self.size : (place + 1) * self.size]
        return out

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.arange(self.num_data, dtype=self._dtype)
            np.random.default_rng([self.seed, 3, epoch]).shuffle(self._order)
        return self._order
