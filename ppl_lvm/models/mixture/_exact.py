r"""What a mixture has in closed form: joint, marginal, responsibilities, draws, and EM. NumPy only.

Labels are summed out by log-sum-exp over components,

.. math:: p(x_i \mid \pi, \theta) = \sum_j \pi_j \, p(x_i \mid \theta_j).

Source: McLachlan and Peel, *Finite Mixture Models* (2000), chapters 2 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from ppl_lvm.emissions import Emission
from ppl_lvm.emissions._base import numpy_library
from ppl_lvm.emissions._priors import Array, Prior

if TYPE_CHECKING:
    from ppl_lvm.models._restarts import Recall
    from ppl_lvm.models.mixture._em import EMResult, Progress

Values = Mapping[str, Any]
_CHUNK_ELEMENTS = 2**21  # doubles in the largest temporary of a pass over draws


@dataclass(frozen=True)
class MixtureExact:
    """Closed forms of a mixture of ``num_components`` with a resolved ``emission``.

    Every method takes ``values``, site names to arrays with any draw axes (...) in front, and ``data``, the
    arguments of the programs: ``x`` (n, d) with missing entries filled, ``seen`` (n, d) where any are
    missing, and ``prior``. Densities are in nats.
    """

    num_components: int
    emission: Emission

    # ---- densities -------------------------------------------------------------------------------

    def log_prior(self, values: Values, data: Mapping[str, Any]) -> Array:
        """Log density (...) of weights and parameters in their constrained space, normalised."""
        site = Prior("Dirichlet", ("concentration",), (self.num_components,), ("component",))
        weights = site.log_density(np.asarray(values["weights"]), data["prior"])
        num_columns = np.shape(data["x"])[1]
        params = self.params(values, num_columns)
        return weights + self.emission.log_prior(params, data["prior"], self.num_components, num_columns)

    def log_likelihood(self, values: Values, data: Mapping[str, Any]) -> Array:
        """log p(observed entries of x_i | values), labels summed out, (..., n)."""
        draws, chunks = self._log_joint_chunks(values, data)
        parts = [np.asarray(logsumexp(terms, axis=-2)) for terms in chunks]
        return np.concatenate(parts).reshape(*draws, -1)

    def predict_proba(self, values: Values, data: Mapping[str, Any]) -> Array:
        """p(assignment_i = j | x_i, values), (..., n, k)."""
        draws, chunks = self._log_joint_chunks(values, data)
        parts = [np.swapaxes(np.exp(t - logsumexp(t, axis=-2, keepdims=True)), -1, -2) for t in chunks]
        out = np.concatenate(parts)
        return out.reshape(*draws, *out.shape[1:])

    def params(self, values: Values, num_columns: int) -> dict[str, Array]:
        """The emission's sites out of ``values``."""
        table = self.emission.sites(self.num_components, num_columns)
        return {name: np.asarray(values[name], dtype=float) for name in table}

    def _log_joint_chunks(
        self, values: Values, data: Mapping[str, Any]
    ) -> tuple[tuple[int, ...], Iterator[Array]]:
        """Draw axes, and log p(x_i, assignment_i = j | values) as (s, k, n) for a few draws at a time."""
        x, seen = np.asarray(data["x"], dtype=float), data.get("seen")
        weights = np.asarray(values["weights"], dtype=float)
        draws = weights.shape[:-1]
        table = self.emission.sites(self.num_components, x.shape[1])
        flat = {n: np.reshape(values[n], (-1, *site.shape)) for n, site in table.items()}
        with np.errstate(divide="ignore"):  # a weight of exactly 0 means no share of any datum
            logs = np.log(weights).reshape(-1, self.num_components)
        step = max(1, _CHUNK_ELEMENTS // (self.num_components * x.size))

        def chunks() -> Iterator[Array]:
            for first in range(0, len(logs), step):
                part = {n: v[first : first + step] for n, v in flat.items()}
                terms = self.emission.log_prob(numpy_library(), part, x, seen)
                yield logs[first : first + step, :, None] + terms

        return draws, chunks()

    # ---- draws -----------------------------------------------------------------------------------

    def latents(
        self, values: Values, data: Mapping[str, Any], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """One draw of ``assignment`` (s, n) from p(assignment | x, values) for each of s draws."""
        edges = np.cumsum(self.predict_proba(values, data), axis=-1)[..., :-1]
        return {"assignment": (rng.random(edges.shape[:-1])[..., None] >= edges).sum(-1)}

    def replicate(
        self, values: Values, data: Mapping[str, Any], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """New data of the size of x, labels drawn anew: ``obs`` (s, n, d), no entry missing."""
        return {"obs": self.sample(values, len(data["x"]), rng)["obs"]}

    def sample(self, values: Values, num: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """``num`` new rows for every draw: ``obs`` (..., num, d) and ``assignment`` (..., num)."""
        weights = np.asarray(values["weights"], dtype=float)
        edges = np.cumsum(weights, axis=-1)[..., None, :-1]
        assignment = (rng.random((*weights.shape[:-1], num))[..., None] >= edges).sum(-1)
        params = {name: np.asarray(v, dtype=float) for name, v in values.items() if name != "weights"}
        return {"obs": self.emission.sample(params, assignment, rng), "assignment": assignment}

    # ---- points ----------------------------------------------------------------------------------

    def initial_values(self, data: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Array]:
        """A start from k-means on the standardised columns, strictly inside every support."""
        from ppl_lvm.models.mixture._start import start_values

        return start_values(self, data, data["prior"], rng)

    def num_parameters(self, data: Mapping[str, Any]) -> int:
        """Free parameters, for AIC and BIC: k - 1 weights, and the emission's."""
        k = self.num_components
        return k - 1 + self.emission.num_parameters(k, np.shape(data["x"])[1])

    def em(
        self,
        data: Mapping[str, Any],
        *,
        num_init: int = 10,
        tol: float = 1e-6,
        max_iter: int = 1000,
        rng: np.random.Generator | None = None,
        start: Values | None = None,
        estimate: str = "ml",
        progress: Progress | None = None,
        recall: Recall | None = None,
    ) -> EMResult:
        """Maximum likelihood ("ml") or posterior mode ("map") by EM; see ``_em.em``."""
        from ppl_lvm.models.mixture._em import em

        return em(
            self,
            data,
            num_init=num_init,
            tol=tol,
            max_iter=max_iter,
            rng=rng if rng is not None else np.random.default_rng(0),
            start=start,
            estimate=estimate,
            progress=progress,
            recall=recall,
        )
