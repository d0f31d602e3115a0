"""Posteriors of several modes in x: prior N(0, 10^2) times sum_c w_c N(loc_c - x, sd_c^2).

A mixture of normals in closed form (each term is a product of two normals), so that means, sds and draws
are exact.
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex

import ppl_lvm as lvm
from ppl_lvm import SMC, ImportanceSampling

from .case import Case, Target, Truth, by_engine, exact_reference
from .gaussians import CHAINS, FULL_RANK, MEAN_FIELD, PRIOR_SD

TEMPERED = SMC(num_particles=500, num_runs=8)
WEIGHED = ImportanceSampling(num_samples=2000, backend="numpyro")


def modes(weight, loc, scale):
    x = pyro.sample("x", dist.Normal(torch.zeros_like(loc[0]), PRIOR_SD).to_event(1))
    c = pyro.sample("c", dist.Categorical(weight), infer={"enumerate": "parallel"})
    gap = dist.Normal(x, scale[c].unsqueeze(-1)).to_event(1)
    pyro.sample("obs", gap, obs=Vindex(loc)[c, :])


def _target(name: str, weight: list[float], loc: list[list[float]], scale: list[float]) -> Target:
    w, m, s = (np.array(v, dtype=float) for v in (weight, loc, scale))
    variance = 1 / (1 / s**2 + 1 / PRIOR_SD**2)
    centre = m * (variance / s**2)[:, None]
    log_mass = np.log(w) - 0.5 * (m**2 / (s**2 + PRIOR_SD**2)[:, None]).sum(1)
    log_mass -= 0.5 * m.shape[1] * np.log(s**2 + PRIOR_SD**2)
    mass = np.exp(log_mass - np.logaddexp.reduce(log_mass))
    data = {"weight": w, "loc": m, "scale": s}

    def truth() -> Truth:
        mean = mass @ centre
        sd = np.sqrt(mass @ (variance[:, None] + centre**2) - mean**2)
        return {f"x[{i}]": (float(mean[i]), float(sd[i])) for i in range(len(mean))}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        at = rng.choice(len(mass), num, p=mass)
        return {"x": centre[at] + np.sqrt(variance[at])[:, None] * rng.standard_normal((num, m.shape[1]))}

    return Target(name, modes, data, truth, exact_reference(modes, data, sampler), "closed form")


def cases() -> list[Case]:
    even = _target("two far modes", [0.5, 0.5], [[-4.0], [4.0]], [0.7, 0.7])
    uneven = _target("far modes, 0.65 and 0.35", [0.65, 0.35], [[-3.0, 0.0], [3.0, 1.0]], [0.7, 0.7])
    tiny = _target("a far mode of weight 1e-4", [0.9999, 0.0001], [[0.0], [16.0]], [1.0, 1.0])
    close = _target("two modes that touch", [0.5, 0.5], [[-1.2], [1.2]], [0.8, 0.8])
    four = _target("two far modes in four dimensions", [0.6, 0.4], [[-2.5] * 4, [2.5] * 4], [0.8, 0.8])
    wide = _target("a narrow mode beside a wide one", [0.5, 0.5], [[-5.0, 0.0], [5.0, 0.0]], [2.0, 0.3])

    def case(name: str, target: Target, engine: lvm.Engine, expected: str, why: str, **more) -> Case:
        return Case(name, target, by_engine(target, engine, **more), expected, why)

    dropped = "the guide keeps one mode; its weights are even"
    at_one = {"x": np.array([[-4.0], [-4.5], [-3.5], [-4.2]])}
    one_off = {"x": np.array([[0.1], [-0.2], [0.3], [16.0]])}
    return [
        case("far modes, mean field", even, MEAN_FIELD, "do_not_trust", dropped),
        case("far modes, full rank", uneven, FULL_RANK, "do_not_trust", dropped),
        case("far modes in 4 d, mean field", four, MEAN_FIELD, "do_not_trust", dropped),
        case("narrow beside wide, mean field", wide, MEAN_FIELD, "do_not_trust", dropped),
        case("far modes in 4 d, full rank", four, FULL_RANK, "do_not_trust", dropped),
        case("far modes in 4 d, NUTS", four, CHAINS, "do_not_trust", "no chain crosses"),
        case("narrow beside wide, NUTS", wide, CHAINS, "do_not_trust", "no chain crosses"),
        case("narrow beside wide, SMC", wide, TEMPERED, "varies", "shares vary by run"),
        case("far modes, prior weighed", even, WEIGHED, "means_and_spreads", "2000 draws in one dimension"),
        case("far modes, NUTS", even, CHAINS, "do_not_trust", "no chain crosses; shares are those of starts"),
        case(
            "far modes, NUTS from one",
            even,
            CHAINS,
            "do_not_trust",
            "R-hat is 1, a mode is missed",
            init=at_one,
        ),
        case("far modes, SMC", even, TEMPERED, "means_and_spreads", "tempering"),
        case("far modes in 4 d, SMC", four, TEMPERED, "varies", "shares vary by run"),
        case(
            "tiny mode, mean field", tiny, MEAN_FIELD, "means_and_spreads", "what is dropped does not matter"
        ),
        case(
            "tiny mode, a stuck chain",
            tiny,
            CHAINS,
            "varies",
            "1 of 4 chains sits there, or leaves",
            init=one_off,
        ),
        case("touching modes, NUTS", close, CHAINS, "means_and_spreads", "chains cross"),
        case("touching modes, mean field", close, MEAN_FIELD, "varies", "wide over both, or in one"),
    ]
