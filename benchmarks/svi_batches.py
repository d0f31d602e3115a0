"""SVI on minibatches of many rows: peak memory beyond the data, time, and how far the optimum is from that of
all data.

    python benchmarks/svi_batches.py [--rows 100000 1000000] [--backends numpyro pyro] [--steps 3000]
    python benchmarks/svi_batches.py --known [--rows 1000000]

Each run is a process of its own; memory is the highest resident size less that before the fit (libraries and
data loaded). A run on JAX is made twice and the second one counts: it reads its compiled programs from a
cache, since the compiler's own memory (hundreds of MB) is the same at any number of rows. The optimum is
compared with that of steps on all data (JAX), in posterior sds and by the ratio of sds; with ``--known``,
that of a normal mean with its posterior in closed form, over eight seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BATCH = 1000


def rows_of(n: int) -> np.ndarray:
    """Three clusters in two dimensions, (n, 2)."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    centres = np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, 4.0]])
    return centres[labels] + np.array([0.5, 0.8, 1.0])[labels, None] * rng.standard_normal((n, 2))


def memory() -> tuple[float, float]:
    """Resident size now and at its highest, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: float(line.split()[1]) / 1024 for line in lines if line.startswith("Vm")}
    return found["VmRSS"], found["VmHWM"]


def one(args: argparse.Namespace) -> None:
    """One fit; a JSON line of what it took and where it ended."""
    import ppl_lvm as lvm
    from ppl_lvm import SVI, models

    settings = {"num_steps": args.steps, "early_stop": False}
    if not args.batch:  # as runs on batches have it by default
        settings |= {"average": True, "num_draws": 50}
    engine = SVI(backend=args.backend, batch_size=args.batch or None, **settings)
    model = models.GaussianMixture(3, covariance="diag")
    # libraries, and for JAX the compiler, are in place before memory is looked at
    warm = SVI(backend=args.backend, batch_size=100 if args.batch else None, num_steps=20, num_draws=20)
    lvm.fit(model, rows_of(2000), warm)
    if args.mapped:
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "x.npy", rows_of(args.n))
            measured(lvm, model, np.load(Path(folder) / "x.npy", mmap_mode="r"), engine, args)
    else:
        measured(lvm, model, rows_of(args.n), engine, args)


def measured(lvm, model, x: np.ndarray, engine, args: argparse.Namespace) -> None:
    before, began = memory()[0], time.perf_counter()
    fit = lvm.fit(model, x, engine, seed=args.seed)
    seconds = time.perf_counter() - began
    mean, sd = moments(fit.params)
    answer = {
        "peak_mb": round(memory()[1] - before, 1), "data_mb": round(x.nbytes / 2**20, 1),
        "seconds": round(seconds, 1), "evidence": fit.evidence.nats, "evidence_error": fit.evidence.std_error,
        "note": fit.evidence.note, "mean": mean.tolist(), "sd": sd.tolist(),
    }  # fmt: skip
    sys.stdout.write(json.dumps(answer) + "\n")


def moments(params) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of the guide's weights, locations and log scales, clusters in order, from its params."""
    order = np.argsort(params["loc_loc"][:, 0])
    counts = params["weights_concentration"][order]
    weights = counts / counts.sum()
    mean = [weights, params["loc_loc"][order], params["scale_loc"][order]]
    loc_sd = np.sqrt((params["loc_tril"][order] ** 2).sum(-1))
    sd = [np.sqrt(weights * (1 - weights) / (counts.sum() + 1)), loc_sd, params["scale_scale"][order]]
    return np.concatenate([v.ravel() for v in mean]), np.concatenate([v.ravel() for v in sd])


