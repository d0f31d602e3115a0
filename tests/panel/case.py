"""What a case of the panel is: a model, data and an engine, and the posterior that is known for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import ppl_lvm as lvm
from ppl_lvm.core import Engine, Problem, Run
from ppl_lvm.result import Fit, chain_dataset
from ppl_lvm.symmetry import Reference, settle_to

Truth = Mapping[str, tuple[float, float]]
"""Posterior mean and sd by quantity, as a comparison's table labels them."""


@dataclass(frozen=True)
class Target:
    """A model and data, the posterior means and sds that are known, and how a good reference is had.

    ``known`` says how: "closed form", "quadrature" or "long run". ``labels`` is the order of components and
    the orientation of factors that ``truth`` is in, for models that have such.
    """

    name: str
    model: Any
    data: Any
    truth: Callable[[], Truth]
    reference: Callable[[int], Fit]
    known: str
    labels: Callable[[], Reference] | None = None

    def settled(self, fit: Fit) -> Fit:
        return fit if self.labels is None else settle_to(fit, self.labels())


@dataclass(frozen=True)
class Case:
    """A target and an inference, what theory says comes out, and why.

    ``expected``: "means_and_spreads", "means_only" or "do_not_trust" for what the method gives whatever the
    seed; "short" where its Monte Carlo error is too large for any of them; "varies" where runs differ, and
    each is held to what came out of it.
    """

    name: str
    target: Target
    infer: Callable[[int], Fit]
    expected: str
    why: str

    def fit(self, seed: int) -> Fit:
        return self.target.settled(self.infer(seed))


@dataclass(frozen=True)
class ExactDraws(Engine):
    """Independent draws from a known posterior, as a reference: ``sampler(rng, num)`` -> values by site."""

    sampler: Callable[[np.random.Generator, int], Mapping[str, np.ndarray]]
    num_draws: int = 4000

    def check(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, run: Run) -> Fit:
        values = self.sampler(run.rng(1), self.num_draws)
        draws = chain_dataset(problem, {k: v[None] for k, v in values.items()}, kind="independent")
        return Fit(model=problem.model, engine=self, backend="exact", problem=problem, draws=draws)


def by_engine(target: Target, engine: Engine, **settings: Any) -> Callable[[int], Fit]:
    return lambda seed: lvm.fit(target.model, target.data, engine, seed=seed, **settings)


def exact_reference(model: Any, data: Any, sampler: Callable) -> Callable[[int], Fit]:
    """Fresh exact draws for every seed."""
    return lambda seed: lvm.fit(model, data, ExactDraws(sampler), seed=10_000 + seed)


def long_reference(model: Any, data: Any, engine: Engine, **settings: Any) -> Callable[[int], Fit]:
    """One long run, the same for every seed."""

    @functools.cache
    def run() -> Fit:
        return lvm.fit(model, data, engine, seed=777, **settings)

    return lambda seed: run()


def moments_on_grid(log_density: np.ndarray, values: Mapping[str, np.ndarray]) -> Truth:
    """Means and sds of quantities on a grid of equal cells."""
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    out = {}
    for name, value in values.items():
        mean = float((weight * value).sum())
        out[name] = (mean, float(np.sqrt((weight * (value - mean) ** 2).sum())))
    return out


def sample_grid(rng: np.random.Generator, num: int, grid: np.ndarray, log_density: np.ndarray) -> np.ndarray:
    """Draws (num,) from a density on a fine grid of equal steps, uniform within a step."""
    weight = np.exp(log_density - log_density.max())
    at = rng.choice(len(grid), num, p=weight / weight.sum())
    return grid[at] + (rng.random(num) - 0.5) * (grid[1] - grid[0])
