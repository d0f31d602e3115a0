"""The E-step of the Gaussian mixture: the log-likelihood and the moments that an M-step needs, in one pass.

Two exact passes over tiles of rows, with the same result:

- *Natural*: each component is in an exponential family, log p(x, j) = b_j . phi(x), so that log densities
  are the matrix product B phi(x) and the moments are R phi(x)', R the responsibilities. Few operations,
  but it subtracts numbers of the size of |x|^2 / (least variance), x being in units of the data's spread
  about its centre.
- *Deviation*: x - loc_j first, then whitening, then moments of the whitened deviations. Twice the work,
  no such subtraction.

Which one runs is decided at every step by that very ratio (`CONDITION_LIMIT`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from threadpoolctl import ThreadpoolController

from ppl_lvm.models.gaussian_mixture._checks import Array
from ppl_lvm.models.gaussian_mixture._density import inverse_tril
from ppl_lvm.models.gaussian_mixture._point import Point, condition, log_constants, natural_parameters

CONDITION_LIMIT = 1e6
"""Up to it the natural pass loses a few times 2^-52 x 1e6 = 2e-10 nats a datum at most."""

_TILE_DOUBLES = 640_000  # about 5 MiB of features a tile: measured best on 1 MiB of L2 cache a core
_MAX_BLOCKS = 32  # partial sums: a fixed number, for a result that does not depend on that of threads
_THREAD_FLOPS = 2e7  # below about a millisecond of work threads cost more than they give
SMALLEST_COUNT = 1e-200


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of the data weighted by the responsibilities r.

    `count` (k,), sum_i r_ij; `mean` (k, d); `scatter`, sum_i r_ij (x_i - mean_j)(x_i - mean_j)', which is
    (k, d, d) for full, summed over components (d, d) for tied, its diagonal (k, d) for diag, its trace
    (k,) for spherical.
    """

    log_likelihood: float
    count: Array
    mean: Array
    scatter: Array


