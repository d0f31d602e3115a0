r"""Yes or no: :math:`x_{f} \mid z = j \sim \mathrm{Bernoulli}(p_{jf})`, columns independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.emissions._base import Emission, Library, Values, own_states
from ppl_lvm.emissions._checks import check_codes, check_hyper, column_values
from ppl_lvm.emissions._priors import Array, Prior

LEAST_PROB = 1e-12
"""Point estimates of probabilities keep this far from 0 and 1, which are not inside the support."""


@dataclass(frozen=True)
class Bernoulli(Emission):
    r"""Independent 0/1 columns; with a mixture this is latent class analysis of binary items.

    Site ``probs`` (k, d), in (0, 1): the probability of a 1, with a Beta(probs_alpha, probs_beta) prior. The
    density is that of Lazarsfeld and Henry, *Latent Structure Analysis* (1968),

    .. math:: \log p(x_i \mid j) = \sum_f x_{if} \log p_{jf} + (1 - x_{if}) \log (1 - p_{jf}),

    computed as two matrix products. Probabilities that rounding put on 0 or 1 count as one rounding
    unit of the dtype inside, as in Pyro; point estimates stay 1e-12 inside.

    Parameters
    ----------
    probs_alpha, probs_beta
        Parameters of the Beta prior, positive: one number or one per column.

    Raises
    ------
    ValueError
        Naming the field, for settings outside their range, or the column, for data other than 0 and 1.
    """

    probs_alpha: float | tuple[float, ...] = 1.5
    probs_beta: float | tuple[float, ...] = 1.5

    def __post_init__(self) -> None:
        for name in ("probs_alpha", "probs_beta"):
            check_hyper(self, name, positive=True, optional=False)

    def check(self, x: Array, columns: Sequence[str]) -> None:
        check_codes(x, columns, 2, "Bernoulli", "use emissions.Categorical for more than two categories")

    def resolve(self, x: Array, num_states: int) -> Bernoulli:
        return self

    def sites(self, num_states: int, num_columns: int) -> dict[str, Prior]:
        shape = (num_states, num_columns)
        return {"probs": Prior("Beta", ("probs_alpha", "probs_beta"), shape, ("state", "feature"))}

    def prior(self, num_states: int, num_columns: int) -> dict[str, Array]:
        names = ("probs_alpha", "probs_beta")
        return {name: column_values(name, getattr(self, name), num_columns) for name in names}

    def num_parameters(self, num_states: int, num_columns: int) -> int:
        return num_states * num_columns

    def log_prob(self, lib: Library, params: Values, x: Any, seen: Any | None) -> Any:
        xp = lib.xp
        rounding = xp.finfo(params["probs"].dtype).eps
        probs = xp.clip(params["probs"], rounding, 1.0 - rounding)
        yes = x if seen is None else x * seen
        no = (1.0 if seen is None else seen) - yes
        return xp.log(probs) @ yes.T + xp.log1p(-probs) @ no.T

    def row(self, dist: Any, params: Values, seen: Any | None) -> Any:
        each = dist.Bernoulli(params["probs"])
        return (each if seen is None else each.mask(seen > 0)).to_event(1)

    def m_step(
        self, x: Array, seen: Array | None, weights: Array, prior: Values | None, current: Values | None
    ) -> dict[str, Array]:
        yes = weights @ (x if seen is None else x * seen)
        total = weights.sum(1)[:, None] if seen is None else weights @ seen
        no = total - yes
        if prior is not None:  # the mode of a Beta density; with a parameter below 1 it can lie at 0 or 1
            yes = np.maximum(yes + prior["probs_alpha"] - 1.0, 0.0)
            no = np.maximum(no + prior["probs_beta"] - 1.0, 0.0)
        total = yes + no
        middle = 0.5 if current is None else current["probs"]  # no data, and a flat prior or none
        probs = np.where(total > 0.0, yes / np.where(total > 0.0, total, 1.0), middle)
        return {"probs": np.clip(probs, LEAST_PROB, 1.0 - LEAST_PROB)}

    def sample(self, params: Values, states: Array, rng: np.random.Generator) -> Array:
        probs = own_states(params["probs"], states)
        return (rng.random(probs.shape) < probs).astype(float)

    def features(self, params: Values) -> Array:
        probs = np.clip(params["probs"], LEAST_PROB, 1.0 - LEAST_PROB)
        return np.log(probs) - np.log1p(-probs)

    def moments(self, params: Values) -> tuple[Array, Array]:
        probs = params["probs"]
        return probs, probs * (1.0 - probs)