def known(n: int, steps: int, seeds: int = 8) -> dict:
    """Batches of n rows of y ~ N(mu, 2), mu ~ N(0, 10): how far the fit is from the closed form.

    Shifts are in posterior sds, widths are sds over that of the posterior; root mean squares, means with
    their errors, and extremes are over seeds.
    """
    import pyro
    import pyro.distributions as dist

    import ppl_lvm as lvm

    def location(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(mu, 2.0), obs=y)

    y = 1.0 + 2.0 * np.random.default_rng(0).standard_normal(n)
    precision = 1 / 100 + n / 4
    mean, sd = y.sum() / 4 / precision, precision**-0.5
    settings = {"num_steps": steps, "early_stop": False, "num_draws": 100}
    fits = [
        lvm.fit(location, y, lvm.SVI(backend="numpyro", batch_size=BATCH, **settings), seed=s)
        for s in range(seeds)
    ]
    shift = (np.array([f.params["loc"].item() for f in fits]) - mean) / sd
    width = np.exp([f.params["log_scale"].item() for f in fits]) / sd
    return {
        "posterior": [float(mean), float(sd)],
        "seeds": seeds,
        "shift_rms": round(float(np.sqrt((shift**2).mean())), 4),
        "largest_shift": round(float(np.abs(shift).max()), 4),
        "width": [round(float(width.mean()), 4), round(float(width.std(ddof=1) / seeds**0.5), 4)],
        "widths": [round(float(width.min()), 4), round(float(width.max()), 4)],
        "outcomes": sorted({f.status.outcome.name for f in fits}),
        "last_gain": [round(f.status.details["last_gain"], 3) for f in fits],
        "gain_error": [round(f.status.details["gain_error"], 3) for f in fits],
        "seconds": round(float(np.median([f.meta["wall_seconds"] for f in fits])), 2),
    }


def run(**settings: object) -> dict:
    command = [sys.executable, __file__, "--one"]
    for key, value in settings.items():
        command += [f"--{key}"] if value is True else [f"--{key}", str(value)]
    env = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with tempfile.TemporaryDirectory() as cache:
        env |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for _ in range(2 if settings["backend"] == "numpyro" else 1):
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--backends", nargs="+", default=["numpyro", "pyro"])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--full-steps", type=int, default=2000, help="on all rows; 0: not run")
    for name, kind, default in (
        ("n", int, 0),
        ("seed", int, 0),
        ("batch", int, BATCH),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=argparse.SUPPRESS)
    parser.add_argument("--backend", default="numpyro", help=argparse.SUPPRESS)
    parser.add_argument("--mapped", action="store_true", help="rows from a memory-mapped file")
    parser.add_argument("--known", action="store_true", help="a posterior in closed form instead")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args)
        return 0
    if args.known:
        found = {n: known(n, args.steps) for n in args.rows}
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    answer: dict[str, object] = {"batch": BATCH, "steps": args.steps}
    for n in args.rows:
        mean = sd = None
        if args.full_steps:
            full = run(n=n, backend="numpyro", batch=0, steps=args.full_steps)
            mean, sd = np.array(full["mean"]), np.array(full["sd"])
            answer[f"{n} all rows"] = {k: full[k] for k in ("peak_mb", "data_mb", "seconds", "evidence")}
        for backend in args.backends:
            mapped = {"mapped": True} if args.mapped else {}
            runs = [run(n=n, backend=backend, steps=args.steps, seed=s, **mapped) for s in (0, 1)]
            found = {k: runs[0][k] for k in ("peak_mb", "seconds", "evidence", "evidence_error", "note")}
            if sd is not None:
                shift = [np.abs((np.array(r["mean"]) - mean) / sd) for r in runs]
                found["shift_in_sds"] = round(float(np.sqrt(np.mean(np.square(shift)))), 3)
                found["largest_shift"] = round(float(np.max(shift)), 3)
                width = np.array([r["sd"] for r in runs]) / sd
                found["width"] = [round(float(v), 3) for v in (width.min(), np.median(width), width.max())]
                between = np.array(runs[0]["mean"]) - np.array(runs[1]["mean"])
                found["between_seeds"] = round(float(np.sqrt(np.mean((between / sd) ** 2) / 2)), 3)
            answer[f"{n} {backend}"] = found
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
