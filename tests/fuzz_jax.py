"""What of the fuzz of runs is compiled: few programs on JAX, each with many values, seeds and settings."""

from __future__ import annotations

from typing import Any

from ppl_lvm.families import Flow

_SVI = {"num_steps": 20, "num_draws": 30, "window": 10}
_NUTS = {"num_warmup": 20, "num_samples": 10, "num_chains": 2}
_CHEES = {"num_warmup": 10, "num_samples": 10, "num_chains": 16, "max_steps": 20}
_SMC = {"num_particles": 20, "num_runs": 4, "num_moves": 1}
_AIS = {"num_particles": 25, "num_temperatures": 20}
_PATHS = {"num_paths": 2, "num_samples": 50, "max_iter": 20}
_WEIGHTS = {"num_samples": 60}
_MAP = {"num_init": 1, "max_iter": 50}
_LAPLACE = {"num_init": 1, "num_draws": 20}

# A model, an engine, and those of its settings that enter what is compiled (5 to 20 s for each line).
PROGRAMS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("schools", "SVI", _SVI | {"guide": "mean_field"}),
    ("schools", "SVI", _SVI | {"guide": "structured"}),
    ("schools", "SVI", _SVI | {"guide": Flow(num_layers=1, num_hidden=4)}),
    ("schools", "SVI", _SVI | {"guide": "laplace"}),
    ("logistic", "SVI", _SVI | {"guide": "full_rank"}),
    ("logistic", "SVI", _SVI | {"guide": "low_rank"}),
    ("logistic", "SVI", _SVI | {"guide": "delta"}),
    ("GaussianMixture-diag", "SVI", _SVI),
    ("GaussianMixture-diag", "SVI", _SVI | {"guide": "full_rank"}),
    ("PPCA", "SVI", _SVI | {"guide": "mean_field"}),
    ("schools", "NUTS", _NUTS),
    ("logistic", "NUTS", _NUTS | {"dense_mass": True}),
    ("GaussianMixture-diag", "NUTS", _NUTS),
    ("PPCA", "NUTS", _NUTS),
    ("schools", "ChEES", _CHEES),
    ("logistic", "ChEES", _CHEES),
    ("logistic", "Pathfinder", _PATHS),
    ("schools", "Pathfinder", _PATHS),
    ("logistic", "SMC", _SMC),
    ("nested", "AIS", _AIS),
    ("schools", "ImportanceSampling", _WEIGHTS),
    ("Mixture-Poisson", "ImportanceSampling", _WEIGHTS),
    ("logistic", "MAP", _MAP),
    ("counts", "Laplace", _LAPLACE),
)

# Allowed settings that do not enter it.
FREE: dict[str, list[dict[str, Any]]] = {
    "SVI": [
        {"tolerance": 1e300},
        {"tolerance": 1e-300},
        {"early_stop": False},
        {"checkpoint_every": 10**9},
    ],
    "NUTS": [
        {"num_chains": 1},
        {"num_starts": 2},
        {"chain_method": "sequential"},
        {"chain_method": "threads"},
    ],
    "ChEES": [{"num_starts": 4}, {"checkpoint_every": 7}],
    "Pathfinder": [{"num_paths": 1}, {"num_paths": 3}],
    "SMC": [{"ess": 0.3}, {"ess": 0.7}],
    "MAP": [{"max_iter": 1}, {"num_init": 3}],
    "Laplace": [{"max_iter": 1}, {"num_init": 3}],
}

# Of 2,000 combinations, at least so many on JAX, and so many of an engine that end in a result.
SHARE = 0.2
RESULTS = {"SVI": 60, "NUTS": 25, "ChEES": 10, "Pathfinder": 10, "SMC": 5, "AIS": 5, "ImportanceSampling": 10,
           "MAP": 5, "Laplace": 5}  # fmt: skip

# Data of other shapes and types, for which programs would be compiled anew.
COMPILED = {"one row", "two rows", "fewer rows than components", "one column", "no columns", "empty", "flat",
            "a number", "zero-dimensional", "one dimension more", "duplicates", "integers", "bool", "int64",
            "uint8", "pandas Int64", "tensor of bool"}  # fmt: skip
