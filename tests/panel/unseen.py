"""Cases written after every limit had been set, with models, data and faults of their own.

They were committed before any verdict on them was seen, so that their first score is that of rules which had
not seen them. ``expected`` is what theory says, "varies" where that is no level: errors decide then.
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints

import ppl_lvm as lvm
from ppl_lvm import AIS, EM, MAP, NUTS, SMC, SVI, Flow, ImportanceSampling, Laplace, Pathfinder, Renyi

from . import unseen_exact as exact
from . import unseen_grids as grids
from . import zoo
from .case import Case, Target, by_engine

CHAINS = NUTS(num_warmup=500, num_samples=500)
CAREFUL = NUTS(num_warmup=600, num_samples=800, target_accept=0.95)
DENSE = NUTS(num_warmup=500, num_samples=400, dense_mass=True, target_accept=0.9)
BARELY = NUTS(num_warmup=400, num_samples=8, num_chains=3)
ASTRAY = NUTS(num_warmup=15, num_samples=25, num_chains=3)
MEAN_FIELD = SVI(backend="numpyro", num_steps=2500)
FULL_RANK = SVI(backend="numpyro", num_steps=2500, guide="full_rank")
BENT = SVI(backend="numpyro", num_steps=2000, guide=Flow("spline"))
WEIGHTED = SVI(backend="numpyro", num_steps=1500, objective=Renyi(num_particles=10))
FEW = SVI(backend="numpyro", num_steps=40, window=10, learning_rate=0.01)
WILD = SVI(backend="numpyro", num_steps=300, window=50, learning_rate=1.5, learning_rate_decay=1.0)
ON_PYRO = SVI(backend="pyro", num_steps=500)
PRIOR = ImportanceSampling(num_samples=1000, backend="numpyro")
TEMPERED = SMC(num_particles=400, num_runs=8)


def _case(name: str, target: Target, engine: lvm.Engine, expected: str, why: str, **more) -> Case:
    return Case(name, target, by_engine(target, engine, **more), expected, why)


def _guided(name: str, target: Target, guide, expected: str, why: str) -> Case:
    model = lvm.Model(target.model, guide=guide)
    return Case(name, target, lambda seed: lvm.fit(model, target.data, ON_PYRO, seed=seed), expected, why)


def _weighed(name: str, target: Target, proposal: lvm.Engine, expected: str, why: str) -> Case:
    def infer(seed: int) -> lvm.Fit:
        drawn = lvm.fit(target.model, target.data, proposal, seed=seed)
        return lvm.fit(target.model, target.data, ImportanceSampling(proposal=drawn), seed=seed)

    return Case(name, target, infer, expected, why)


# ---- guide programs that cannot be right, and one that is -----------------------------------------


def _flat_slope(x, y):
    scale = pyro.param("scale", torch.tensor([0.1, 0.1]), constraint=constraints.positive)
    pyro.sample("a", dist.Normal(pyro.param("loc", torch.tensor(0.0)), scale[0]))
    pyro.sample("b", dist.Normal(0.0, scale[1]))


def _even_classes(y):
    size = pyro.param("size", torch.tensor(4.0), constraint=constraints.positive)
    pyro.sample("p", dist.Dirichlet(size * torch.ones(4)))


def _level_walk(y, cov):
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)).expand(len(y)), scale).to_event(1))


def _loud_line(features, y):
    """The precision is held at a fifth of what the data say."""
    pyro.sample("precision", dist.Gamma(20.0, 100.0))
    loc, scale = pyro.param("loc", torch.zeros(3)), pyro.param("scale", torch.ones(3))
    pyro.sample("b", dist.Normal(loc, scale.abs()).to_event(1))


def _own_classes(y):
    a = pyro.param("a", torch.ones(4), constraint=constraints.positive)
    pyro.sample("p", dist.Dirichlet(a))


# ---- the list -------------------------------------------------------------------------------------


def _regressions() -> list[Case]:
    poisson, spread = grids.poisson(), grids.negative_binomial()
    logistic, ordinal = grids.separable_classes(), grids.ordinal()
    far = {"a": np.array(-6.0), "b": np.array(-6.0)}
    return [
        _case("Poisson regression, NUTS", poisson, CHAINS, "means_and_spreads", "unbiased"),
        _case("Poisson regression, Laplace", poisson, Laplace(), "varies", "nearly normal"),
        _case("Poisson regression, full rank", poisson, FULL_RANK, "varies", "nearly normal"),
        _case("Poisson regression, few steps", poisson, FEW, "do_not_trust", "40 steps of 0.01"),
        _case("Poisson regression, far start", poisson, ASTRAY, "short", "75 draws, adapted in 15", init=far),
        _guided("Poisson regression, slope held at 0", poisson, _flat_slope, "do_not_trust", "truth is 0.6"),
        _case("negative binomial, NUTS", spread, CHAINS, "means_and_spreads", "unbiased"),
        _case("negative binomial, mean field", spread, MEAN_FIELD, "varies", "nearly normal in the log"),
        _case("negative binomial, wild steps", spread, WILD, "varies", "steps of 1.5 that never shrink"),
        _case("negative binomial, MAP", spread, MAP(), "varies", "the mode of a skewed shape"),
        _case("separable classes, NUTS", logistic, CHAINS, "means_and_spreads", "unbiased"),
        _case("separable classes, MAP", logistic, MAP(), "varies", "the mode of a skewed slope"),
        _case("separable classes, Laplace", logistic, Laplace(), "varies", "centred at the mode"),
        _case("separable classes, Pathfinder", logistic, Pathfinder(), "varies", "weights mend a normal"),
        _case("ordinal, NUTS", ordinal, CHAINS, "means_and_spreads", "unbiased"),
        _case("ordinal, NUTS too short", ordinal, BARELY, "short", "24 draws"),
        _case("ordinal, full rank", ordinal, FULL_RANK, "varies", "nearly normal"),
        _case("ordinal, few steps", ordinal, FEW, "do_not_trust", "40 steps of 0.01"),
    ]


def _normals() -> list[Case]:
    walk, line = exact.random_walk(), exact.line()
    return [
        _case("random walk, NUTS", walk, CHAINS, "means_and_spreads", "unbiased"),
        _case("random walk, mean field", walk, MEAN_FIELD, "means_only", "1 / Lambda_ii is half of S_ii"),
        _case("random walk, MAP", walk, MAP(), "means_only", "mode and mean are one"),
        _case("random walk, prior weighed", walk, PRIOR, "do_not_trust", "24 dimensions"),
        _case("random walk, few steps", walk, FEW, "do_not_trust", "40 steps of 0.01"),
        _guided("random walk, one level", walk, _level_walk, "do_not_trust", "a walk is not level"),
        _case("line, NUTS with dense mass", line, DENSE, "means_and_spreads", "unbiased"),
        _weighed("line, mean field weighed", line, MEAN_FIELD, "means_and_spreads", "weights are even"),
        _case("line, wild steps", line, WILD, "varies", "steps of 1.5 that never shrink"),
        _guided("line, precision held off", line, _loud_line, "do_not_trust", "2.5 sds off"),
    ]


def _small() -> list[Case]:
    four, change, groups = exact.four_classes(), exact.change_point(), grids.six_groups()
    lengths, heavy = grids.two_lengths(), grids.heavy_location()
    return [
        _case("four classes, NUTS", four, CHAINS, "means_and_spreads", "unbiased"),
        _guided("four classes, own family", four, _own_classes, "means_and_spreads", "the family holds it"),
        _guided("four classes, even guide", four, _even_classes, "do_not_trust", "all classes share a mean"),
        _case("change point, NUTS", change, CHAINS, "means_and_spreads", "unbiased"),
        _case("change point, AIS", change, AIS(num_particles=1000), "means_and_spreads", "annealed"),
        _case("change point, few steps", change, FEW, "do_not_trust", "40 steps of 0.01"),
        _case("six groups, NUTS", groups, CAREFUL, "varies", "kappa is wide"),
        _case("six groups, mean field", groups, MEAN_FIELD, "varies", "kappa is skewed"),
        _case("six groups, MAP", groups, MAP(), "varies", "the mode of kappa"),
        _case("two length scales, NUTS", lengths, CAREFUL, "means_and_spreads", "unbiased"),
        _case("two length scales, IWAE", lengths, WEIGHTED, "varies", "wider than by the ELBO"),
        _case(
            "two length scales, far start", lengths, ASTRAY, "short", "75 draws, adapted in 15", init=_long()
        ),
        _case("heavy tails, NUTS", heavy, CAREFUL, "varies", "polynomial tails up to the prior's"),
        _case("heavy tails, full rank", heavy, FULL_RANK, "varies", "thin tails"),
    ]


def _long() -> dict[str, np.ndarray]:
    return {"length": np.array([40.0, 40.0])}


def _odd_shapes() -> list[Case]:
    islands, bent, shrunk = exact.three_islands(), exact.bent(), exact.four_effects()
    ring, roots = grids.ring_of_radius_3(), grids.two_roots()
    on_one = {"x": np.array([[-4.0, -3.0], [-4.3, -2.8], [-3.8, -3.2], [-4.1, -3.5]])}
    positive = {"x": np.array([3.0, 2.9, 3.1, 3.05])}
    dropped = "the guide keeps one mode"
    return [
        _case("three islands, SMC", islands, TEMPERED, "varies", "shares vary by run"),
        _case("three islands, prior weighed", islands, PRIOR, "means_and_spreads", "the prior is near"),
        _case("three islands, full rank", islands, FULL_RANK, "do_not_trust", dropped),
        _case("three islands, Laplace", islands, Laplace(), "do_not_trust", "one mode"),
        _case("three islands, NUTS from one", islands, CHAINS, "do_not_trust", "none leaves", init=on_one),
        _case("two roots, mean field", roots, MEAN_FIELD, "do_not_trust", dropped),
        _case("two roots, NUTS from one", roots, CHAINS, "do_not_trust", "none leaves", init=positive),
        _weighed("two roots, mean field weighed", roots, MEAN_FIELD, "do_not_trust", "so do the weights"),
        _case("two roots, SMC", roots, TEMPERED, "means_and_spreads", "tempering"),
        _case("ring, mean field", ring, MEAN_FIELD, "varies", "at one side, or in the middle"),
        _case("ring, NUTS", ring, CAREFUL, "varies", "goes around"),
        _case("banana, NUTS", bent, CAREFUL, "varies", "narrow in places"),
        _case("banana, Laplace", bent, Laplace(), "varies", "centred at the bend"),
        _case("banana, spline flow", bent, BENT, "varies", "bends along"),
        _case("horseshoe, NUTS", shrunk, CAREFUL, "varies", "narrow at small lam"),
        _case("horseshoe, mean field", shrunk, MEAN_FIELD, "varies", "shrinks all, or none"),
    ]


def _zoo() -> list[Case]:
    factors, rates = zoo.known_target("PPCA of two factors"), zoo.known_target("mixture of two rates")
    states = zoo.known_target("HMM of three rates")
    em = EM(num_init=5)
    return [
        _case("two factors, NUTS", factors, CHAINS, "varies", "unbiased"),
        _case("two factors, few steps", factors, FEW, "do_not_trust", "40 steps of 0.01"),
        _case("two rates, NUTS", rates, CHAINS, "means_and_spreads", "unbiased"),
        _case("two rates, mean field", rates, MEAN_FIELD, "varies", "nearly independent normals"),
        _case("two rates, EM", rates, em, "varies", "a point"),
        _case("three states, NUTS", states, CHAINS, "varies", "unbiased"),
        _case("three states, EM", states, em, "varies", "a point, on an edge of the transitions"),
        _case("three states, few steps", states, FEW, "varies", "starts near"),
    ]


def cases() -> list[Case]:
    return [*_regressions(), *_normals(), *_small(), *_odd_shapes(), *_zoo()]
