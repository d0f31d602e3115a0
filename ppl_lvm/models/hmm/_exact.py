r"""What a hidden Markov model has in closed form: likelihood, smoothing, paths, forecasts. NumPy only.

The model, its sites and their supports are those of :mod:`ppl_lvm.models.hmm`. States are summed out by the
forward recursion,

.. math::

    \alpha_t(j) = p(x_t \mid z_t = j) \sum_i \alpha_{t-1}(i) A_{ij}, \qquad
    p(x_{1:T}) = \sum_j \alpha_T(j).

Source: Rabiner (1989), *Proceedings of the IEEE* 77, sections III and V; Cappe, Moulines and Ryden,
*Inference in Hidden Markov Models* (2005).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.emissions import Emission
from ppl_lvm.models.hmm import _forward, _paths
from ppl_lvm.models.hmm._layout import (
    MARKOV_SITES,
    Rows,
    emission_values,
    log_densities,
    rows_of,
    site_table,
    start_distribution,
)

if TYPE_CHECKING:
    from ppl_lvm.models._restarts import Recall
    from ppl_lvm.models.hmm._em import EMResult, Progress
    from ppl_lvm.models.hmm._em_estep import EStep
    from ppl_lvm.models.hmm._filter import Filter

Array = np.ndarray
Values = Mapping[str, Any]
_CHUNK = 4_000_000  # numbers of one array in a pass over draws: 32 MB


@dataclass(frozen=True)
class HMMExact:
    """Closed forms of an HMM with ``num_states`` states.

    Every method takes ``values``, a mapping from site name to array with any draw axes in front (the same on
    every site), and ``data``, the program's arguments: ``x`` (S, T, d) with missing entries and steps beyond
    a sequence's end filled by a legal value, ``lengths`` (S,), ``seen`` (S, T, d) where something is
    missing, and ``prior``. Time runs along a padded axis: results are NaN (probabilities, data) or -1
    (states) beyond a sequence's end. One sequence keeps its axis, S = 1. Densities are in nats.

    ``compiled_e_step``, called with the emission, the kind of start, the rows and the number of E-steps to be
    expected, makes the E-step of Baum-Welch, compiled where that pays; None leaves all to NumPy.
    """

    num_states: int
    emission: Emission
    initial: str = "free"
    compiled_e_step: Callable[..., EStep] | None = None

    # ---- densities -------------------------------------------------------------------------------

    def log_prior(self, values: Values, data: Mapping[str, Any]) -> Array:
        """Log density (...) of the sites in constrained space, normalised."""
        table = self._sites(np.shape(data["x"])[-1])
        prior = {name: np.asarray(value, dtype=float) for name, value in data["prior"].items()}
        own_sites = [n for n in table if n in MARKOV_SITES]
        terms = [table[n].log_density(np.asarray(values[n], dtype=float), prior) for n in own_sites]
        own = self.emission.log_prior(
            emission_values({n: values[n] for n in table}), prior, self.num_states, np.shape(data["x"])[-1]
        )
        return np.asarray(sum(terms, start=np.zeros(())) + own)

    def log_likelihood(self, values: Values, data: Mapping[str, Any]) -> Array:
        """log p(x_s | values) of each sequence, states summed out, (..., S)."""
        draws, flat = self._flat(values, data)
        parts = [_forward.log_likelihood(*args) for args in self._chunks(flat, rows_of(data))]
        return np.concatenate(parts).reshape(*draws, -1)

    def predict_proba(self, values: Values, data: Mapping[str, Any]) -> Array:
        """Smoothing: p(state at t = j | all of the sequence, values), (..., S, T, k); NaN beyond the end."""
        draws, flat = self._flat(values, data)
        rows, parts = rows_of(data), []
        for args in self._chunks(flat, rows):
            states = np.moveaxis(_forward.smooth(*args, rows.valid).states, (1, 2, 3), (3, 2, 1))
            parts.append(np.where(rows.valid.T[..., None], states, np.nan))
        found = np.concatenate(parts)
        return found.reshape(*draws, *found.shape[1:])

    def predict(self, values: Values, data: Mapping[str, Any]) -> Array:
        """Viterbi: the paths (S, T) of greatest mean over draws of log p(path, x | draw); -1 beyond the end.

        For one draw that is the most probable path given the data. Draws must be relabelled.
        """
        _, flat = self._flat(values, data)
        rows, total, count = rows_of(data), None, 0
        for start, transition, log_obs in self._chunks(flat, rows):
            with np.errstate(divide="ignore"):
                terms = [np.log(start).sum(0), np.log(transition).sum(0), log_obs.sum(0)]
            total = terms if total is None else [a + b for a, b in zip(total, terms, strict=True)]
            count += len(start)
        if total is None:
            raise ValueError("values: expected at least one draw, got none.")
        start, transition, log_obs = (term / count for term in total)
        return _paths.viterbi(start, transition, log_obs, rows.valid)

    # ---- draws -----------------------------------------------------------------------------------

    def latents(self, values: Values, data: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Array]:
        """A path for each draw, by forward filtering, backward sampling: ``states`` (..., S, T)."""
        draws, flat = self._flat(values, data)
        rows, parts = rows_of(data), []
        for args in self._chunks(flat, rows):
            parts.append(_paths.sample_paths(_forward.forward(*args).log_filtered, args[1], rows.valid, rng))
        found = np.concatenate(parts)
        return {"states": found.reshape(*draws, *found.shape[1:])}

    def replicate(
        self, values: Values, data: Mapping[str, Any], rng: np.random.Generator
    ) -> dict[str, Array]:
        """New sequences of the observed lengths: ``obs`` (..., S, T, d), NaN where the data have no value."""
        num, length, _ = np.shape(data["x"])
        obs = self.sample(values, num, rng, length=length)["obs"]
        there = np.arange(length) < np.asarray(data["lengths"])[:, None]
        keep = there[..., None] & (np.asarray(data["seen"]) > 0 if data.get("seen") is not None else True)
        return {"obs": np.where(keep, obs, np.nan)}

    def sample(
        self, values: Values, num: int, rng: np.random.Generator, length: int = 100
    ) -> dict[str, Array]:
        """New sequences for each draw: ``obs`` (..., num, length, d), ``states`` (..., num, length)."""
        for name, value in (("num", num), ("length", length)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value!r}.")
        draws, flat = self._flat(values)
        path = _paths.simulate(self._start(flat), flat["transition"], num, length, rng)
        obs = self._emit(flat, path, rng)
        return {"obs": obs.reshape(*draws, *obs.shape[1:]), "states": path.reshape(*draws, num, length)}

    # ---- the future ------------------------------------------------------------------------------

    def forecast(
        self, values: Values, data: Mapping[str, Any], steps: int, rng: np.random.Generator
    ) -> dict[str, Array]:
        """The next steps of each sequence, a draw: ``obs`` (..., S, steps, d), ``states`` (..., S, steps)."""
        draws, flat = self._flat(values, data)
        ahead = self._last_filtered(flat, data) @ flat["transition"]
        num = ahead.shape[1]
        path = _paths.simulate(ahead, flat["transition"], num, steps, rng)
        obs = self._emit(flat, path, rng)
        return {"obs": obs.reshape(*draws, *obs.shape[1:]), "states": path.reshape(*draws, num, steps)}

    def forecast_proba(self, values: Values, data: Mapping[str, Any], steps: int) -> Array:
        """p(state h steps after the end = j | sequence, values) for h = 1..steps, (..., S, steps, k)."""
        draws, flat = self._flat(values, data)
        found = [self._last_filtered(flat, data) @ flat["transition"]]
        for _ in range(steps - 1):
            found.append(found[-1] @ flat["transition"])
        out = np.stack(found, axis=2)
        return out.reshape(*draws, *out.shape[1:])

    def filter(self, values: Values) -> Filter:
        """Filtering of one observation at a time, at all draws; see :class:`._filter.Filter`."""
        from ppl_lvm.models.hmm._filter import Filter

        _, flat = self._flat(values)
        return Filter(self._start(flat), flat["transition"], emission_values(flat), self.emission)

    # ---- point estimates -------------------------------------------------------------------------

    def initial_values(self, data: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Array]:
        """A start from k-means on the rows, strictly inside every support; see :mod:`._start`."""
        from ppl_lvm.models.hmm._start import starting_point

        return starting_point(self.num_states, self.emission, self.initial, data, rng, 0)

    def sample_size(self, data: Mapping[str, Any]) -> int:
        """What BIC counts: observed steps (Zucchini, MacDonald and Langrock 2016, section 6.1)."""
        inside = np.arange(np.shape(data["x"])[1]) < np.asarray(data["lengths"])[:, None]
        if data.get("seen") is not None:
            inside = inside & (np.asarray(data["seen"]) > 0).any(-1)
        return int(inside.sum())

    def num_parameters(self, data: Mapping[str, Any]) -> int:
        """Free parameters, for AIC and BIC: k - 1 (only if free), k (k - 1) and the emission's."""
        k = self.num_states
        start = k - 1 if self.initial == "free" else 0
        return start + k * (k - 1) + self.emission.num_parameters(k, np.shape(data["x"])[-1])

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
        """Baum-Welch: maximum likelihood ("ml") or posterior mode ("map"); see :func:`._em.em`."""
        from ppl_lvm.models.hmm._em import em

        return em(
            self,
            data,
            num_init=num_init,
            tol=tol,
            max_iter=max_iter,
            rng=rng,
            start=start,
            estimate=estimate,
            progress=progress,
            recall=recall,
        )

    # ---- helpers ---------------------------------------------------------------------------------

    def _sites(self, num_columns: int) -> dict[str, Any]:
        return site_table(self.num_states, num_columns, self.emission, self.initial)

    def _start(self, flat: Values) -> Array:
        return start_distribution(flat, self.initial)

    def _flat(
        self, values: Values, data: Mapping[str, Any] | None = None
    ) -> tuple[tuple[int, ...], dict[str, Array]]:
        """Draw axes, and the sites with them as one leading axis; shapes are checked against the data's."""
        if "transition" not in values:
            raise ValueError("values: expected the site 'transition' of shape (..., k, k); pass all sites.")
        draws = np.shape(values["transition"])[:-2]
        if data is None:  # nothing to check against
            return draws, {
                n: np.asarray(v, float).reshape(-1, *np.shape(v)[len(draws) :]) for n, v in values.items()
            }
        width, flat = np.shape(data["x"])[-1], {}
        for name, site in (table := self._sites(width)).items():
            if name not in values:
                raise ValueError(f"values: the site {name!r} is missing; pass all sites, {list(table)}.")
            value = np.asarray(values[name], dtype=float)
            if value.shape[len(draws) :] != site.shape:
                raise ValueError(
                    f"values: site {name!r} has shape {value.shape[len(draws) :]}, but data with {width} "
                    f"columns need {site.shape}; the data must have the columns of the fit."
                )
            flat[name] = value.reshape(-1, *site.shape)
        return draws, flat

    def _chunks(self, flat: Values, rows: Rows) -> Iterator[tuple[Array, Array, Array]]:
        """(start, transition, log_obs) of a few draws at a time."""
        start, transition = self._start(flat), flat["transition"]
        size = max(1, _CHUNK // (self.num_states * rows.valid.size))
        for i in range(0, len(start), size):
            few = emission_values({n: v[i : i + size] for n, v in flat.items()})
            log_obs = log_densities(self.emission, few, rows)
            yield start[i : i + size], transition[i : i + size], log_obs

    def _last_filtered(self, flat: Values, data: Mapping[str, Any]) -> Array:
        """p(state at the end | sequence), (m, S, k): each sequence at its own last step."""
        rows = rows_of(data)
        last, every = np.asarray(data["lengths"]) - 1, np.arange(rows.valid.shape[1])
        parts = []
        for args in self._chunks(flat, rows):
            log_filtered = _forward.forward(*args).log_filtered
            parts.append(np.exp(log_filtered[last, :, :, every]).swapaxes(0, 1))
        return np.concatenate(parts)

    def _emit(self, flat: Values, path: Array, rng: np.random.Generator) -> Array:
        """Rows (m, num, length, d) for paths (m, num, length)."""
        rows = self.emission.sample(emission_values(flat), path.reshape(len(path), -1), rng)
        return rows.reshape(*path.shape, -1)
