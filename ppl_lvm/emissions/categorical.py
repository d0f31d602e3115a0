r"""Categories: :math:`x_{f} \mid z = j \sim \mathrm{Categorical}(p_{jf})`, columns independent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.emissions._base import Emission, Library, Values, own_states
from ppl_lvm.emissions._checks import check_codes, check_hyper
from ppl_lvm.emissions._priors import Array, Prior

LEAST_PROB = 1e-12
"""Point estimates of probabilities are at least about this: 0 is not inside the support."""


@dataclass(frozen=True)
class Categorical(Emission):
    r"""Independent columns of integer codes 0..c-1; with a mixture this is latent class analysis.

    Site ``probs`` (k, d, c), on the simplex over categories, with a symmetric Dirichlet prior. With
    indicators :math:`y_{ifc} = [x_{if} = c]`,

    .. math:: \log p(x_i \mid j) = \sum_{fc} y_{ifc} \log p_{jfc},

    one matrix product. All columns share the number of categories; columns with different numbers go into
    a ``Product``. Source: Lazarsfeld and Henry, *Latent Structure Analysis* (1968); Goodman (1974),
    Biometrika 61.

    Parameters
    ----------
    num_categories
        c, at least 2. None: the largest code in the data plus 1.
    probs_concentration
        Concentration of the Dirichlet prior, positive; 1 is uniform.

    Raises
    ------
    ValueError
        Naming the field, for settings outside their range, or the column, for codes outside 0..c-1.
    """

    num_categories: int | None = None
    probs_concentration: float = 1.5

    def __post_init__(self) -> None:
        c = self.num_categories
        if c is not None and (isinstance(c, bool) or not isinstance(c, (int, np.integer)) or c < 2):
            raise ValueError(f"num_categories: expected an integer of at least 2 or None, got {c!r}.")
        check_hyper(self, "probs_concentration", positive=True, optional=False)
        if isinstance(self.probs_concentration, tuple):
            raise ValueError(f"probs_concentration: expected one number, got {self.probs_concentration!r}.")

    def check(self, x: Array, columns: Sequence[str]) -> None:
        advice = "raise num_categories" if self.num_categories else "use emissions.Gaussian for real numbers"
        check_codes(x, columns, self.num_categories, "Categorical", advice)

    def resolve(self, x: Array, num_states: int) -> Categorical:
        if self.num_categories is not None:
            return self
        return dataclasses.replace(self, num_categories=max(2, int(np.nanmax(x)) + 1))

    def sites(self, num_states: int, num_columns: int) -> dict[str, Prior]:
        """Names and order are right before ``resolve``; shapes need the number of categories."""
        shape = (num_states, num_columns, self.num_categories or 2)
        dims = ("state", "feature", "category")
        return {"probs": Prior("Dirichlet", ("probs_concentration",), shape, dims)}

    def prior(self, num_states: int, num_columns: int) -> dict[str, Array]:
        if self.num_categories is None:
            raise ValueError("num_categories: has no value yet; call model.resolve(data) first.")
        return {"probs_concentration": np.full(self.num_categories, self.probs_concentration)}

    def num_parameters(self, num_states: int, num_columns: int) -> int:
        if self.num_categories is None:
            raise ValueError("num_categories: has no value yet; call model.resolve(data) first.")
        return num_states * num_columns * (self.num_categories - 1)

    def log_prob(self, lib: Library, params: Values, x: Any, seen: Any | None) -> Any:
        xp, probs = lib.xp, params["probs"]
        rounding = xp.finfo(probs.dtype).eps
        logs = xp.log(xp.clip(probs, rounding, 1.0 - rounding))
        hot = _indicators(xp, x, seen, probs.shape[-1])
        return logs.reshape(*probs.shape[:-2], -1) @ hot.T.astype(probs.dtype)

    def row(self, dist: Any, params: Values, seen: Any | None) -> Any:
        each = dist.Categorical(params["probs"])
        return (each if seen is None else each.mask(seen > 0)).to_event(1)

    def m_step(
        self, x: Array, seen: Array | None, weights: Array, prior: Values | None, current: Values | None
    ) -> dict[str, Array]:
        c = self.num_categories or int(x.max()) + 1
        shape = (len(weights), x.shape[1], c)
        count = (weights @ _indicators(np, x, seen, c)).reshape(shape)
        if prior is not None:  # the mode of a Dirichlet density; at a concentration below 1 it can lie at 0
            count = np.maximum(count + prior["probs_concentration"] - 1.0, 0.0)
        total = count.sum(-1, keepdims=True)
        middle = np.full(shape, 1.0 / c) if current is None else current["probs"]
        probs = np.where(total > 0.0, count / np.where(total > 0.0, total, 1.0), middle)
        probs = np.maximum(probs, LEAST_PROB)
        return {"probs": probs / probs.sum(-1, keepdims=True)}

    def sample(self, params: Values, states: Array, rng: np.random.Generator) -> Array:
        edges = np.cumsum(own_states(params["probs"], states, event_dim=2), axis=-1)[..., :-1]
        return (rng.random(edges.shape[:-1])[..., None] >= edges).sum(-1).astype(float)

    def features(self, params: Values) -> Array:
        logs = np.log(np.maximum(params["probs"], LEAST_PROB))
        return logs.reshape(*logs.shape[:-2], -1)

    def moments(self, params: Values) -> tuple[Array, Array]:
        """Of the codes: means and variances that say something only where categories are ordered."""
        probs = params["probs"]
        codes = np.arange(probs.shape[-1])
        mean = probs @ codes
        return mean, np.maximum(probs @ codes**2 - mean**2, 0.0)


def _indicators(xp: Any, x: Any, seen: Any | None, num_categories: int) -> Any:
    """1 where a row has a category, (n, d c); all 0 where the entry is missing."""
    hot = x[..., None] == xp.arange(num_categories)
    if seen is not None:
        hot = hot & (seen[..., None] > 0)
    return hot.reshape(len(x), -1).astype(x.dtype)
