"""Item response and paired comparison: 1PL, 2PL in two layouts, Bradley-Terry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _answers(persons: int = 5, items: int = 3) -> dict[str, Any]:
    r = rng(5)
    logits = r.normal(size=(persons, 1)) - r.normal(size=items)
    return {"y": (r.uniform(size=(persons, items)) < 1 / (1 + np.exp(-logits))).astype(float)}


@zoo(_answers, "two crossing plates in dims -2 and -1, Bernoulli with logits")
def rasch(y: Any) -> None:
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    persons = pyro.plate("persons", y.shape[0], dim=-2)
    items = pyro.plate("items", y.shape[1], dim=-1)
    with items:
        difficulty = pyro.sample("difficulty", dist.Normal(0.0, 1.5))
    with persons:
        ability = pyro.sample("ability", dist.Normal(0.0, spread))
    with persons, items:
        pyro.sample("y", dist.Bernoulli(logits=ability - difficulty), obs=y)


def _long_answers() -> dict[str, Any]:
    y = _answers()["y"]
    person, item = np.nonzero(np.ones_like(y))
    return {"person": person[:-2], "item": item[:-2], "y": y[person, item].astype(int)[:-2], "sizes": 5}


@zoo(_long_answers, "long format: fancy indexing of two latents, integer outcomes, LogNormal slopes")
def two_parameter_logistic(person: Any, item: Any, y: Any, sizes: int) -> None:
    with pyro.plate("persons", sizes):
        ability = pyro.sample("ability", dist.Normal(0.0, 1.0))
    with pyro.plate("items", 3):
        difficulty = pyro.sample("difficulty", dist.Normal(0.0, 1.0))
        slope = pyro.sample("slope", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(y)):
        logits = slope[item] * (ability[person] - difficulty[item])
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=y.to(logits.dtype))


def _games() -> dict[str, Any]:
    r = rng(6)
    first = np.array([0, 0, 0, 1, 1, 2, 3, 3, 2, 1])
    second = np.array([1, 2, 3, 2, 3, 3, 0, 1, 0, 0])
    return {"first": first, "second": second, "won": r.integers(0, 2, size=10).astype(bool)}


@zoo(
    _games, "Bradley-Terry with abilities that sum to zero (cat of a latent with its negative sum), bool data"
)
def bradley_terry(first: Any, second: Any, won: Any) -> None:
    free = pyro.sample("free", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    home = pyro.sample("home", dist.Normal(0.0, 0.5))
    ability = pyro.deterministic("ability", torch.cat([free, -free.sum(-1, keepdim=True)]))
    with pyro.plate("games", len(won)):
        logits = home + ability[first] - ability[second]
        pyro.sample("won", dist.Bernoulli(logits=logits), obs=won.to(logits.dtype))


def _paired() -> dict[str, Any]:
    r = rng(7)
    return {
        "first": r.integers(0, 3, size=8),
        "second": r.integers(0, 3, size=8),
        "y": r.integers(0, 3, size=8),
    }


@zoo(_paired, "ties: three outcomes from stacked logits, Categorical observed with integers")
def comparison_with_ties(first: Any, second: Any, y: Any) -> None:
    with pyro.plate("players", 3):
        ability = pyro.sample("ability", dist.Normal(0.0, 1.0))
    tie = pyro.sample("tie", dist.Normal(-1.0, 1.0))
    with pyro.plate("games", len(y)):
        gap = ability[first] - ability[second]
        logits = torch.stack([gap, tie.expand(gap.shape), -gap], -1)
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)
