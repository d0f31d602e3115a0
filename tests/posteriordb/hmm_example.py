"""hmm_example-hmm_example: two hidden states, normal observations of variance 1, ordered positive means.

The reference sums over the first state with weight one each, a constant beside a uniform start. Two programs:
the states as sites of a ``pyro.markov`` loop, and summed out by ``DiscreteHMM``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from tests.posteriordb._rule import Case, scalars


def _parameters() -> tuple[torch.Tensor, torch.Tensor]:
    """Means (2,) by the lower one and the gap, both positive, and the transition matrix (2, 2)."""
    theta = [pyro.sample(name, dist.Dirichlet(torch.ones(2))) for name in ("theta1", "theta2")]
    low = pyro.sample("mu_low", dist.ImproperUniform(dist.constraints.positive, (), ()))
    gap = pyro.sample("gap", dist.ImproperUniform(dist.constraints.positive, (), ()))
    pyro.factor("mu_low_prior", dist.Normal(3.0, 1.0).log_prob(low))
    pyro.factor("mu_high_prior", dist.Normal(10.0, 1.0).log_prob(low + gap))
    return torch.stack([low, low + gap], -1), torch.stack(theta, -2)


def by_states(y: torch.Tensor) -> None:
    mu, transition = _parameters()
    state = None
    for t in pyro.markov(range(len(y))):
        probs = torch.full((2,), 0.5) if state is None else transition[state]
        state = pyro.sample(f"state_{t}", dist.Categorical(probs), infer={"enumerate": "parallel"})
        pyro.sample(f"y_{t}", dist.Normal(mu[state], 1.0), obs=y[t])


def summed_out(y: torch.Tensor) -> None:
    """The distribution takes a transition before every observation: a uniform state before the first one
    would not be uniform at it, so that the first observation is scored apart."""
    mu, transition = _parameters()
    at_first = torch.softmax(dist.Normal(mu, 1.0).log_prob(y[0]), -1)
    pyro.factor("y_first", torch.logsumexp(dist.Normal(mu, 1.0).log_prob(y[0]) + np.log(0.5), -1))
    chain = dist.DiscreteHMM(at_first.log(), transition.log(), dist.Normal(mu, 1.0), duration=len(y) - 1)
    pyro.sample("y_rest", chain, obs=y[1:])


def _named(p: Any) -> dict[str, np.ndarray]:
    rows = {**scalars("theta1", p["theta1"].values), **scalars("theta2", p["theta2"].values)}
    return {**rows, "mu[1]": p["mu_low"].values, "mu[2]": (p["mu_low"] + p["gap"]).values}


def _case(function: Any) -> Case:
    return Case(
        name="hmm_example-hmm_example",
        function=function,
        arguments=lambda d: {"y": np.asarray(d["y"], dtype=float)},
        quantities=_named,
        point={"theta1": np.array([0.7, 0.3]), "theta2": np.array([0.1, 0.9]), "mu_low": 3.0, "gap": 6.0},
        log_joint=-167.1297004473 - 2.3378770664,
    )


CASE = _case(summed_out)
CASE_BY_STATES = _case(by_states)
