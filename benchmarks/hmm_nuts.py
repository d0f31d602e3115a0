"""NUTS on a Gaussian HMM, ours beside NumPyro's own scan with enumeration, in one run.

    python benchmarks/hmm_nuts.py [--rounds 1] [--sequences 8 --length 100]

Both sample the same posterior (k = 3 states, d = 2, diagonal) in float64 from the same start, 4 chains.
NumPyro runs its program as its documentation writes it (``contrib.control_flow.scan``, enumerated states)
with vectorised chains, inside one ``jit`` that is warm, so that compilation is apart on both sides. The
figure is the smallest bulk ESS over all scalars, states ordered by their first mean, divided by the seconds
of the whole warm call. Prints one line of JSON, with the largest difference of posterior means in joint
standard errors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from benchmarks.workloads import hidden_markov

Draws = dict[str, np.ndarray]
K, D, CHAINS = 3, 2, 4
PRIOR = {"loc_scale": 5.0, "scale_loc": 0.0, "scale_scale": 0.75, "concentration": 1.5}


def start(data: dict[str, np.ndarray]) -> Draws:
    return {
        "initial": np.full(K, 1 / K),
        "transition": data["init_transition"],
        "loc": data["loc"] + 0.1,
        "scale": np.ones((K, D)),
    }


def ours(data: dict[str, np.ndarray], warmup: int, draws: int) -> Callable[[int], Draws]:
    import ppl_lvm as lvm
    from ppl_lvm import emissions, models

    emission = emissions.Gaussian(
        "diag",
        loc_mean=0.0,
        loc_scale=PRIOR["loc_scale"],
        scale_loc=PRIOR["scale_loc"],
        scale_scale=PRIOR["scale_scale"],
    )
    model = models.HMM(
        K,
        emission,
        initial_concentration=PRIOR["concentration"],
        transition_concentration=PRIOR["concentration"],
    )
    engine = lvm.NUTS(backend="numpyro", num_warmup=warmup, num_samples=draws, num_chains=CHAINS)

    def run(seed: int) -> Draws:
        fit = lvm.fit(model, data["x"], engine, seed=seed, init=start(data), progress=False)
        return {name: fit.posterior[name].values for name in start(data)}

    return run


def numpyro_scan(data: dict[str, np.ndarray], warmup: int, draws: int) -> Callable[[int], Draws]:
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.control_flow import scan
    from numpyro.infer import MCMC, NUTS, init_to_value

    x = jnp.asarray(np.moveaxis(data["x"], 1, 0))

    def model(x: Any) -> None:
        alpha = jnp.full(K, PRIOR["concentration"])
        initial = numpyro.sample("initial", dist.Dirichlet(alpha))
        transition = numpyro.sample("transition", dist.Dirichlet(alpha).expand([K]).to_event(1))
        loc = numpyro.sample("loc", dist.Normal(0.0, PRIOR["loc_scale"]).expand([K, D]).to_event(2))
        spread = dist.LogNormal(PRIOR["scale_loc"], PRIOR["scale_scale"])
        scale = numpyro.sample("scale", spread.expand([K, D]).to_event(2))
        rows = jnp.concatenate([transition, initial[None]])

        def step(z: Any, now: Any) -> Any:
            with numpyro.plate("sequence", x.shape[1], dim=-1):
                z = numpyro.sample("z", dist.Categorical(rows[z]), infer={"enumerate": "parallel"})
                numpyro.sample("obs", dist.Normal(loc[z], scale[z]).to_event(1), obs=now)
            return z, None

        scan(step, jnp.full(x.shape[1], K), x)  # row K is the start distribution

    first = {k: jnp.asarray(v) for k, v in start(data).items()}

    @jax.jit
    def sample(key: Any) -> Any:
        mcmc = MCMC(
            NUTS(model, init_strategy=init_to_value(values=first)),
            num_warmup=warmup,
            num_samples=draws,
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(key, x)
        return mcmc.get_samples(group_by_chain=True)

    def run(seed: int) -> Draws:
        return {k: np.asarray(v) for k, v in sample(jax.random.key(seed)).items()}

    return run


def scalars(draws: Draws) -> np.ndarray:
    """(chain, draw, quantity), states in the order of their first mean."""
    order = np.argsort(draws["loc"][..., 0], -1)
    initial = np.take_along_axis(draws["initial"], order, -1)
    rows = np.take_along_axis(draws["transition"], order[..., None], -2)
    parts = [initial, np.take_along_axis(rows, order[..., None, :], -1)]
    parts += [np.take_along_axis(draws[k], order[..., None], -2) for k in ("loc", "scale")]
    return np.concatenate([p.reshape(*p.shape[:2], -1) for p in parts], -1)


def summary(draws: Draws) -> tuple[float, np.ndarray, np.ndarray]:
    """Smallest bulk ESS; means and their standard errors."""
    from arviz_stats.base import array_stats

    flat = scalars(draws)
    bulk = array_stats.ess(flat, chain_axis=0, draw_axis=1, method="bulk")
    mean_ess = array_stats.ess(flat, chain_axis=0, draw_axis=1, method="mean")
    return float(np.min(bulk)), flat.mean((0, 1)), flat.std((0, 1)) / np.sqrt(mean_ess)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--draws", type=int, default=300, help="kept draws a chain, after as many of warm-up")
    options = parser.parse_args()
    import jax

    jax.config.update("jax_enable_x64", True)  # a script of its own: both sides in float64
    data = hidden_markov(options.sequences, options.length, K, D)
    makers = {"ppl_lvm": ours, "numpyro scan": numpyro_scan}
    jobs = {name: make(data, options.draws, options.draws) for name, make in makers.items()}
    first, rates, seconds, found = {}, {n: [] for n in jobs}, {n: [] for n in jobs}, {}
    for name, job in jobs.items():
        began = time.perf_counter()
        job(0)
        first[name] = time.perf_counter() - began
    for i in range(options.rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            draws = job(i + 1)
            seconds[name].append(time.perf_counter() - began)
            ess, *found[name] = summary(draws)
            rates[name].append(ess / seconds[name][-1])
    (mean, error), (other, other_error) = found["ppl_lvm"], found["numpyro scan"]
    median = {n: statistics.median(v) for n, v in rates.items()}
    result = {
        "workload": "HMM NUTS",
        "min_ess_per_s": median,
        "seconds": {n: statistics.median(v) for n, v in seconds.items()},
        "first_call_seconds": first,
        "ratio": median["ppl_lvm"] / median["numpyro scan"],
        "largest_gap_in_errors": float(np.max(np.abs(mean - other) / np.hypot(error, other_error))),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
