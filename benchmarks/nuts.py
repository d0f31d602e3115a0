"""Workload W1: NUTS on a Gaussian mixture (k=3, d=2, n=1000, diagonal), ours beside its peers in one run.

    python benchmarks/nuts.py [--rounds 3] [--dtype float64] [--pyro]

Every peer runs the same posterior from the same starting point, 4 chains x (500 warm-up + 500 kept). After
one warm call each (compilation apart), rounds alternate between peers. The figure is the smallest bulk ESS
over the 15 scalars divided by the seconds of the whole warm call, for ours that of ``lvm.fit``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
from workloads import gaussian_mixture_nuts

CHAINS, WARMUP, DRAWS, K, D = 4, 500, 500, 3, 2
Draws = dict[str, np.ndarray]


def start(data: dict) -> dict[str, np.ndarray]:
    return {"weights": np.full(K, 1 / K), "loc": data["loc"] + 0.3, "scale": np.ones((K, D))}


def min_ess(draws: Draws) -> float:
    """Smallest bulk ESS after ordering the components by their first location."""
    from arviz_stats.base import array_stats

    order = np.argsort(draws["loc"][..., 0], -1)
    weights = np.take_along_axis(draws["weights"], order, -1)
    rest = [np.take_along_axis(draws[k], order[..., None], -2) for k in ("loc", "scale")]
    flat = np.concatenate([weights, *(r.reshape(*r.shape[:2], -1) for r in rest)], -1)
    return float(np.min(array_stats.ess(flat, chain_axis=0, draw_axis=1, method="bulk")))


def ours(
    data: dict, dtype: str, kernel: str = "blackjax", seconds: list | None = None
) -> Callable[[int], Draws]:
    import ppl_lvm as lvm
    from ppl_lvm import models

    model = models.GaussianMixture(
        K, "diag", concentration=2.0, loc_mean=0.0, loc_scale=5.0, scale_loc=0.0, scale_scale=1.0
    )
    engine = lvm.NUTS(
        backend="numpyro", num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS, kernel=kernel
    )

    def run(seed: int) -> Draws:
        fit = lvm.fit(model, data["x"], engine, seed=seed, init=start(data), dtype=dtype, progress=False)
        if seconds is not None:
            seconds.append(fit.meta["wall_seconds"])
        return {k: fit.posterior[k].values for k in ("weights", "loc", "scale")}

    return run


def numpyro_vectorized(data: dict, dtype: str) -> Callable[[int], Draws]:
    """NumPyro as its users run it: ``MCMC(..., chain_method="vectorized").run``."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS, init_to_value

    def model(x: jax.Array) -> None:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(K, 2.0)))
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0).expand([K, D]).to_event(2))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0).expand([K, D]).to_event(2))
        component = dist.Normal(loc, scale).to_event(1)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("obs", dist.MixtureSameFamily(dist.Categorical(weights), component), obs=x)

    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(data["x"], dtype)
        values = {k: jnp.asarray(v, dtype) for k, v in start(data).items()}
        kernel = NUTS(model, init_strategy=init_to_value(values=values))
        mcmc = MCMC(
            kernel,
            num_warmup=WARMUP,
            num_samples=DRAWS,
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )

    def run(seed: int) -> Draws:
        with jax.enable_x64(dtype == "float64"):
            mcmc.run(jax.random.key(seed), x)
            return {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}

    return run


