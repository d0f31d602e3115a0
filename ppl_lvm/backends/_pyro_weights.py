"""Differentiable marginalised log weights log p(x, z) - log q(z) of several particles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine

from ppl_lvm.backends._pyro_density import Terms, agree, run_model, run_single, stack_terms
from ppl_lvm.backends._pyro_guide import draw_trace, log_q_of, values_of
from ppl_lvm.core import Problem

Weights = Callable[[Problem, Callable[..., Any], Mapping[str, Any], int], Terms]


def choose_weights(problem: Problem, guide: Callable[..., Any], args: Mapping[str, Any]) -> Weights:
    """:func:`weights_together` if the programs broadcast over particles, else :func:`weights_one_by_one`.

    Decided by running two particles both ways: wrong shapes may broadcast without an error.
    """
    try:
        with torch.no_grad():
            trace = draw_trace(problem, guide, args, 2)
            values = values_of(trace, problem)
            together = run_model(problem, args, values, {})
            single = [run_single(problem, args, {k: v[i] for k, v in values.items()}, {}) for i in range(2)]
            if agree(together, stack_terms(single)):
                return weights_together
    except Exception:  # the user's program: any error can come out of it
        return weights_one_by_one
    return weights_one_by_one


def weights_together(problem: Problem, guide: Callable[..., Any], args: Mapping[str, Any], num: int) -> Terms:
    """Log weights of ``num`` draws of the guide: total (num,), and split over the data plate.

    Not scaled to the whole data set (a minibatch's scale belongs outside the logarithm), discrete
    sites summed out.
    """
    trace = draw_trace(problem, guide, args, num)
    q_rest, q_local = log_q_of(trace, problem, num)
    return _minus(run_model(problem, args, values_of(trace, problem), {}), q_rest, q_local)


def weights_one_by_one(
    problem: Problem, guide: Callable[..., Any], args: Mapping[str, Any], num: int
) -> Terms:
    """The same by one run of the programs per particle."""
    rows = []
    for _ in range(num):
        trace: Any = poutine.trace(guide).get_trace(**args)
        trace.compute_log_prob()
        q_rest, q_local = log_q_of(trace, problem, 0)
        values = {s.name: trace.nodes[s.name]["value"] for s in problem.latents(discrete=False)}
        rows.append(_minus(run_single(problem, args, values, {}), q_rest, q_local))
    return stack_terms(rows)


def _minus(p: Terms, q_rest: torch.Tensor, q_local: torch.Tensor | None) -> Terms:
    total = p.total - q_rest - (0.0 if q_local is None else q_local.sum(-1))
    if p.per_datum is None or p.rest is None:
        return Terms(total, None, None)
    local = p.per_datum if q_local is None else p.per_datum - q_local
    return Terms(total, p.rest - q_rest, local)


__all__ = ["Weights", "choose_weights", "stack_terms", "weights_one_by_one", "weights_together"]
