"""Evaluations of an amortised NumPyro model over many data, in blocks of bounded size; NumPy in and out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends._numpyro import cached, signature
from ppl_lvm.backends._numpyro_amortised import programs_of
from ppl_lvm.backends.amortised import Arrays, Bounds, Moments, Rows, blocks_of, joined
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem


class JaxEvaluator:
    """See :class:`ppl_lvm.backends.amortised.Evaluator`."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        with jax_session(problem.dtype):
            self.programs = programs_of(problem)

    # ---- q -----------------------------------------------------------------------------------------

    def moments(self, params: Arrays, data: Rows, seed: int, block: int) -> Moments:
        def run(params: Any, key: Any, data: Any) -> Any:
            return self.programs.moments(params, key, data)

        parts = list(self._over("moments", run, params, data, seed, block))
        return joined(parts)

    def draw(self, params: Arrays, data: Rows, num: int, seed: int, block: int) -> Arrays:
        def run(params: Any, key: Any, data: Any) -> Any:
            return {n: jnp.moveaxis(v, 0, 1) for n, v in self.programs.draw(params, key, data, num).items()}

        rows = max(1, block // num)
        parts = list(self._over(("draw", num), run, params, data, seed, rows))
        return {n: np.moveaxis(np.concatenate([p[n] for p in parts]), 1, 0) for n in parts[0]}

    def gaussian(
        self, params: Arrays, data: Rows, seed: int, block: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Means (n, d) and Cholesky factors (n, d, d) of q(z | x); None where q is not normal."""
        parts = list(self._over("gaussian", self.programs.gaussian, params, data, seed, block))
        if parts[0] is None:
            return None
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    # ---- bounds ------------------------------------------------------------------------------------

    def elbo(self, params: Arrays, data: Rows, num: int, seed: int, block: int) -> Arrays:
        def run(params: Any, key: Any, data: Any) -> Any:
            terms = self.programs.terms(params, key, data, num)
            kl = (terms.log_q - terms.log_prior) if terms.kl is None else terms.kl.sum(-1)[None]
            each = terms.log_lik - kl
            error = each.std(0, ddof=1) / math.sqrt(num) if num > 1 else jnp.full(each.shape[1], jnp.nan)
            dims = kl.mean(0)[:, None] if terms.kl is None else terms.kl
            return {"bound": each.mean(0), "std_error": error, "log_lik": terms.log_lik.mean(0), "kl": dims}

        parts = list(self._over(("elbo", num), run, params, data, seed, max(1, block // num)))
        return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}

    def importance(
        self, params: Arrays, data: Rows, num: int, seed: int, block: int, alpha: float = 0.0
    ) -> Bounds:
        rows, particles, count = blocks_of(len(next(iter(data.values()))), num, block)
        power = 1.0 - alpha

        def run(params: Any, key: Any, data: Any) -> Any:
            def body(carry: Any, i: Any) -> Any:
                first, second = carry
                terms = self.programs.terms(params, jax.random.fold_in(key, i), data, particles)
                weights = power * terms.log_weight
                inside = i * particles + jnp.arange(particles) < num
                weights = jnp.where(inside[:, None], weights, -jnp.inf)
                first = jnp.logaddexp(first, jax.nn.logsumexp(weights, axis=0))
                second = jnp.logaddexp(second, jax.nn.logsumexp(2 * weights, axis=0))
                return (first, second), None

            size = next(iter(data.values())).shape[0]
            empty = jnp.full(size, -jnp.inf, jnp.dtype(self.problem.dtype))
            (first, second), _ = lax.scan(body, (empty, empty), jnp.arange(count))
            return first, second

        label = ("importance", num, particles, alpha)
        parts = list(self._over(label, run, params, data, seed, rows))
        first, second = (np.concatenate([np.asarray(p[i], np.float64) for p in parts]) for i in range(2))
        return Bounds.of_sums(first, second, num, power)

    def log_weights(self, params: Arrays, data: Rows, num: int, seed: int, block: int) -> np.ndarray:
        """(num, n): log p(x, z) - log q(z | x) of draws of q."""

        def run(params: Any, key: Any, data: Any) -> Any:
            return self.programs.terms(params, key, data, num).log_weight.T

        parts = list(self._over(("weights", num), run, params, data, seed, max(1, block // num)))
        return np.concatenate(parts).T

    # ---- data --------------------------------------------------------------------------------------

    def prior(self, params: Arrays, data: Rows, seed: int, block: int) -> Arrays:
        parts = list(self._over("prior", self.programs.prior, params, data, seed, block))
        return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}

    def observed(self, params: Arrays, data: Rows, values: Arrays, seed: int, block: int) -> Moments:
        def run(params: Any, key: Any, both: Any) -> Any:
            return self.programs.observed(params, key, both["data"], both["values"])

        parts = list(self._over("observed", run, params, {"data": data, "values": values}, seed, block))
        return joined(parts)

    def terms_at(
        self, params: Arrays, data: Rows, values: Arrays
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log p(x | z), log p(z), log q(z | x) at given latents (num, n, ...), (num, n) each."""

        def run(params: Any, key: Any, both: Any) -> Any:
            at = {k: jnp.moveaxis(v, 1, 0) for k, v in both["values"].items()}
            found = self.programs.terms(params, key, both["data"], num, at)
            return tuple(v.T for v in found[:3])

        num, n = next(iter(values.values())).shape[:2]
        given = {k: np.moveaxis(v, 0, 1) for k, v in values.items()}
        (found,) = self._over(("terms", num), run, params, {"data": data, "values": given}, 0, n)
        return tuple(v.T for v in found)

    # ---- blocks ------------------------------------------------------------------------------------

    def _cast(self, params: Arrays) -> dict[str, Any]:
        return {k: jnp.asarray(v, self.problem.dtype) for k, v in params.items()}

    def _over(
        self, label: Any, run: Callable[..., Any], params: Arrays, data: Any, seed: int, rows: int
    ) -> Iterator[Any]:
        """Results of ``run`` on blocks of rows of one size: one compiled program, padding at the end.

        Fewer rows than a block make one of the next power of two: data of about one size share a program.
        """
        n = len(jax.tree_util.tree_leaves(data)[0])
        rows = min(rows, 1 << (n - 1).bit_length())
        with jax_session(self.problem.dtype):
            given = self._cast(params)
            key = ("evaluate", label, self.programs.key, rows, signature((given, _shapes(data))))
            compiled = cached(key, lambda: jax.jit(run))
            for i, first in enumerate(range(0, n, rows)):
                take = np.arange(first, first + rows).clip(max=n - 1)
                part = jax.tree_util.tree_map(lambda v, take=take: jnp.asarray(v[take]), data)
                found = compiled(given, jax.random.fold_in(jax.random.key(seed), i), part)
                kept = min(rows, n - first)
                yield jax.tree_util.tree_map(lambda v, kept=kept: np.asarray(v)[:kept], found)


def _shapes(data: Mapping[str, Any]) -> Any:
    return jax.tree_util.tree_map(lambda v: np.zeros((0, *v.shape[1:]), v.dtype), data)