def blackjax_sequential(data: dict, dtype: str) -> Callable[[int], Draws]:
    """Hand-written density, BlackJAX's window adaptation and NUTS, chains in turn in one program."""
    import blackjax
    import jax
    import jax.numpy as jnp

    def one(key: jax.Array, x: jax.Array, q0: dict) -> dict:
        def log_density(q: dict) -> jax.Array:
            log_w = jax.nn.log_softmax(jnp.concatenate([jnp.zeros(1, x.dtype), q["a"]]))
            z = (x[:, None] - q["loc"]) * jnp.exp(-q["log_scale"])
            each = log_w - 0.5 * (z * z).sum(-1) - q["log_scale"].sum(-1)
            prior = (
                2.0 * log_w.sum() - 0.5 * ((q["loc"] / 5.0) ** 2).sum() - 0.5 * (q["log_scale"] ** 2).sum()
            )
            return prior + jax.scipy.special.logsumexp(each, -1).sum()

        key_warm, key_draw = jax.random.split(key)
        warm = blackjax.window_adaptation(blackjax.nuts, log_density, target_acceptance_rate=0.8)
        (state, settings), _ = warm.run(key_warm, q0, num_steps=WARMUP)
        step = blackjax.nuts(log_density, **settings).step

        def body(state: object, key: jax.Array) -> tuple:
            state, _ = step(key, state)
            return state, state.position

        return jax.lax.scan(body, state, jax.random.split(key_draw, DRAWS))[1]

    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(data["x"], dtype)
        s = start(data)
        q0 = {
            "a": jnp.zeros(K - 1, dtype),
            "loc": jnp.asarray(s["loc"], dtype),
            "log_scale": jnp.log(jnp.asarray(s["scale"], dtype)),
        }
        many = jax.jit(lambda keys, x, q0: jax.lax.map(lambda k: one(k, x, q0), keys))

    def run(seed: int) -> Draws:
        with jax.enable_x64(dtype == "float64"):
            out = many(jax.random.split(jax.random.key(seed), CHAINS), x, q0)
            a, loc, log_scale = (np.asarray(out[k]) for k in ("a", "loc", "log_scale"))
        w = np.exp(np.concatenate([np.zeros((*a.shape[:-1], 1)), a], -1))
        return {"weights": w / w.sum(-1, keepdims=True), "loc": loc, "scale": np.exp(log_scale)}

    return run


def pyro_rate(data: dict) -> float:
    """min ESS/s of Pyro's NUTS (float64, one chain of 100 + 100), scaled to the full run by transitions."""
    import ppl_lvm as lvm
    from ppl_lvm import models

    model = models.GaussianMixture(
        K, "diag", concentration=2.0, loc_mean=0.0, loc_scale=5.0, scale_loc=0.0, scale_scale=1.0
    )
    engine = lvm.NUTS(backend="pyro", num_warmup=100, num_samples=100, num_chains=1)
    fit = lvm.fit(model, data["x"], engine, init=start(data), progress=False)
    draws = {k: fit.posterior[k].values for k in ("weights", "loc", "scale")}
    return min_ess(draws) / fit.meta["wall_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"))
    parser.add_argument("--pyro", action="store_true", help="also run Pyro's NUTS (minutes)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data = gaussian_mixture_nuts()
    engine_seconds: list[float] = []
    peers = {
        "ppl_lvm": ours(data, args.dtype, seconds=engine_seconds),
        "ppl_lvm, numpyro kernel": ours(data, args.dtype, kernel="numpyro"),
        "numpyro vectorized": numpyro_vectorized(data, args.dtype),
        "blackjax sequential": blackjax_sequential(data, args.dtype),
    }
    compile_seconds, rates, seconds = {}, {k: [] for k in peers}, {k: [] for k in peers}
    for name, run in peers.items():
        began = time.perf_counter()
        run(0)
        compile_seconds[name] = time.perf_counter() - began
    engine_seconds.clear()
    for round_ in range(args.rounds):
        for name, run in peers.items():
            began = time.perf_counter()
            draws = run(1 + round_)
            took = time.perf_counter() - began
            seconds[name].append(took)
            rates[name].append(min_ess(draws) / took)
    median = {k: statistics.median(v) for k, v in rates.items()}
    overhead = [a - b for a, b in zip(seconds["ppl_lvm"], engine_seconds, strict=True)]
    out = {
        "workload": "W1",
        "dtype": args.dtype,
        "min_ess_per_s": median,
        "seconds": {k: statistics.median(v) for k, v in seconds.items()},
        "first_call_seconds": compile_seconds,
        "times_numpyro_vectorized": median["ppl_lvm"] / median["numpyro vectorized"],
        "times_blackjax_sequential": median["ppl_lvm"] / median["blackjax sequential"],
        "fit_overhead_ms": 1e3 * statistics.median(overhead),
        "fit_overhead_share": statistics.median(overhead) / statistics.median(engine_seconds),
    }
    if args.pyro:
        out["min_ess_per_s"]["pyro"] = pyro_rate(data)
    print(json.dumps(out, default=float))


if __name__ == "__main__":
    main()
