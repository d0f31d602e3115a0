"""The design's rule for reference posteriors, and what a case consists of.

The rule: R-hat <= 1.01, bulk and tail effective sizes of at least what is asked, and mean, log sd, 5 % and
95 % quantiles each within four combined standard errors of the reference's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Draws = dict[str, np.ndarray]  # (chain, draw) by the reference's scalar names, as "mu[1]"


@dataclass(frozen=True)
class Case:
    """One posterior written from its MODEL.md: a plain function, and how its sites give the reference's.

    ``arguments`` picks the function's arguments out of data.json. ``quantities`` maps the posterior's draws
    to (chain, draw) arrays by the reference's names. ``log_joint`` is the published check value at ``point``
    (values of the function's sites), with the constants that the published one leaves out.
    """

    name: str
    function: Callable[..., None]
    arguments: Callable[[Mapping[str, Any]], dict[str, np.ndarray]]
    quantities: Callable[[Any], Draws]
    point: Mapping[str, Any]
    log_joint: float

    def data(self, folder: Path) -> dict[str, np.ndarray]:
        return self.arguments(json.loads((folder / "posteriordb" / self.name / "data.json").read_text()))

    def reference(self, folder: Path) -> Draws:
        """The reference's draws by scalar name."""
        out = {}
        with np.load(folder / "posteriordb" / self.name / "reference_draws.npz") as stored:
            for name in stored.files:
                out |= scalars(name, stored[name])
        return out


def scalars(name: str, draws: np.ndarray) -> Draws:
    """(chain, draw) as it is, (chain, draw, n) as ``name[1]`` to ``name[n]``."""
    if draws.ndim == 2:
        return {name: draws}
    return {f"{name}[{i + 1}]": draws[..., i] for i in range(draws.shape[-1])}


def _figures(x: np.ndarray) -> dict[str, tuple[float, float]]:
    """What is compared, each with its Monte Carlo standard error."""
    from arviz_stats.base import array_stats

    def mcse(method: str, **more: float) -> float:
        return float(array_stats.mcse(x, chain_axis=0, draw_axis=1, method=method, **more))

    sd = x.std(ddof=1)
    return {
        "mean": (x.mean(), mcse("mean")),
        "log sd": (math.log(sd), mcse("sd") / sd),
        "5 %": (np.quantile(x, 0.05), mcse("quantile", prob=0.05)),
        "95 %": (np.quantile(x, 0.95), mcse("quantile", prob=0.95)),
    }


def check(ours: Draws, theirs: Draws, least_ess: float) -> None:
    """Fail unless ``ours`` meets the rule against ``theirs``."""
    from arviz_stats.base import array_stats

    assert set(ours) == set(theirs)
    for name, x in ours.items():
        for method, more in (("bulk", {}), ("tail", {"prob": (0.05, 0.95)})):
            ess = float(array_stats.ess(x, chain_axis=0, draw_axis=1, method=method, **more))
            assert ess >= least_ess, (name, method, ess)
        assert float(array_stats.rhat(x, chain_axis=0, draw_axis=1)) <= 1.01, name
        mine, other = _figures(x), _figures(theirs[name])
        for what in mine:
            gap = mine[what][0] - other[what][0]
            error = math.hypot(mine[what][1], other[what][1])
            assert abs(gap) < 4 * error, (name, what, gap, error)
