"""The automatic twin: gradients against hand-written twins and Pyro, and NUTS end to end against Pyro's.

    python benchmarks/translation.py [--runs 5] [--nuts [--case mixture]] [--warm]

Gradients: microseconds of one value and gradient in a compiled loop of ``LOOP`` of them, of the translated
Pyro program and of the NumPyro twin written by hand, in turn in one process, float64; Pyro's is its own
``initialize_model`` potential and torch's gradient. ``--nuts`` runs ``fit(..., NUTS)`` in its own process
with an empty cache (translation, compilation and all), then with a full one, and Pyro's NUTS with the same
settings (or ``--pyro-chains`` of the chains: Pyro runs them one after another, so that the rate is the same).
The figure is the smallest bulk ESS over scalars that labels, signs and rotations do not change, a second of
the whole call. ``--case`` picks some of the cases. ``--warm`` times a fit in a second process.
Prints one line of JSON; ends with status 1 if two densities differ by more than rounding.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import ppl_lvm as lvm
from benchmarks.translated_models import Case, cases
from ppl_lvm.backends._numpyro import density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.fitting import prepare

LOOP = 500
NUTS_CASES = ("eight_schools", "mixture", "ppca", "hierarchical_logit")
CHAINS, WARMUP, DRAWS = 4, 500, 500


def looped(density: Density, data: Any) -> Callable[[Any], Any]:
    """A compiled walk of ``LOOP`` gradients, each taken where the last one led."""

    def walk(flat: Any) -> Any:
        def step(_: int, carry: tuple) -> tuple:
            flat, total = carry
            value, slope = jax.value_and_grad(lambda f: density.total(density.unflatten(f), data, {}))(flat)
            return flat + 1e-9 * slope, total + value

        return jax.lax.fori_loop(0, LOOP, step, (flat, jnp.zeros(())))

    return jax.jit(walk)


def pyro_gradient(case: Case, runs: int) -> float:
    """Median microseconds of Pyro's own potential and its gradient."""
    import pyro
    import torch
    from pyro.infer.mcmc.util import initialize_model

    pyro.set_rng_seed(0)
    args = {k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in case.data.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pyro says of a program is not what is timed
        start, potential, _, _ = initialize_model(case.program, model_kwargs=args, max_plate_nesting=1)
    times = []
    for _ in range(max(20, 4 * runs)):
        point = {k: v.detach().clone().requires_grad_() for k, v in start.items()}
        began = time.perf_counter()
        value = potential(point)
        torch.autograd.grad(value, list(point.values()))
        times.append(time.perf_counter() - began)
    return 1e6 * statistics.median(times)


def gradients(runs: int) -> tuple[dict[str, Any], bool]:
    import torch

    torch.set_default_dtype(torch.float64)
    table, agree = {}, True
    for name, case in cases().items():
        found = lvm.translate(case.program, case.data)
        problem = prepare(lvm.Model(case.program, numpyro=case.twin), case.data)
        twin, data = density_of(problem)
        walks = {"translated": looped(found.density, data), "twin": looped(twin, data)}
        flat = jnp.full(twin.size, 0.1)
        values = {k: float(w(flat)[1]) for k, w in walks.items()}
        agree &= abs(values["translated"] - values["twin"]) <= 1e-9 * abs(values["twin"])
        times: dict[str, list[float]] = {k: [] for k in walks}
        for _ in range(runs):
            for key, walk in walks.items():
                began = time.perf_counter()
                jax.block_until_ready(walk(flat))
                times[key].append((time.perf_counter() - began) / LOOP * 1e6)
        row = {k: statistics.median(v) for k, v in times.items()} | {"pyro": pyro_gradient(case, runs)}
        row |= {"to_twin": row["translated"] / row["twin"], "over_pyro": row["pyro"] / row["translated"]}
        table[name] = {k: round(v, 3) for k, v in row.items()} | {"num_ops": found.num_ops}
    ratios = [r["to_twin"] for r in table.values()]
    over = [r["over_pyro"] for r in table.values()]
    table["geometric_mean"] = {"to_twin": round(_mean(ratios), 3), "over_pyro": round(_mean(over), 1)}
    return table, agree


def _mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values))


