"""Ecology: N-mixture, occupancy, capture-recapture, changepoint; all with enumerated labels or counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo

MOST = 6


def _visits() -> dict[str, Any]:
    r = rng(36)
    return {"counts": r.binomial(r.integers(2, 5, size=(4, 1)), 0.5, size=(4, 3)).astype(float)}


@zoo(
    _visits,
    "N-mixture: abundance enumerated from the largest count on, Binomial counts",
    enumerated=True,
)
def n_mixture(counts: Any) -> None:
    rate = pyro.sample("rate", dist.Gamma(3.0, 1.0))
    prob = pyro.sample("prob", dist.Beta(2.0, 2.0))
    sizes = torch.arange(MOST + 1.0)
    with pyro.plate("sites", len(counts), dim=-2):
        extra = pyro.sample("extra", dist.Categorical(logits=dist.Poisson(rate).log_prob(sizes)))
        abundance = extra.to(counts.dtype) + counts.max(-1, keepdim=True).values
        with pyro.plate("visits", counts.shape[1], dim=-1):
            pyro.sample("counts", dist.Binomial(abundance, prob), obs=counts)


def _detections() -> dict[str, Any]:
    r = rng(37)
    present = r.uniform(size=(6, 1)) < 0.6
    return {"seen": (present & (r.uniform(size=(6, 3)) < 0.5)).astype(float), "x": r.normal(size=6)}


@zoo(
    _detections,
    "occupancy: a site's presence enumerated over a vector of visits",
    enumerated=True,
    quick=False,
)
def occupancy(seen: Any, x: Any) -> None:
    logits = pyro.sample("logits", dist.Normal(torch.zeros(2), 1.5).to_event(1))
    prob = pyro.sample("prob", dist.Beta(1.0, 1.0))
    with pyro.plate("sites", len(seen)):
        present = pyro.sample("present", dist.Bernoulli(logits=logits[0] + logits[1] * x))
        rate = (present * prob).unsqueeze(-1).clamp(1e-6, 1 - 1e-6)
        pyro.sample(
            "seen", dist.Bernoulli(rate.expand(rate.shape[:-1] + seen.shape[-1:])).to_event(1), obs=seen
        )


def _histories() -> dict[str, Any]:
    return {"seen": np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=float)}


@zoo(
    _histories,
    "closed population by data augmentation: the probability of no sighting in a factor",
    quick=False,
)
def capture_recapture(seen: Any) -> None:
    occasions = seen.shape[1]
    prob = pyro.sample("prob", dist.Beta(torch.ones(occasions), 1.0).to_event(1))
    size = pyro.sample("size", dist.LogNormal(2.0, 1.0))
    never = torch.prod(1 - prob)
    expected = size * (1 - never)
    pyro.factor("total", dist.Poisson(expected).log_prob(torch.tensor(float(len(seen)))))
    with pyro.plate("animals", len(seen)):
        pyro.sample("seen", dist.Bernoulli(prob).to_event(1), obs=seen)
        pyro.factor("given_seen", -torch.log1p(-never).expand(len(seen)))


@zoo(
    _histories,
    "survival between occasions: alive or not enumerated in pyro.markov, within a plate",
    enumerated=True,
    quick=False,
)
def cormack_jolly_seber(seen: Any) -> None:
    survival = pyro.sample("survival", dist.Beta(2.0, 1.0))
    capture = pyro.sample("capture", dist.Beta(1.0, 1.0))
    first = seen.argmax(-1)
    with pyro.plate("animals", len(seen)):
        alive: Any = torch.ones(())
        for t in pyro.markov(range(seen.shape[1])):
            started = t > first
            prob = torch.where(started, alive * survival, torch.ones(()))
            alive = pyro.sample(f"alive_{t}", dist.Bernoulli(prob), infer={"enumerate": "parallel"})
            with pyro.poutine.mask(mask=started):
                pyro.sample(f"seen_{t}", dist.Bernoulli(alive * capture), obs=seen[:, t])


def _disasters() -> dict[str, Any]:
    return {"y": np.array([4, 5, 3, 6, 4, 1, 0, 2, 1, 1])}


@zoo(
    _disasters,
    "changepoint: one enumerated year outside of the plate of years",
    enumerated=True,
    by_datum=False,
)
def changepoint(y: Any) -> None:
    early = pyro.sample("early", dist.Exponential(0.5))
    late = pyro.sample("late", dist.Exponential(0.5))
    years = torch.arange(len(y))
    switch = pyro.sample("switch", dist.Categorical(torch.ones(len(y)) / len(y)))
    with pyro.plate("years", len(y)):
        pyro.sample("y", dist.Poisson(torch.where(years < switch, early, late)), obs=y)
