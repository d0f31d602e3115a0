"""SVI on minibatches of a mixture beside the optimum of all rows, which is found without any of our code.

    python benchmarks/svi_optimum.py [--rows 1000000] [--steps 10000] [--decays default 1] [--seeds 3]

With so many rows the posterior is Gaussian about the mode of the likelihood (the prior moves it by 1e-3 sds),
which Newton steps from the truth find. The best guide of independent blocks has its mean there, and in each
block the inverse of that block of minus the Hessian (for the weights, whose block is a Dirichlet, the nearest
that it has). Shifts are in the sds of this guide, widths over them; ``short`` is by how many nats the bound
is below that of the best guide.
"""

from __future__ import annotations

import argparse
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from svi_batches import BATCH, moments, rows_of

PRIOR = {"concentration": 2.0, "loc_mean": 0.0, "loc_scale": 4.0, "scale_loc": 0.0, "scale_scale": 0.75}
START = ([0.5, 0.2, 0.3], [[-2.0, 0.0], [0.0, 4.0], [2.0, 1.0]], [0.5, 1.0, 0.8])


def unpack(point):
    """Log weights (3,), locations (3, 2), log scales (3, 2) of a point (14,)."""
    logits = jnp.concatenate([jnp.zeros(1), point[:2]])
    return jax.nn.log_softmax(logits), point[2:8].reshape(3, 2), point[8:].reshape(3, 2)


def log_likelihood(point, x):
    weights, loc, scale = unpack(point)
    z = (x[:, None, :] - loc) / jnp.exp(scale)
    terms = weights - 0.5 * (z**2).sum(-1) - scale.sum(-1) - jnp.log(2 * jnp.pi)
    return jax.nn.logsumexp(terms, axis=1).sum()


def log_prior(weights, loc, log_scale) -> float:
    """Of log ratios of the weights to the first, locations and log scales."""
    found = stats.dirichlet.logpdf(weights, np.full(3, PRIOR["concentration"])) + np.log(weights).sum()
    found += stats.norm.logpdf(loc, PRIOR["loc_mean"], PRIOR["loc_scale"]).sum()
    return float(found + stats.norm.logpdf(log_scale, PRIOR["scale_loc"], PRIOR["scale_scale"]).sum())


def optimum(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Means and sds of the best guide, in the order of :func:`svi_batches.moments`, and its bound.

    The weights' block is a Dirichlet distribution of best concentration. The guide's 3! relabelled copies
    count, as in ``fit.evidence``.
    """
    blocks = [jnp.asarray(b) for b in np.array_split(x, 10)]
    gradient, hessian = jax.jit(jax.grad(log_likelihood)), jax.jit(jax.hessian(log_likelihood))
    weights, loc, scale = (np.array(v) for v in START)
    start = [np.log(weights[1:] / weights[0]), loc.ravel(), np.log(np.repeat(scale, 2))]
    point = jnp.asarray(np.concatenate(start))
    for _ in range(4):
        curvature = sum(hessian(point, b) for b in blocks)
        point = point - jnp.linalg.solve(curvature, sum(gradient(point, b) for b in blocks))
    precision = -np.asarray(sum(hessian(point, b) for b in blocks))
    logs, loc, scale = (np.asarray(v) for v in unpack(point))
    weights = np.exp(logs)
    # a Dirichlet of concentration c: log ratios have the covariance of these differences of logs over c
    differences = np.array([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    shape = differences @ np.diag(1 / weights) @ differences.T
    concentration = np.trace(precision[:2, :2] @ shape) / 2
    covariances = [shape / concentration]
    covariances += [np.linalg.inv(precision[p, p]) for p in (slice(2, 4), slice(4, 6), slice(6, 8))]
    covariances += [1 / precision[i : i + 1, i : i + 1] for i in range(8, 14)]
    entropy = sum(np.linalg.slogdet(2 * np.pi * c)[1] / 2 for c in covariances)  # and the expected quadratic
    top = sum(float(log_likelihood(point, b)) for b in blocks) + log_prior(weights, loc, scale)
    sds = [np.sqrt(weights * (1 - weights) / concentration), *(np.sqrt(np.diag(c)) for c in covariances[1:])]
    mean = np.concatenate([weights, loc.ravel(), scale.ravel()])
    return mean, np.concatenate(sds), top + entropy + np.log(6)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--decays", nargs="+", default=["default", "1"])
    args = parser.parse_args()
    import ppl_lvm as lvm

    x = rows_of(args.rows)
    with jax.enable_x64(True):
        mean, sd, best = optimum(x)
    answers = []
    for decay in args.decays:
        settings = {
            "num_steps": args.steps,
            "learning_rate_decay": None if decay == "default" else float(decay),
            "early_stop": False,
            "num_draws": 200,
        }
        for seed in range(args.seeds):
            engine = lvm.SVI(backend="numpyro", batch_size=BATCH, **settings)
            fit = lvm.fit(lvm.models.GaussianMixture(3, covariance="diag", **PRIOR), x, engine, seed=seed)
            found, spread = moments(fit.params)
            shift = (found - mean) / sd
            answer = {
                "decay": decay, "seed": seed, "shift_rms": round(float(np.sqrt((shift**2).mean())), 3),
                "largest_shift": round(float(np.abs(shift).max()), 3),
                "widths": [round(float(v), 3) for v in ((spread / sd)[3:].min(), (spread / sd)[3:].max())],
                "short": round(best - fit.evidence.nats, 3), "short_error": round(fit.evidence.std_error, 3),
                "seconds": round(fit.meta["wall_seconds"], 1),
            }  # fmt: skip
            answers.append(answer)
    sys.stdout.write(json.dumps({"rows": args.rows, "steps": args.steps, "runs": answers}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
