"""Log densities by datum of some models of the zoo: labels summed out by hand, SciPy's densities."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats
from scipy.special import logsumexp


def _mixture_terms(v: Any, x: np.ndarray) -> np.ndarray:
    normal = stats.norm(v["loc"], v["scale"]).logpdf(x[:, None])
    return logsumexp(np.log(v["weights"]) + normal, axis=1)


def _class_terms(v: Any, y: np.ndarray) -> np.ndarray:
    by_class = stats.bernoulli(v["prob"]).logpmf(y[:, None]).sum(-1)
    return logsumexp(np.log(v["share"]) + by_class, axis=1)


def _cure_terms(v: Any, x: np.ndarray, time: np.ndarray, event: np.ndarray) -> np.ndarray:
    cured = 1 / (1 + np.exp(-(v["logits"][0] + v["logits"][1] * x)))
    density = cured * np.exp(-40.0) + (1 - cured) * v["rate"] * np.exp(-v["rate"] * time)
    survivor = cured + (1 - cured) * np.exp(-v["rate"] * time)
    return np.log(np.where(event, density, survivor))


def _abundance_terms(v: Any, counts: np.ndarray) -> np.ndarray:
    extra = np.arange(7)
    weights = stats.poisson(v["rate"]).pmf(extra)
    sizes = counts.max(1)[:, None] + extra
    chance = stats.binom(sizes[:, None, :], v["prob"]).logpmf(counts[:, :, None]).sum(1)
    return logsumexp(np.log(weights / weights.sum()) + chance, axis=1)


def _sequence_terms(v: Any, y: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The forward algorithm. A masked label counts 1 for each of its values, so its sum is 2: Pyro's way."""
    out = []
    for row, n in zip(y, lengths, strict=True):
        alpha = v["start"] * stats.norm(v["loc"], 1).pdf(row[0])
        for t in range(1, n):
            alpha = alpha @ v["moves"] * stats.norm(v["loc"], 1).pdf(row[t])
        out.append(np.log(alpha.sum()) + (max(lengths) - n) * np.log(2))
    return np.array(out)


def _topic_terms(v: Any, words: np.ndarray) -> np.ndarray:
    """With the Dirichlet density of the shares and its Jacobian, for shares are local: added by the test."""
    mixed = v["shares"][:, 0] @ v["topics"]
    return np.log(mixed)[np.arange(len(words))[:, None], words].sum(1)


def _zero_inflated_terms(v: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    present = 1 / (1 + np.exp(-v["slope"] * x))
    given = stats.poisson(v["rate"] + 1e-6).pmf(y) * present
    return np.log(given + stats.poisson(1e-6).pmf(y) * (1 - present))


def _school_terms(v: Any, y: np.ndarray, errors: np.ndarray) -> np.ndarray:
    return stats.norm(v["mu"], v["tau"]).logpdf(v["theta"]) + stats.norm(v["theta"], errors).logpdf(y)


FORMULAS = {
    "gaussian_mixture": lambda v, d: _mixture_terms(v, d["x"]),
    "latent_classes": lambda v, d: _class_terms(v, d["y"]),
    "cure": lambda v, d: _cure_terms(v, **d),
    "n_mixture": lambda v, d: _abundance_terms(v, **d),
    "hmm_plated": lambda v, d: _sequence_terms(v, **d),
    "lda_enumerated": lambda v, d: _topic_terms(v, **d),
    "zero_inflated_enumerated": lambda v, d: _zero_inflated_terms(v, **d),
    "schools_centred": lambda v, d: _school_terms(v, **d),
}
