"""Hidden Markov models: pyro.markov with enumeration, plated sequences, factorial, DiscreteHMM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.ops.indexing import Vindex

from translated._registry import rng, zoo


def _series() -> dict[str, Any]:
    r = rng(22)
    return {"y": r.normal(size=6) + np.array([-1, -1, 1, 1, -1, 1])}


def _chain(k: int) -> tuple[Any, Any]:
    start = pyro.sample("start", dist.Dirichlet(torch.ones(k)))
    moves = pyro.sample("moves", dist.Dirichlet(torch.eye(k) * 2 + 1).to_event(1))
    return start, moves


@zoo(
    _series,
    "one sequence in pyro.markov, labels enumerated in recycled dimensions",
    enumerated=True,
    by_datum=False,
    quick=False,
)
def hmm_markov(y: Any) -> None:
    start, moves = _chain(2)
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    state: Any = None
    for t in pyro.markov(range(len(y))):
        weights = start if state is None else Vindex(moves)[state]
        state = pyro.sample(f"state_{t}", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample(f"y_{t}", dist.Normal(loc[state], 1.0), obs=y[t])


def _sequences() -> dict[str, Any]:
    r = rng(23)
    return {"y": r.normal(size=(3, 4)), "lengths": np.array([4, 2, 3])}


@zoo(
    _sequences,
    "sequences of several lengths in a plate: masks by length, loop to int(lengths.max())",
    enumerated=True,
    baked=("lengths",),
)
def hmm_plated(y: Any, lengths: Any) -> None:
    start, moves = _chain(2)
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    with pyro.plate("sequences", len(y)):
        state: Any = None
        for t in pyro.markov(range(int(lengths.max()))):
            with poutine.mask(mask=t < lengths):
                weights = start if state is None else Vindex(moves)[state]
                state = pyro.sample(f"state_{t}", dist.Categorical(weights), infer={"enumerate": "parallel"})
                pyro.sample(f"y_{t}", dist.Normal(Vindex(loc)[state], 1.0), obs=y[:, t])


@zoo(
    _series,
    "factorial: two chains that meet in each observation",
    enumerated=True,
    by_datum=False,
    quick=False,
)
def hmm_factorial(y: Any) -> None:
    with pyro.plate("chains", 2):
        stay = pyro.sample("stay", dist.Beta(4.0, 2.0))
    effect = pyro.sample("effect", dist.Normal(torch.tensor([1.0, -0.5]), 1.0).to_event(1))
    a: Any = torch.tensor(0.0)
    b: Any = torch.tensor(0.0)
    for t in pyro.markov(range(4)):
        a = pyro.sample(f"a_{t}", dist.Bernoulli(torch.where(a > 0.5, stay[0], 1 - stay[0])))
        b = pyro.sample(f"b_{t}", dist.Bernoulli(torch.where(b > 0.5, stay[1], 1 - stay[1])))
        pyro.sample(f"y_{t}", dist.Normal(effect[0] * a + effect[1] * b, 1.0), obs=y[t])


@zoo(_sequences, "DiscreteHMM over a plate of sequences: labels summed inside the distribution", quick=False)
def hmm_discrete(y: Any, lengths: Any) -> None:
    del lengths
    start, moves = _chain(3)
    with pyro.plate("states", 3):
        loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    with pyro.plate("sequences", len(y)):
        fn = dist.DiscreteHMM(start.log(), moves.log(), dist.Normal(loc, 1.0), duration=y.shape[1])
        pyro.sample("y", fn, obs=y)


@zoo(
    _series,
    "DiscreteHMM with transitions that are latents in logits, some of them forbidden",
    by_datum=False,
    quick=False,
)
def hmm_forbidden(y: Any) -> None:
    logits = pyro.sample("logits", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    ahead = torch.sigmoid(logits)
    zero, one = torch.zeros(()), torch.ones(())
    rows = [torch.stack([1 - ahead[0], ahead[0], zero]), torch.stack([zero, 1 - ahead[1], ahead[1]]),
            torch.stack([zero, zero, one])]  # fmt: skip
    moves = torch.stack(rows).clamp(min=1e-12).log()
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    emissions = dist.Normal(torch.tensor([-1.0, 0.0, 1.0]), scale)
    pyro.sample("y", dist.DiscreteHMM(torch.tensor([0.0, -30.0, -30.0]), moves, emissions), obs=y)