def one_fit(name: str, backend: str, chains: int) -> None:
    """Run in a process of its own: seconds of the whole call and the smallest bulk ESS."""
    case = cases()[name]
    engine = lvm.NUTS(backend=backend, num_warmup=WARMUP, num_samples=DRAWS, num_chains=chains)
    began = time.perf_counter()
    fit = lvm.fit(case.program, case.data, engine, progress=False)
    seconds = time.perf_counter() - began
    draws = {str(k): v.values for k, v in fit.posterior.data_vars.items()}
    ess = [_ess(v) for v in INVARIANTS.get(name, lambda d: d)(draws).values()]
    print(json.dumps({"seconds": seconds, "min_ess": min(ess), "chains": chains}))


def _ess(draws: np.ndarray) -> float:
    """The smallest bulk ESS of (chain, draw, ...)."""
    from arviz_stats.base import array_stats

    flat = draws.reshape(*draws.shape[:2], -1)
    return min(
        float(array_stats.ess(flat[..., i], chain_axis=0, draw_axis=1, method="bulk"))
        for i in range(flat.shape[-1])
    )


def _in_one_order(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    order = draws["loc"][..., 0].argsort(-1)  # the components lie apart along the first column
    return {
        k: np.take_along_axis(v, order.reshape(*order.shape, *[1] * (v.ndim - 3)), 2)
        for k, v in draws.items()
    }


def _covariance(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    w = draws["loadings"]
    rows, columns = np.tril_indices(w.shape[-2])
    return {"noise": draws["noise"], "covariance": (w @ np.swapaxes(w, -1, -2))[..., rows, columns]}


INVARIANTS = {"mixture": _in_one_order, "ppca": _covariance}


def _in_process(name: str, backend: str, cache: str, chains: int = CHAINS) -> dict[str, float]:
    env = {**os.environ, "PPL_LVM_CACHE": cache, "JAX_ENABLE_X64": "0"}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, __file__, "--one", name, backend, str(chains)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def end_to_end(names: list[str], pyro_chains: int) -> dict[str, Any]:
    table = {}
    for name in names:
        with tempfile.TemporaryDirectory() as cache:
            ours = _in_process(name, "numpyro", cache)
            warm = _in_process(name, "numpyro", cache)
        theirs = _in_process(name, "pyro", "off", pyro_chains)
        rates = [r["min_ess"] / r["seconds"] for r in (ours, warm, theirs)]
        table[name] = {
            "ours": ours,
            "ours_second_process": warm,
            "pyro": theirs,
            "ratio": rates[0] / rates[2],
            "ratio_second_process": rates[1] / rates[2],
        }
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--nuts", action="store_true", help="NUTS end to end, with Pyro's (minutes)")
    parser.add_argument("--warm", action="store_true", help="eight schools in a second process")
    parser.add_argument("--case", nargs="+", choices=NUTS_CASES, default=list(NUTS_CASES), help="for --nuts")
    parser.add_argument("--pyro-chains", type=int, default=CHAINS, help="chains of Pyro's NUTS")
    parser.add_argument("--no-gradients", action="store_true", help="leave the gradients out")
    parser.add_argument("--one", nargs=3, metavar=("CASE", "BACKEND", "CHAINS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one_fit(args.one[0], args.one[1], int(args.one[2]))
        return 0
    jax.config.update("jax_enable_x64", True)
    result: dict[str, Any] = {}
    agree = True
    if not args.no_gradients:
        result["gradient_microseconds"], agree = gradients(args.runs)
    if args.nuts:
        result["nuts"] = end_to_end(args.case, args.pyro_chains)
    if args.warm:
        with tempfile.TemporaryDirectory() as cache:
            fits = [_in_process("eight_schools", "numpyro", cache) for _ in range(1 + args.runs)]
        result["eight_schools_seconds"] = {
            "first_process": fits[0]["seconds"],
            "later_processes": [f["seconds"] for f in fits[1:]],
        }
    print(json.dumps(result))
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
