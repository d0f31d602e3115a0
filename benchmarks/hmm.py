"""Hidden Markov models (workload W3): likelihood, gradient and Baum-Welch, against plain JAX and peers.

    python benchmarks/hmm.py [--dtype float64 --runs 30]

64 sequences of 512 steps, 8 states, 4 normal columns. Calls alternate between ours and the others in
one process, after a warm-up each; a figure is the median wall time in milliseconds, the least beside it. The
floor is a scaled forward scan in plain JAX, differentiated automatically. hmmlearn (float64) and dynamax
(float32) take part where they are installed. Prints one line of JSON; ends with status 1 if two log
likelihoods differ by more than rounding.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from benchmarks.workloads import hidden_markov
from ppl_lvm import emissions
from ppl_lvm.models.hmm import HMM
from ppl_lvm.models.hmm._jax_densities import log_densities, time_major
from ppl_lvm.models.hmm._jax_forward import log_likelihood

EM_STEPS = 20
AGREEMENT = {"float64": 1e-9, "float32": 1e-5}  # relative; 3e4 terms of rounding
Params = Mapping[str, Any]


def ours(params: Params, x: Any) -> Any:
    """Total log likelihood by the package's twin; params are logits, means and log sds, x (S, T, d)."""
    lengths = jnp.full(x.shape[0], x.shape[1])
    valid = jnp.arange(x.shape[1])[:, None] < lengths
    own = {"loc": params["loc"], "scale": jnp.exp(params["log_scale"])}
    log_obs = log_densities(emissions.Gaussian(covariance="diag"), own, time_major(x), None, valid)
    start, transition = jax.nn.softmax(params["initial"]), jax.nn.softmax(params["transition"], -1)
    return log_likelihood(start, transition, log_obs, lengths).sum()


def floor(params: Params, x: Any) -> Any:
    """The same by a scaled scan in plain JAX, emission densities as two matrix products."""
    inverse = jnp.exp(-2 * params["log_scale"])
    constant = (0.5 * params["loc"] ** 2 * inverse + params["log_scale"] + 0.5 * jnp.log(2 * jnp.pi)).sum(-1)
    log_obs = -0.5 * (x * x) @ inverse.T + x @ (params["loc"] * inverse).T - constant
    top = log_obs.max(-1, keepdims=True)
    density = jnp.moveaxis(jnp.exp(log_obs - top), 1, 0)
    start, transition = jax.nn.softmax(params["initial"]), jax.nn.softmax(params["transition"], -1)

    def step(alpha: Any, own: Any) -> Any:
        alpha = (alpha @ transition) * own
        total = alpha.sum(-1, keepdims=True)
        return alpha / total, total[:, 0]

    first = start * density[0]
    scale = first.sum(-1, keepdims=True)
    _, rest = jax.lax.scan(step, first / scale, density[1:])
    return jnp.log(rest).sum() + jnp.log(scale).sum() + top.sum()


def baum_welch(workload: Mapping[str, np.ndarray]) -> Callable[[], float]:
    """A function that runs 20 iterations from the shared start and returns the log likelihood."""
    x = workload["x"]
    data = {"x": x, "lengths": np.full(len(x), x.shape[1]), "prior": {}}
    names = {"initial": "initial", "transition": "transition", "loc": "loc", "scale": "scale"}
    start = {site: workload[f"init_{name}"] for site, name in names.items()}
    exact = HMM(len(start["loc"]), emissions.Gaussian(covariance="diag")).exact
    return lambda: exact.em(data, start=start, max_iter=EM_STEPS, tol=0.0).log_likelihood