class EStep:
    """E-step on fixed data x (n, d), centred and of about unit spread. A context: threads live inside it.

    Large problems run their tiles in as many threads as BLAS is set to use. BLAS itself and OpenMP (in
    k-means) run on one meanwhile: they gain nothing on problems this small, and on a busy machine their
    threads spin (a triangular solve of size 2 took 3 ms, not 10 us). The settings are put back on leaving.
    """

    def __init__(self, x: Array, num_components: int, covariance: str) -> None:
        n, d = x.shape
        self.covariance = covariance
        self._with_one = np.ones((d + 1, n))  # a feature a row: every pass runs along contiguous memory
        self._with_one[:-1] = x.T
        self._total = x.T @ x if covariance == "tied" else None
        self._lower = np.tril_indices(d)
        self._quadratic = {"full": len(self._lower[0]), "tied": 0, "diag": d, "spherical": 1}[covariance]
        width = self._quadratic + d + 1
        self._tile = min(n, max(256, min(8192, _TILE_DOUBLES // width // 8 * 8)))
        self._deviation_tile = min(n, max(64, min(4096, _TILE_DOUBLES // (2 * num_components * d))))
        self._large = 4.0 * n * num_components * width > _THREAD_FLOPS
        self._local = threading.local()
        self._stack = ExitStack()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> EStep:
        controller = ThreadpoolController()
        threads = [library["num_threads"] for library in controller.select(user_api="blas").info()]
        workers = max(threads, default=os.cpu_count() or 1)
        self._stack.enter_context(controller.limit(limits=1))
        if self._large and workers > 1:
            self._pool = self._stack.enter_context(ThreadPoolExecutor(workers))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool = None
        self._stack.close()

    def __call__(self, point: Point) -> Moments:
        """Moments and log-likelihood at `point`."""
        if condition(point, self.covariance) <= CONDITION_LIMIT:
            return self._natural(point)
        return self._deviation(point)

    # -- the pass over rows ------------------------------------------------------------------------

    def _sum_over_tiles(
        self, tile_sums: Callable[[Array], tuple[float, Array]], size: int
    ) -> tuple[float, Array]:
        """Sum of `tile_sums` over tiles of (d + 1, rows), in an order that no scheduling changes."""
        starts = np.arange(0, self._with_one.shape[1], size)

        def block(some: Array) -> tuple[float, Array]:
            return add(tile_sums(self._with_one[:, start : start + size]) for start in some)

        blocks = np.array_split(starts, min(_MAX_BLOCKS, len(starts)))
        return add(map(block, blocks) if self._pool is None else self._pool.map(block, blocks))

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Array:
        """Memory of this thread's own, kept from tile to tile: fresh pages would cost more than the sums."""
        held: Array | None = getattr(self._local, name, None)
        size = int(np.prod(shape))
        if held is None or held.size < size:
            held = np.empty(size)
            setattr(self._local, name, held)
        return held[:size].reshape(shape)

    # -- natural parameters --------------------------------------------------------------------------

    def _natural(self, point: Point) -> Moments:
        coefficients = natural_parameters(point, self.covariance)

        def tile_sums(tile: Array) -> tuple[float, Array]:
            features = self._features(tile)
            shares = self._buffer("shares", (len(coefficients), tile.shape[1]))
            np.matmul(coefficients, features, out=shares)
            log_likelihood = normalise(shares)
            return log_likelihood, np.matmul(shares, features.T)

        log_likelihood, sums = self._sum_over_tiles(tile_sums, self._tile)
        q, d = self._quadratic, point.loc.shape[1]
        count, first, second = sums[:, -1], sums[:, q:-1], sums[:, :q]
        alive, safe = (count > SMALLEST_COUNT)[:, None], np.maximum(count, SMALLEST_COUNT)[:, None]
        mean = np.where(alive, first / safe, point.loc)
        if self._total is not None:
            whiten = inverse_tril(point.factor)
            log_likelihood -= 0.5 * float(np.sum((whiten @ self._total) * whiten))
            return Moments(log_likelihood, count, mean, self._total - (mean * count[:, None]).T @ mean)
        if self.covariance == "full":
            raw = np.zeros((len(count), d, d))
            raw[:, self._lower[0], self._lower[1]] = second
            raw[:, self._lower[1], self._lower[0]] = second
            scatter = raw - count[:, None, None] * mean[:, :, None] * mean[:, None, :]
        elif self.covariance == "diag":
            scatter = np.maximum(second - count[:, None] * mean**2, 0.0)
        else:
            scatter = np.maximum(second[:, 0] - count * (mean**2).sum(1), 0.0)
        return Moments(log_likelihood, count, mean, scatter)

    def _features(self, tile: Array) -> Array:
        """phi(x): the products that the family's quadratic form needs, then x, then 1; (width, rows)."""
        if self._quadratic == 0:
            return tile
        x, d = tile[:-1], len(tile) - 1
        features = self._buffer("features", (self._quadratic + d + 1, tile.shape[1]))
        if self.covariance == "full":
            row = 0
            for i in range(d):
                np.multiply(x[: i + 1], x[i], out=features[row : row + i + 1])
                row += i + 1
        elif self.covariance == "diag":
            np.multiply(x, x, out=features[:d])
        else:
            np.einsum("dt,dt->t", x, x, out=features[0])
        features[self._quadratic :] = tile
        return features

    # -- deviations from each component's own mean ------------------------------------------------------

    def log_likelihood(self, point: Point) -> float:
        """Summed log p(x), from deviations whatever the condition."""
        whitened = self._whitener(point)

        def tile_sums(tile: Array) -> tuple[float, Array]:
            return normalise(whitened(tile)[1]), np.zeros(1)

        return self._sum_over_tiles(tile_sums, self._deviation_tile)[0]

    def _whitener(self, point: Point) -> Callable[[Array], tuple[Array, Array]]:
        """A function of a tile: whitened deviations from each mean (k, d, rows), log p(x, j) (k, rows)."""
        (k, d), dense = point.loc.shape, self.covariance in ("full", "tied")
        whiten = inverse_tril(point.factor) if dense else 1.0 / point.factor.reshape(k, -1, 1)
        constant = log_constants(point, self.covariance)[:, None]

        def whitened(tile: Array) -> tuple[Array, Array]:
            shape = (k, d, tile.shape[1])
            z = np.subtract(tile[:-1], point.loc[:, :, None], out=self._buffer("deviation", shape))
            z = np.matmul(whiten, z, out=self._buffer("white", shape)) if dense else np.multiply(z, whiten, z)
            return z, constant - 0.5 * np.einsum("kdt,kdt->kt", z, z)

        return whitened

    def _deviation(self, point: Point) -> Moments:
        (k, d), dense = point.loc.shape, self.covariance in ("full", "tied")
        whitened = self._whitener(point)

        def tile_sums(tile: Array) -> tuple[float, Array]:
            z, shares = whitened(tile)
            log_likelihood = normalise(shares)
            weighted = np.multiply(z, shares[:, None], out=self._buffer("weighted", z.shape))
            if dense:
                products = np.matmul(weighted, np.swapaxes(z, 1, 2))
            else:
                products = np.einsum("kdt,kdt->kd", weighted, z)
            parts = [shares.sum(1)[:, None], weighted.sum(2), products.reshape(k, -1)]
            return log_likelihood, np.concatenate(parts, axis=1)

        log_likelihood, sums = self._sum_over_tiles(tile_sums, self._deviation_tile)
        count, second = sums[:, 0], sums[:, d + 1 :].reshape((k, d, d) if dense else (k, d))
        step = sums[:, 1 : d + 1] / np.maximum(count, SMALLEST_COUNT)[:, None]
        if dense:
            about_mean = second - count[:, None, None] * step[:, :, None] * step[:, None, :]
            scatter = point.factor @ about_mean @ np.swapaxes(point.factor, -1, -2)
            mean = point.loc + np.matmul(point.factor, step[:, :, None])[:, :, 0]
            scatter = scatter.sum(0) if self.covariance == "tied" else scatter
        else:
            scale = point.factor.reshape(k, -1)
            scatter = np.maximum(second - count[:, None] * step**2, 0.0) * scale**2
            mean = point.loc + scale * step
            scatter = scatter.sum(1) if self.covariance == "spherical" else scatter
        return Moments(log_likelihood, count, mean, scatter)


def add(parts: Iterable[tuple[float, Array]]) -> tuple[float, Array]:
    """Sums of both members, in the order given."""
    total, sums = 0.0, np.zeros(1)
    for log_likelihood, more in parts:
        total, sums = total + log_likelihood, sums + more
    return total, sums


def normalise(log_terms: Array) -> float:
    """Turn log p(x, j) (k, rows) into responsibilities in place; return the rows' summed log p(x)."""
    top = log_terms.max(0)
    log_terms -= top
    np.exp(log_terms, out=log_terms)
    total = log_terms.sum(0)
    log_terms /= total
    return float((np.log(total) + top).sum())
