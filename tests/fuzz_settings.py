"""Settings for the fuzz of runs: tiny runs of every engine, odd values that are allowed, and wrong ones."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ppl_lvm import AIS, ELBO, EM, MAP, NUTS, SMC, SVI, ChEES, ImportanceSampling, Laplace, Pathfinder, Renyi
from ppl_lvm.families import Flow, LowRank

_CLASSES = {
    c.__name__: c for c in (SVI, ImportanceSampling, NUTS, MAP, Laplace, ChEES, SMC, AIS, Pathfinder, EM)
}
_BOTH = ("SVI", "ImportanceSampling", "NUTS", "MAP", "Laplace")
_JAX = ("ChEES", "SMC", "AIS", "Pathfinder")
# An engine by class and backend; EM has none, and the last four run on JAX.
ENGINES: dict[str, Any] = {
    **{f"{n}-{b}": functools.partial(_CLASSES[n], backend=b) for n in _BOTH for b in ("pyro", "numpyro")},
    **{f"{n}-numpyro": _CLASSES[n] for n in _JAX},
    "EM-pyro": EM,
}

_SVI = {"num_steps": 20, "num_draws": 30, "window": 10}
_NAMED = ("mean_field", "full_rank", "low_rank", "delta", "laplace", "flow", "spline")
# On Pyro; those on JAX stand with their programs in fuzz_jax.
GOOD_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "SVI": [
        *(_SVI | {"guide": g} for g in (None, *_NAMED, LowRank(1), Flow(num_layers=1, num_hidden=4))),
        _SVI | {"objective": ELBO(num_particles=2)},
        _SVI | {"objective": Renyi(alpha=0.0, num_particles=3)},
        _SVI | {"objective": Renyi(alpha=0.5, num_particles=2)},
        _SVI | {"average": True},
        _SVI | {"learning_rate": 0.001, "learning_rate_decay": 1.0, "clip_norm": 1.0},
    ],
    "ImportanceSampling": [{"num_samples": n} for n in (25, 40, 60)],
    "NUTS": [
        {"num_warmup": 3, "num_samples": 4, "num_chains": 1, "max_tree_depth": 2},
        {"num_warmup": 0, "num_samples": 2, "num_chains": 2, "max_tree_depth": 1},
        {"num_warmup": 2, "num_samples": 1, "num_chains": 1, "max_tree_depth": 2, "dense_mass": True},
    ],
    "MAP": [{"num_init": 1, "max_iter": 50}, {"num_init": 2, "max_iter": 5}],
    "Laplace": [{"num_init": 1, "num_draws": 20, "max_iter": 200}],
    "EM": [
        {"num_init": 2, "max_iter": 50},
        {"num_init": 1, "max_iter": 1},
        {"num_init": 1, "max_iter": 30, "estimate": "map"},
        {"num_init": 3, "tol": 1e-3},
    ],
}

# On Pyro: allowed, or refused by the model's shape: a result or our words.
ODD_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "SVI": [
        {"learning_rate": 1e-12},
        {"learning_rate": 10.0},
        {"learning_rate": 1e30},
        {"learning_rate": 1},
        {"clip_norm": 1e-12},
        {"tolerance": 1e300},
        {"window": 10**12},
        {"num_steps": 1},
        {"num_draws": 2},
        {"batch_size": 1, "num_steps": 5},
        {"batch_size": 5, "num_steps": None, "num_epochs": 1},
        {"batch_size": 10**9},
        {"num_epochs": 2, "num_steps": None},
        {"warmup_steps": 10**9},
        {"schedule": "cosine", "warmup_steps": 5},
        {"guide": LowRank(10**6)},
        {"guide": Flow("spline", num_bins=2, num_layers=3)},
        {"guide": lambda y: None},
        {"guide": dict},
        {"objective": Renyi(alpha=-3.0, num_particles=2)},
        {"objective": Renyi(alpha=1e6, num_particles=2)},
        {"objective": ELBO(estimator="mean_field")},
        {"objective": ELBO(estimator="enum")},
        {"objective": ELBO(beta=0.5)},
        {"num_restarts": 2},
        {"validation": 0.5},
        {"patience": 1},
        {"num_steps": np.int64(7), "learning_rate": np.float32(0.01)},
    ],
    "ImportanceSampling": [{"num_samples": np.int32(25)}],
    "NUTS": [
        {"target_accept": 1e-9},
        {"target_accept": 1 - 1e-9},
        {"max_tree_depth": 1},
        {"num_samples": 1, "num_warmup": 0},
        {"num_starts": 2, "num_chains": 2},
        {"by_datum": True},
        {"transport": True},
    ],
    "MAP": [{"max_iter": 1}, {"num_init": np.int64(1)}],
    "Laplace": [{"max_iter": 1}, {"num_draws": 2}],
    "EM": [
        {"tol": 1e-300},
        {"tol": 1e300},
        {"tol": 5},
        {"variance_floor": 0.0},
        {"variance_floor": 1e12},
        {"variance_floor": 1e-300},
        {"num_init": np.int64(2)},
    ],
}

_WRONG: dict[str, tuple[Any, ...]] = {
    "count": (0, -1, True, 2.5, "3", float("nan"), float("inf"), [3], {}, np.array([1, 2]), 3 + 0j),
    "positive": (0, -1.0, True, "0.1", float("nan"), float("inf"), [1.0], np.array([0.1, 0.2]), 1j),
    "fraction": (0, 1.5, -0.1, "a", float("nan"), [0.5], np.array([0.5, 0.6])),
    "choice": ("typo", 3, True, ["auto"], np.array(["auto", "pyro"]), np.array([1.0, 2.0])),
    "flag": (1, "yes", None, np.array([True, False])),
    "flag or none": (1, "yes", np.array([True, False])),
    "object": (3, "typo", [1], np.array([1.0, 2.0])),
    "folder": (3, "", ["a"], "/proc/none", "\0"),
}
_FIELDS: dict[str, dict[str, str]] = {
    "SVI": {
        "num_steps": "count", "num_draws": "count", "window": "count", "batch_size": "count",
        "learning_rate": "positive", "clip_norm": "positive", "tolerance": "positive",
        "learning_rate_decay": "fraction", "guide": "object", "objective": "object", "early_stop": "flag",
        "average": "flag or none", "schedule": "choice", "num_restarts": "count", "checkpoint": "folder",
        "checkpoint_every": "count", "backend": "choice", "validation": "fraction", "patience": "count",
    },
    "ImportanceSampling": {"num_samples": "count", "proposal": "object", "backend": "choice"},
    "NUTS": {
        "num_samples": "count", "num_chains": "count", "target_accept": "fraction", "max_tree_depth": "count",
        "dense_mass": "flag", "kernel": "choice", "chain_method": "choice", "transport": "flag",
        "checkpoint": "folder", "num_starts": "count", "backend": "choice",
    },
    "MAP": {"num_init": "count", "max_iter": "count", "backend": "choice"},
    "Laplace": {"num_init": "count", "num_draws": "count", "backend": "choice"},
    "ChEES": {
        "num_samples": "count", "num_chains": "count", "target_accept": "fraction", "max_steps": "count",
        "num_starts": "count", "checkpoint": "folder", "checkpoint_every": "count",
    },
    "SMC": {"num_particles": "count", "num_runs": "count", "num_moves": "count", "ess": "fraction"},
    "AIS": {"num_particles": "count", "num_temperatures": "count", "backend": "choice"},
    "Pathfinder": {"num_paths": "count", "num_samples": "count", "history": "count", "max_iter": "count"},
    "EM": {"num_init": "count", "tol": "positive", "max_iter": "count", "estimate": "choice",
           "variance_floor": "positive"},
}  # fmt: skip
BAD_SETTINGS: dict[str, list[dict[str, Any]]] = {
    engine: [
        {name: value}
        for name, kind in fields.items()
        for value in _WRONG[kind]
        if not (name in ("variance_floor", "validation") and type(value) is int and value == 0)  # allowed
    ]
    + [{"num_stepz": 3}]
    for engine, fields in _FIELDS.items()
}

BAD_CALLS: list[dict[str, Any]] = [
    *({"seed": s} for s in (-1, True, "a", 1.5, None, 2**70, np.int64(3))),
    *({"dtype": t} for t in ("float16", "int", np.float32, 3, ["float64"])),
    *(
        {"init": i}
        for i in ({"nowhere": 1.0}, {"mu": np.nan}, {"loc": "a"}, {"mu": [1.0] * 7}, 3, "prior", [])
    ),
    *({"init": i} for i in ({"mu": None}, {"weights": -1.0}, {"rate": -3.0}, {"tau": 1j}, {"loc": {}})),
    *(
        {"dims": d}
        for d in ({"nowhere": ["a"]}, {"mu": ["a", "b"]}, {"mu": 3}, {"loc": "component"}, 3, ["a"])
    ),
    *({"coords": c} for c in ({"data": [1]}, {"component": ["a"]}, {"data": 3}, {"row": None}, 3, ["a"])),
]
