r"""Maximum likelihood of factor analysis and PPCA from one covariance matrix S. NumPy only.

Given the noise variances psi the best loadings are known: with (lambda_j, u_j) the eigenpairs of
psi^{-1/2} S psi^{-1/2}, W = psi^{1/2} U_q (Lambda_q - I)^{1/2} (Joreskog 1967, *Psychometrika* 32). What is
left is a function of theta = log psi, here -2 / n times the log likelihood without its constant,

.. math:: f(\theta) = \sum_f \theta_f + \sum_{j \le q} (1 + \log \lambda_j) + \sum_{j > q} \lambda_j,

with every lambda_j below 1 among the first q counted as in the second sum. Newton steps with the exact second
derivatives reach its minimum in a handful of eigendecompositions, where EM takes hundreds of steps.
For PPCA (one psi for all columns) the minimum is closed (Tipping and Bishop 1999, JRSS B 61).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
_SHORT = 0.1  # change of the log variances over which the curvature stays the same to a few percent


@dataclass(frozen=True)
class ProfileFit:
    """Loadings (d, q), noise variances (d,), f after each step, and whether the steps came to rest."""

    loadings: Array
    variance: Array
    trace: tuple[float, ...]
    converged: bool
    bounded: Array  # columns whose noise variance stopped at the floor


def principal(covariance: Array, latent_dim: int, variance: float | None = None) -> tuple[Array, float]:
    """Tipping and Bishop's loadings (d, q) and noise variance; ``variance`` holds the noise fixed."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = float(np.maximum(values[latent_dim:], 0.0).mean()) if variance is None else variance
    length = np.sqrt(np.maximum(values[:latent_dim] - noise, 0.0))
    return vectors[:, :latent_dim] * length, noise


def smc_start(covariance: Array, latent_dim: int) -> Array:
    """Noise variances (1 - q / 2d) / (S^-1)_ff (Joreskog 1967): what other columns do not predict."""
    d = len(covariance)
    spread = covariance.diagonal()
    root = np.sqrt(spread)
    ridge = covariance / np.outer(root, root) + 1e-8 * np.eye(d)
    unique = 1.0 / np.linalg.inv(ridge).diagonal()
    return spread * np.clip((1.0 - 0.5 * latent_dim / d) * unique, 1e-3, 1.0)


def maximise(
    covariance: Array,
    latent_dim: int,
    start: Array,
    *,
    floor: Array,
    tol: float = 1e-10,
    max_iter: int = 100,
) -> ProfileFit:
    """Minimise f by projected Newton steps from noise variances ``start`` (d,).

    ``floor`` (d,) is the least noise variance: at a Heywood case the likelihood is highest at a noise of 0.
    Steps end when f would fall by less than ``tol``.
    """
    low = np.log(np.maximum(floor, np.finfo(float).tiny))
    theta = np.maximum(np.log(start), low)
    here = _evaluate(theta, covariance, latent_dim)
    trace, converged = [here.value], False
    step: _Step | None = None
    for _ in range(max_iter):
        free = (theta > low) | (here.slope <= 0)
        gain = np.inf if step is None else step.gain_left(here.slope, free)
        if step is None or gain >= tol:
            step = _step(here, free)
            gain = step.gain
        if gain < tol:
            theta, settled = _settle(theta, low, here, covariance, latent_dim)
            if settled is here:
                converged = True
                break
            here, step = settled, None
            trace.append(here.value)
            continue
        moved = _search(theta, low, step.move, here, covariance, latent_dim)
        if moved is None:
            converged = gain < 1e3 * tol  # rounding hides what is left
            break
        theta, here = moved
        trace.append(here.value)
    length = np.sqrt(np.maximum(here.values[:latent_dim] - 1.0, 0.0))
    loadings = np.exp(0.5 * theta)[:, None] * here.vectors[:, :latent_dim] * length
    return ProfileFit(loadings, np.exp(theta), tuple(trace), converged, np.flatnonzero(theta <= low))


