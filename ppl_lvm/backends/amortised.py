"""Models whose latents are all local, with a guide program: what both backends give for them.

Everything is in constrained space: the model's and the guide's densities are of the same values, so that no
Jacobian is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ppl_lvm.core import Problem

Arrays = Mapping[str, np.ndarray]
Rows = Mapping[str, np.ndarray]
Moments = dict[str, tuple[np.ndarray, np.ndarray]]
BLOCK = 2000
"""Data times particles that are worked on at once, unless a caller says otherwise."""


class Terms(NamedTuple):
    """Per particle and datum, (K, b) each, nats: log p(x | z), log p(z), log q(z | x).

    ``kl`` (b, L) is KL(q(z | x) || p(z)) in closed form, by latent dimension where both factorise over these
    (L = q), else in all (L = 1); None where there is no closed form.
    """

    log_lik: Any
    log_prior: Any
    log_q: Any
    kl: Any | None

    @property
    def log_weight(self) -> Any:
        return self.log_lik + self.log_prior - self.log_q


class Bounds(NamedTuple):
    """log of the mean weight of each datum (n,), its standard error by the delta method, and the effective
    number of weights, 1 / sum of squared normalised weights."""

    value: np.ndarray
    std_error: np.ndarray
    ess: np.ndarray

    @classmethod
    def of_sums(cls, first: np.ndarray, second: np.ndarray, num: int, power: float) -> Bounds:
        """From log sum w and log sum w^2 of ``num`` weights raised to ``power``."""
        value = (first - math.log(num)) / power
        ess = np.exp(2 * first - second)
        if num == 1:  # one draw says nothing of its error
            return cls(value, np.full_like(value, np.nan), ess)
        spread = np.maximum(num / ess - 1, 0.0) / (num - 1)  # variance of the mean over its square
        return cls(value, np.sqrt(spread) / abs(power), ess)


class Evaluator(Protocol):
    """Functions of trained params and rows of data; at most ``block`` data times particles at once."""

    def moments(self, params: Arrays, data: Rows, seed: int, block: int) -> Moments:
        """Mean and sd of q(z | x) by site, (n, ...)."""

    def draw(self, params: Arrays, data: Rows, num: int, seed: int, block: int) -> Arrays:
        """Draws of q(z | x) by site, (num, n, ...)."""

    def elbo(self, params: Arrays, data: Rows, num: int, seed: int, block: int) -> Arrays:
        """``bound`` (n,), ``std_error`` of ``num`` draws, the parts ``log_lik`` (n,) and ``kl`` (n, L)."""

    def importance(
        self, params: Arrays, data: Rows, num: int, seed: int, block: int, alpha: float = 0.0
    ) -> Bounds:
        """The Renyi bound of ``num`` particles for each datum (alpha = 0: IWAE)."""

    def log_weights(self, params: Arrays, data: Rows, num: int, seed: int, block: int) -> np.ndarray:
        """log p(x, z) - log q(z | x) of draws of q, (num, n)."""

    def prior(self, params: Arrays, data: Rows, seed: int, block: int) -> Arrays:
        """A draw of the latents from the model's prior for each row, (n, ...) by site."""

    def observed(self, params: Arrays, data: Rows, values: Arrays, seed: int, block: int) -> Moments:
        """Mean of and draw from p(x | z) at latents (n, ...) by observed site; ``data`` gives shapes."""

    def terms_at(
        self, params: Arrays, data: Rows, values: Arrays
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log p(x | z), log p(z), log q(z | x) at latents (num, n, ...), (num, n) each."""


def joined(parts: Sequence[Mapping[str, tuple[Any, Any]]]) -> Moments:
    """Pairs by site of several blocks of rows as those of all rows."""
    return {
        n: (np.concatenate([p[n][0] for p in parts]), np.concatenate([p[n][1] for p in parts]))
        for n in parts[0]
    }


def blocks_of(n: int, num: int, block: int) -> tuple[int, int, int]:
    """(rows, particles, number of blocks of particles): rows times particles stay within ``block``."""
    particles = min(num, max(1, block // min(n, 10)))
    rows = max(1, block // particles)
    return rows, particles, -(-num // particles)


def amortised(problem: Problem, backend: str, guide: Any = None) -> bool:
    """Whether a backend has a guide program for the model, and every latent is local and continuous."""
    program = problem.model.numpyro if backend == "numpyro" else problem.model.pyro
    latents = problem.latents()
    if (
        program is None
        or (program.guide is None and guide is None)
        or not latents
        or problem.data_plate is None
    ):
        return False
    inside = all(s.local and not s.discrete for s in latents)
    held = problem.model.held_sites
    observed = [s for s in problem.sites.values() if s.kind == "observed" and s.name not in held]
    return inside and all(s.local and not s.is_factor for s in observed)


def evaluator(problem: Problem, backend: str = "auto") -> Evaluator:
    """The evaluations on one backend; "auto" is JAX where the model runs there.

    Raises
    ------
    ValueError
        If the model has latents outside the data plate, or no guide.
    """
    if backend == "auto":
        backend = "numpyro" if amortised(problem, "numpyro") else "pyro"
    if not amortised(problem, backend):
        raise ValueError(
            f"{problem.model.describe()} has no amortised guide on {backend}: all its latents must lie in "
            "the data plate, and a guide must give them as a function of the data."
        )
    if backend == "numpyro":
        from ppl_lvm.backends._numpyro_evaluate import JaxEvaluator

        return JaxEvaluator(problem)
    from ppl_lvm.backends._pyro_evaluate import TorchEvaluator

    return TorchEvaluator(problem)
