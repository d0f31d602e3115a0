"""Differentiable marginalised log weights log p(x, z) - log q(z) of several particles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ppl_lvm.backends._pyro_density import Terms, run_model
from ppl_lvm.backends._pyro_guide import draw_trace, log_q_of, values_of
from ppl_lvm.core import Problem


def particle_log_weights(
    problem: Problem, guide: Callable[..., Any], args: Mapping[str, Any], num: int
) -> Terms:
    """Log weights of ``num`` draws of the guide: total (num,), and split over the data plate.

    Not scaled to the whole data set (a minibatch's scale belongs outside the logarithm), discrete
    sites summed out.
    """
    trace = draw_trace(problem, guide, args, num)
    q_rest, q_local = log_q_of(trace, problem, num)
    p = run_model(problem, args, values_of(trace, problem), {})
    total = p.total - q_rest - (0.0 if q_local is None else q_local.sum(-1))
    if p.per_datum is None or p.rest is None:
        return Terms(total, None, None)
    local = p.per_datum if q_local is None else p.per_datum - q_local
    return Terms(total, p.rest - q_rest, local)
