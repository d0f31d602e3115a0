"""Compile cost: the first and the second fit of each model, and those of a later process.

    python benchmarks/compile.py [--case gmm,...]

Each model and engine runs in a process of its own with an empty cache, where it is fitted twice (the second
time on other data of the same shapes), and once more in a process with the cache that the first left. Runs
are short, so that seconds are those of tracing and compiling. Programs are counted by JAX's own events; those
of the later process are read from the cache. Prints one line of JSON; ends with status 1 if a second fit
compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import ppl_lvm as lvm
from ppl_lvm import NUTS, SVI, models, networks

CHAINS = NUTS(backend="numpyro", num_warmup=50, num_samples=50)
STEPS = SVI(backend="numpyro", num_steps=200, window=50)
Case = tuple[Callable[[], Any], tuple[int, ...], Any]


def eight_schools(y: Any, sigma: Any) -> None:
    import pyro
    import pyro.distributions as dist

    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def vae() -> Any:
    net = networks.MLP((64,))
    return models.VAE(latent_dim=3, encoder=net, decoder=net, likelihood="gaussian")


MODELS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "gmm": (lambda: models.GaussianMixture(3), (300, 2)),
    "mixture": (lambda: models.Mixture(2, lvm.emissions.Gaussian("diag")), (300, 2)),
    "hmm": (lambda: models.HMM(2, lvm.emissions.Gaussian("diag")), (200, 1)),
    "ppca": (lambda: models.PPCA(2), (200, 6)),
    "factor_analysis": (lambda: models.FactorAnalysis(2), (200, 6)),
}
CASES: dict[str, Case] = {
    **{f"{name}, NUTS": (make, shape, CHAINS) for name, (make, shape) in MODELS.items()},
    **{f"{name}, SVI": (make, shape, STEPS) for name, (make, shape) in MODELS.items()},
    "eight schools translated, NUTS": (lambda: eight_schools, (8,), CHAINS),
    "vae, SVI": (vae, (400, 16), SVI(backend="numpyro", batch_size=100, num_epochs=2)),
}


def data_of(shape: tuple[int, ...], seed: int) -> Any:
    rng = np.random.default_rng(seed)
    if shape == (8,):
        return {"y": 10 * rng.standard_normal(8), "sigma": rng.uniform(9, 18, 8)}
    groups = rng.integers(0, 3, shape[0])[:, None]
    return 4.0 * groups + rng.standard_normal(shape)


def one(name: str, fits: int) -> list[dict[str, float]]:
    """Seconds and compiled programs of fits one after another, each on data of its own."""
    import jax

    make, shape, engine = CASES[name]
    compiled: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    out = []
    for seed in range(fits):
        compiled.clear()
        began = time.perf_counter()
        lvm.fit(make(), data_of(shape, seed), engine, seed=seed, progress=False)
        out.append({"seconds": round(time.perf_counter() - began, 3), "programs": len(compiled)})
    return out


def in_process(name: str, fits: int, cache: str) -> list[dict[str, float]]:
    env = {**os.environ, "PPL_LVM_CACHE": cache}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, __file__, "--one", name, str(fits)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", default="", help="words, separated by commas, of which a case has one")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one[0], int(args.one[1]))))
        return 0
    words = [w for w in args.case.split(",") if w]
    table = {}
    for name in CASES:
        if words and not any(w in name for w in words):
            continue
        with tempfile.TemporaryDirectory() as cache:
            first, second = in_process(name, 2, cache)
            (later,) = in_process(name, 1, cache)
        table[name] = {"first": first, "second": second, "later_process": later}
    print(json.dumps(table))
    return int(any(row["second"]["programs"] for row in table.values()))


if __name__ == "__main__":
    sys.exit(main())
