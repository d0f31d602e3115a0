"""Models of the zoo: mixtures, PPCA and an HMM, whose posteriors are known from long runs.

The long runs' means, sds and their errors, and the order of labels or orientation of factors that they are
in, are stored in ``long_runs.json``, which ``python -m panel.make_long_runs`` writes.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, models
from ppl_lvm.relabel import Labels
from ppl_lvm.symmetry import Reference

from .case import Case, Target, Truth, by_engine, long_reference

STORED = Path(__file__).with_name("long_runs.json")
REFERENCE = NUTS(num_warmup=500, num_samples=1000)


def _clusters(gap: float, size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    label = np.arange(size) % 3 == 0
    return np.where(label, gap, -gap)[:, None] + rng.standard_normal((size, 1))


def _factor_rows() -> np.ndarray:
    rng = np.random.default_rng(8)
    return rng.standard_normal((20, 1)) * np.array([1.5, -1.0, 0.8]) + 0.5 * rng.standard_normal((20, 3))


def _rare_state() -> np.ndarray:
    rng = np.random.default_rng(11)
    state = np.zeros(120, dtype=int)
    state[[40, 41, 42, 90]] = 1
    return (np.where(state == 1, 5.0, 0.0) + rng.standard_normal(120))[:, None]


def _two_factor_rows() -> np.ndarray:
    rng = np.random.default_rng(41)
    loadings = np.array([[1.6, 0.2], [1.2, -0.4], [-0.9, 1.3], [0.3, 1.5], [0.0, -1.0]])
    return 1.0 + rng.standard_normal((36, 2)) @ loadings.T + 0.6 * rng.standard_normal((36, 5))


def _two_rates() -> np.ndarray:
    rng = np.random.default_rng(42)
    return rng.poisson(np.where(np.arange(50) < 30, 2.0, 8.0))[:, None].astype(float)


def _three_states() -> np.ndarray:
    rng = np.random.default_rng(43)
    return rng.poisson(np.repeat([2.0, 7.0, 20.0, 7.0, 2.0, 20.0], 12))[:, None].astype(float)


def _mixture(k: int) -> models.GaussianMixture:
    return models.GaussianMixture(num_components=k, covariance="diag")


# name -> (model, data)
TARGETS: dict[str, tuple[Any, np.ndarray]] = {
    "mixture, well separated": (_mixture(2), _clusters(3.0, 240, 1)),
    "mixture, badly separated": (_mixture(2), _clusters(0.9, 60, 2)),
    "mixture, one component too many": (_mixture(3), _clusters(3.0, 60, 3)),
    "PPCA": (models.PPCA(1), _factor_rows()),
    "PPCA with explicit factors": (models.PPCA(1, collapsed=False), _factor_rows()),
    "HMM with a rare state": (models.HMM(2, lvm.emissions.Gaussian("diag")), _rare_state()),
    # for the unseen cases
    "PPCA of two factors": (models.PPCA(2), _two_factor_rows()),
    "mixture of two rates": (models.Mixture(2, lvm.emissions.Poisson()), _two_rates()),
    "HMM of three rates": (models.HMM(3, lvm.emissions.Poisson()), _three_states()),
}


@functools.cache
def _stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STORED.read_text("utf-8"))
    return found


def _truth(name: str) -> Truth:
    return {q: (row["mean"], row["sd"]) for q, row in _stored()[name]["quantities"].items()}


def _labels(name: str) -> Reference:
    row = _stored()[name]
    array = lambda key: None if row.get(key) is None else np.array(row[key])  # noqa: E731
    labels = None if row.get("label_mean") is None else Labels(array("label_mean"), array("label_variance"))
    return Reference(labels, array("loadings"), array("sds"))


def known_target(name: str) -> Target:
    model, data = TARGETS[name]
    return Target(
        name,
        model,
        data,
        lambda: _truth(name),
        long_reference(model, data, REFERENCE),
        "long run",
        lambda: _labels(name),
    )


def cases() -> list[Case]:
    mean_field = SVI(backend="numpyro", num_steps=2000)
    full_rank = SVI(backend="numpyro", num_steps=3000, guide="full_rank")
    few_steps = SVI(backend="numpyro", num_steps=60, window=20, learning_rate=0.01)
    chains = NUTS(num_warmup=400, num_samples=500)
    em = EM(num_init=5)

    def case(name: str, target: str, engine: lvm.Engine, expected: str, why: str) -> Case:
        known = known_target(target)
        return Case(name, known, by_engine(known, engine), expected, why)

    separated, overlapping = "mixture, well separated", "mixture, badly separated"
    spare, ppca, explicit = "mixture, one component too many", "PPCA", "PPCA with explicit factors"
    hmm = "HMM with a rare state"
    return [
        case("separated mixture, NUTS", separated, chains, "means_and_spreads", "unbiased"),
        case("separated mixture, mean field", separated, mean_field, "varies", "nearly independent normals"),
        case("separated mixture, EM", separated, em, "means_only", "modes are near means"),
        case("separated mixture, few steps", separated, few_steps, "varies", "starts at k-means"),
        case("overlapping mixture, NUTS", overlapping, chains, "varies", "long tails"),
        case(
            "overlapping mixture, mean field", overlapping, mean_field, "varies", "one explanation of several"
        ),
        case("overlapping mixture, EM", overlapping, em, "do_not_trust", "the maximum is not the mean"),
        case(
            "spare component, mean field", spare, mean_field, "varies", "one use of the component of several"
        ),
        case("spare component, NUTS", spare, chains, "varies", "uses of the component"),
        case("spare component, EM", spare, em, "do_not_trust", "a component on few points"),
        case("PPCA, NUTS", ppca, chains, "means_and_spreads", "unbiased"),
        case("PPCA, full rank", ppca, full_rank, "varies", "nearly normal"),
        case("PPCA, mean field", ppca, mean_field, "varies", "nearly normal"),
        case("PPCA, few steps", ppca, few_steps, "do_not_trust", "60 steps of 0.01"),
        case("PPCA, EM", ppca, em, "varies", "a point"),
        case("explicit PPCA, mean field", explicit, mean_field, "varies", "factors and loadings oppose"),
        case("explicit PPCA, few steps", explicit, few_steps, "do_not_trust", "60 steps of 0.01"),
        case("explicit PPCA, NUTS", explicit, chains, "varies", "slow in scale"),
        case("rare state, NUTS", hmm, chains, "varies", "unbiased, slow"),
        case("rare state, mean field", hmm, mean_field, "varies", "skewed transitions"),
        case("rare state, few steps", hmm, few_steps, "varies", "60 steps of 0.01"),
        case("rare state, EM", hmm, em, "varies", "a point"),
    ]
