"""Evaluations of an amortised Pyro model over many data, in blocks of bounded size; NumPy in and out."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyro
import torch

from ppl_lvm.backends._pyro_amortised import AmortisedPrograms
from ppl_lvm.backends._pyro_trace import HoldParams, to_torch
from ppl_lvm.backends.amortised import Arrays, Bounds, Moments, Rows, blocks_of, joined
from ppl_lvm.backends.session import torch_session
from ppl_lvm.core import Problem


class TorchEvaluator:
    """See :class:`ppl_lvm.backends.amortised.Evaluator`."""

    def __init__(self, problem: Problem, guide: Any = None) -> None:
        self.problem, self.programs = problem, AmortisedPrograms(problem, guide)

    def moments(self, params: Arrays, data: Rows, seed: int, block: int) -> Moments:
        parts = list(self._over(self.programs.moments, params, data, seed, block))
        return joined(parts)

    def draw(self, params: Arrays, data: Rows, num: int, seed: int, block: int) -> Arrays:
        rows = max(1, block // num)
        parts = list(self._over(lambda args: self.programs.draw(args, num), params, data, seed, rows))
        return {n: torch.cat([p[n] for p in parts], 1).numpy() for n in parts[0]}

    def elbo(self, params: Arrays, data: Rows, num: int, seed: int, block: int) -> Arrays:
        def run(args: Any) -> Any:
            terms = self.programs.terms(args, num)
            kl = (terms.log_q - terms.log_prior) if terms.kl is None else terms.kl.sum(-1)[None]
            each = terms.log_lik - kl
            error = each.std(0) / math.sqrt(num) if num > 1 else torch.full(each.shape[1:], math.nan)
            dims = kl.mean(0)[:, None] if terms.kl is None else terms.kl
            return {"bound": each.mean(0), "std_error": error, "log_lik": terms.log_lik.mean(0), "kl": dims}

        parts = list(self._over(run, params, data, seed, max(1, block // num)))
        return {n: _join([p[n] for p in parts]) for n in parts[0]}

    def importance(
        self, params: Arrays, data: Rows, num: int, seed: int, block: int, alpha: float = 0.0
    ) -> Bounds:
        rows, particles, _ = blocks_of(len(next(iter(data.values()))), num, block)
        power = 1.0 - alpha

        def run(args: Any) -> Any:
            sums: list[torch.Tensor] = []
            for first in range(0, num, particles):
                weights = power * self.programs.terms(args, min(particles, num - first)).log_weight
                both = torch.stack([torch.logsumexp(weights, 0), torch.logsumexp(2 * weights, 0)])
                sums = [torch.logaddexp(sums[0], both)] if sums else [both]
            return sums[0]

        found = torch.cat(list(self._over(run, params, data, seed, rows)), 1).double().numpy()
        return Bounds.of_sums(found[0], found[1], num, power)

    def log_weights(self, params: Arrays, data: Rows, num: int, seed: int, block: int) -> np.ndarray:
        def run(args: Any) -> Any:
            return self.programs.terms(args, num).log_weight

        return torch.cat(list(self._over(run, params, data, seed, max(1, block // num))), 1).numpy()

    def prior(self, params: Arrays, data: Rows, seed: int, block: int) -> Arrays:
        parts = list(self._over(self.programs.prior, params, data, seed, block))
        return {n: _join([p[n] for p in parts]) for n in parts[0]}

    def observed(self, params: Arrays, data: Rows, values: Arrays, seed: int, block: int) -> Moments:
        names = set(data)

        def run(both: Any) -> Any:
            args = {k: v for k, v in both.items() if k in names}
            return self.programs.observed(args, {k: v for k, v in both.items() if k not in names})

        parts = list(self._over(run, params, {**data, **values}, seed, block))
        return joined(parts)

    def terms_at(
        self, params: Arrays, data: Rows, values: Arrays
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        given = to_torch(values)
        num = len(next(iter(values.values())))
        if num == 1:
            given = {k: v[0] for k, v in given.items()}
        with self._session(params, 0):
            found = self.programs.terms(to_torch(data), num, given)
        return tuple(v.numpy() for v in found[:3])

    def _session(self, params: Arrays, seed: int) -> Any:
        stack = contextlib.ExitStack()
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # Pyro warns that what is held is not trained
        stack.enter_context(torch_session(seed, self.problem.dtype))
        stack.enter_context(torch.no_grad())
        stack.enter_context(pyro.validation_enabled(False))
        stack.enter_context(HoldParams(params))
        return stack

    def _over(
        self, run: Callable[..., Any], params: Arrays, data: Any, seed: int, rows: int
    ) -> Iterator[Any]:
        n = len(next(iter(data.values())))
        with self._session(params, seed):
            args = to_torch(dict(data))
            for first in range(0, n, rows):
                yield run({k: v[first : first + rows] for k, v in args.items()})


def _join(parts: list[torch.Tensor]) -> np.ndarray:
    return torch.cat(parts).numpy()