def hmmlearn_calls(workload: Mapping[str, np.ndarray]) -> dict[str, Callable[[], float]]:
    """Its faster implementation: log likelihood at the truth, and 20 iterations from the shared start."""
    if importlib.util.find_spec("hmmlearn") is None:
        return {}
    from hmmlearn.hmm import GaussianHMM

    flat = workload["x"].reshape(-1, workload["x"].shape[-1])
    lengths = [workload["x"].shape[1]] * len(workload["x"])

    def make(which: str, **settings: Any) -> Any:
        k = len(workload["loc"])
        made = GaussianHMM(k, covariance_type="diag", implementation="scaling", init_params="", **settings)
        made.startprob_, made.transmat_ = workload[f"{which}initial"], workload[f"{which}transition"]
        made.means_, made.covars_ = workload[f"{which}loc"].copy(), workload[f"{which}scale"] ** 2
        made.n_features = flat.shape[1]
        return made

    def fit() -> float:
        return make("init_", n_iter=EM_STEPS, tol=-np.inf).fit(flat, lengths).score(flat, lengths)

    return {"hmmlearn ll": lambda: make("").score(flat, lengths), "hmmlearn em": fit}


def dynamax_calls(workload: Mapping[str, np.ndarray], x: Any, dtype: str) -> dict[str, Callable[[], Any]]:
    """Its marginal likelihood, mapped over sequences, and the gradient of that."""
    if importlib.util.find_spec("dynamax") is None or dtype != "float32":
        return {}
    from dynamax.hidden_markov_model import DiagonalGaussianHMM

    model = DiagonalGaussianHMM(*workload["loc"].shape)
    params, _ = model.initialize(
        initial_probs=jnp.asarray(workload["initial"], dtype),
        transition_matrix=jnp.asarray(workload["transition"], dtype),
        emission_means=jnp.asarray(workload["loc"], dtype),
        emission_scale_diags=jnp.asarray(workload["scale"], dtype),
    )

    def total(p: Any, x: Any) -> Any:
        return jax.vmap(lambda one: model.marginal_log_prob(p, one))(x).sum()

    value, slope = jax.jit(total), jax.jit(jax.value_and_grad(total))
    return {"dynamax ll": lambda: value(params, x), "dynamax grad": lambda: slope(params, x)}


def measure(calls: Mapping[str, Callable[[], Any]], runs: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Milliseconds, median and least, and the log likelihood that each call found."""
    found = {name: jax.block_until_ready(call()) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - began)
    times = {n: [1e3 * statistics.median(s), 1e3 * min(s)] for n, s in seconds.items()}
    return times, {n: float(v[0] if isinstance(v, tuple) else v) for n, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--runs", type=int, default=30)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", args.dtype == "float64")
    workload = hidden_markov()
    x = jnp.asarray(workload["x"], args.dtype)
    truth = {
        "initial": np.log(workload["initial"]),
        "transition": np.log(workload["transition"]),
        "loc": workload["loc"],
        "log_scale": np.log(workload["scale"]),
    }
    params = {name: jnp.asarray(value, args.dtype) for name, value in truth.items()}
    calls: dict[str, Callable[[], Any]] = {}
    for name, function in (("ours", ours), ("floor", floor)):
        value, slope = jax.jit(function), jax.jit(jax.value_and_grad(function))
        calls[f"{name} ll"] = lambda value=value: value(params, x)
        calls[f"{name} grad"] = lambda slope=slope: slope(params, x)
    peers = hmmlearn_calls(workload) if args.dtype == "float64" else dynamax_calls(workload, x, args.dtype)
    fits = {name: call for name, call in peers.items() if name.endswith(" em")}
    calls |= {name: call for name, call in peers.items() if name not in fits}
    if args.dtype == "float64":
        fits["ours em"] = baum_welch(workload)
    times, values = measure(calls, args.runs)
    em_times, em_values = measure(fits, max(5, args.runs // 4))
    gaps = [
        abs(v / group[f"ours {kind}"] - 1)
        for group, kind in ((values, "ll"), (em_values, "em"))
        for v in group.values()
    ]
    agree = max(gaps, default=0.0) < AGREEMENT[args.dtype]
    print(json.dumps({"dtype": args.dtype, "milliseconds": {**times, **em_times}, "agree": agree}))
    if not agree:
        sys.exit("log likelihoods differ by more than rounding: the speeds are not comparable")


if __name__ == "__main__":
    main()