@dataclass(frozen=True)
class _Here:
    value: float
    slope: Array  # df / dtheta, (d,)
    values: Array  # eigenvalues, descending
    vectors: Array
    num: int  # factors in use: at most q, eigenvalues above 1


def _evaluate(theta: Array, covariance: Array, latent_dim: int) -> _Here:
    root = np.exp(-0.5 * theta)
    values, vectors = np.linalg.eigh(covariance * np.outer(root, root))
    values, vectors = values[::-1], vectors[:, ::-1]
    num = int((values[:latent_dim] > 1.0).sum())
    value = theta.sum() + num + np.log(values[:num]).sum() + values[num:].sum()
    rest = vectors[:, num:]
    slope = (rest**2) @ (1.0 - values[num:])
    return _Here(float(value), slope, values, vectors, num)


def _settle(theta: Array, low: Array, here: _Here, covariance: Array, latent_dim: int) -> tuple[Array, _Here]:
    """Take noise that is on its slow way to the floor there, where f is no higher."""
    small = np.log(0.01 * np.maximum(covariance.diagonal(), np.finfo(float).tiny))
    for f in np.flatnonzero((theta > low) & (theta < small)):
        trial = theta.copy()
        trial[f] = low[f]
        there = _evaluate(trial, covariance, latent_dim)
        if there.value <= here.value:
            theta, here = trial, there
    return theta, here


@dataclass(frozen=True)
class _Step:
    """A step over the free coordinates (d,), the gain that it promises, the curvature's Cholesky factor."""

    move: Array
    gain: float
    free: Array
    factor: Array | None = None

    def gain_left(self, slope: Array, free: Array) -> float:
        """What another step would gain at ``slope``; infinity where this step's curvature does not tell."""
        from scipy.linalg.lapack import dpotrs

        near = self.factor is not None and np.abs(self.move).max() < _SHORT
        if not near or not np.array_equal(free, self.free):
            return np.inf
        return float(0.5 * slope[free] @ dpotrs(self.factor, slope[free])[0])


def _step(here: _Here, free: Array) -> _Step:
    """A Newton step over the free coordinates."""
    from scipy.linalg.lapack import dposv

    move = np.zeros_like(here.slope)
    if not free.any():
        return _Step(move, 0.0, free)
    slope = here.slope[free]
    rest = here.vectors[:, here.num :]
    for newton in (True, False):  # the second is positive where the first may not be
        matrix = _curvature(here) if newton else (rest @ rest.T) ** 2 + 1e-9 * np.eye(len(rest))
        factor, solved, failed = dposv(matrix if free.all() else matrix[np.ix_(free, free)], slope)
        if not failed:  # only a positive one leads down
            move[free] = -solved
            return _Step(move, float(0.5 * slope @ solved), free, factor)
    move[free] = -slope
    return _Step(move, float(0.5 * slope @ slope), free)


def _curvature(here: _Here) -> Array:
    """Second derivatives of f (after Clarke 1970, *British J. Math. Stat. Psychology* 23)."""
    top, rest = here.values[: here.num], here.values[here.num :]
    first, others = here.vectors[:, : here.num], here.vectors[:, here.num :]
    matrix = ((others * rest) @ others.T) * (others @ others.T)
    weight = (1.0 - rest) * (top[:, None] + rest) / np.maximum(top[:, None] - rest, 1e-12 * top[:, None])
    pairs = (first[:, :, None] * others[:, None, :]).reshape(len(first), -1)
    product: Array = matrix + (pairs * weight.ravel()) @ pairs.T
    return product


def _search(
    theta: Array, low: Array, step: Array, here: _Here, covariance: Array, latent_dim: int
) -> tuple[Array, _Here] | None:
    """Halve the step until f falls as it should (Armijo); None where no step does."""
    step = np.clip(step, -5.0, 5.0)
    for power in range(30):
        trial = np.maximum(theta + 0.5**power * step, low)
        there = _evaluate(trial, covariance, latent_dim)
        wanted = 1e-4 * here.slope @ (trial - theta)
        if there.value <= here.value + min(wanted, 0.0) and there.value < here.value:
            return trial, there
    return None
