"""The encoder of an amortised guide by name: its params, the same by name and shape on both backends.

Of standardised features f (F,) of a datum it gives ``offset + [skip f / sqrt(F), 0, ...] + network(f)``:
means of the datum's coordinates, logs of their scales, and the entries of a triangular matrix, row by row.
The network's weights are ``PACE`` times the params: a step of Adam that suits a location is too long there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.core import Problem
from ppl_lvm.families import Amortized
from ppl_lvm.networks import MLP, initial_weights

PACE = 0.1
_SMALL = 0.01  # of the last layer at the start, beside its usual size
_ACTIVATION = "silu"


def network_of(settings: Amortized) -> MLP | None:
    """The network between features and outputs; None: there is none."""
    return MLP((settings.num_hidden,) * settings.num_layers, _ACTIVATION) if settings.num_layers else None


def feature_names(problem: Problem) -> tuple[str, ...]:
    """The arguments that the encoder takes: arrays along the data plate."""
    return tuple(n for n in problem.batched if isinstance(problem.arguments.get(n), np.ndarray))


def num_outputs(num_inner: int) -> int:
    """Means, log scales and entries below the diagonal."""
    return 2 * num_inner + num_inner * (num_inner - 1) // 2


def param_name(weight: str) -> str:
    """``layers.0.weight`` -> ``encoder_layers_0_weight``."""
    return "encoder_" + weight.replace(".", "_")


def weights_in(params: Mapping[str, Any], settings: Amortized) -> dict[str, Any]:
    """The network's weights by its own names."""
    names = [f"layers.{i}.{kind}" for i in range(settings.num_layers + 1) for kind in ("weight", "bias")]
    return {name: PACE * params[param_name(name)] for name in names}


def initial_params(
    problem: Problem, settings: Amortized, num_inner: int, scale: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Means start at 0 and scales at ``scale``; ``encoder_shift`` and ``encoder_spread`` are of the data."""
    mean, spread = _moments(problem)
    width = num_outputs(num_inner)
    offset = np.zeros(width)
    offset[num_inner : 2 * num_inner] = math.log(scale)
    out = {
        "encoder_shift": mean,
        "encoder_spread": spread,
        "encoder_offset": offset,
        "encoder_skip": np.zeros((num_inner, len(mean))),
    }
    network = network_of(settings)
    if network is None:
        return out
    shapes = network.encoder_shapes((len(mean),), width)
    weights = initial_weights(shapes, _ACTIVATION, rng)
    last = f"layers.{settings.num_layers}."
    made = {n: (_SMALL if n.startswith(last) else 1.0) * v / PACE for n, v in weights.items()}
    return out | {param_name(n): v for n, v in made.items()}


def _moments(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of the features over rows; an sd of 0 counts as 1, a column without values as zeros."""
    rows = [np.asarray(problem.arguments[name]) for name in feature_names(problem)]
    table = np.concatenate([v.reshape(len(v), -1).astype(float) for v in rows], 1)
    known = np.isfinite(table)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, table, 0.0).sum(0) / count
    spread = np.sqrt((np.where(known, table - mean, 0.0) ** 2).sum(0) / count)
    return mean, np.where(spread > 0, spread, 1.0)
