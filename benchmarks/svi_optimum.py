"""SVI on minibatches of a mixture beside the optimum of all rows, which is found without any of our code.

    python benchmarks/svi_optimum.py [--rows 1000000] [--steps 10000] [--decays 1 0.05] [--seeds 1]

With so many rows the posterior is Gaussian about the mode of the likelihood (the prior moves it by 1e-3 sds),
which Newton steps from the truth find. The best guide of independent blocks has its mean there, and in each
block the inverse of that block of minus the Hessian. Shifts are in the sds of this guide, widths over them.
"""

from __future__ import annotations

import argparse
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from svi_batches import BATCH, moments, rows_of

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


def optimum(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of the best guide, in the order of :func:`svi_batches.moments`."""
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
    parts = [slice(2 + 2 * k, 4 + 2 * k) for k in range(3)]
    loc_sd = [np.sqrt(np.diag(np.linalg.inv(precision[p, p]))) for p in parts]
    sds = [np.sqrt(weights * (1 - weights) / len(x)), *loc_sd, 1 / np.sqrt(np.diag(precision)[8:])]
    return np.concatenate([weights, loc.ravel(), scale.ravel()]), np.concatenate(sds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--decays", type=float, nargs="+", default=[1.0, 0.05])
    args = parser.parse_args()
    import ppl_lvm as lvm

    x = rows_of(args.rows)
    with jax.enable_x64(True):
        mean, sd = optimum(x)
    answers = []
    for decay in args.decays:
        settings = {
            "num_steps": args.steps,
            "learning_rate_decay": decay,
            "early_stop": False,
            "num_draws": 50,
        }
        for seed in range(args.seeds):
            engine = lvm.SVI(backend="numpyro", batch_size=BATCH, **settings)
            fit = lvm.fit(lvm.models.GaussianMixture(3, covariance="diag"), x, engine, seed=seed)
            found, spread = moments(fit.params)
            shift = (found - mean) / sd
            answer = {
                "decay": decay, "seed": seed, "shift_rms": round(float(np.sqrt((shift**2).mean())), 3),
                "largest_shift": round(float(np.abs(shift).max()), 3),
                "widths": [round(float(v), 3) for v in ((spread / sd)[3:].min(), (spread / sd)[3:].max())],
                "evidence": [fit.evidence.nats, fit.evidence.std_error],
                "seconds": round(fit.meta["wall_seconds"], 1),
            }  # fmt: skip
            answers.append(answer)
    sys.stdout.write(json.dumps({"rows": args.rows, "steps": args.steps, "runs": answers}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
