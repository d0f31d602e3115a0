"""MNIST with the one-layer architecture of Burda, Grosse and Salakhutdinov (2016): VAE against IWAE.

    python benchmarks/mnist.py --mnist PATH [--passes 4] [--seeds 3] [--images 1000] [--particles 5000]

784-200-200-50 with tanh units, dynamic binarisation, batches of 20, Adam; per seed one VAE with k = 1, one
VAE and one IWAE with k = 50 samples. The test bound is the IWAE bound of ``--particles`` samples on the first
``--images`` test images, binarised once. Prints one JSON line; a run's line is written as it ends, so that a
stopped run can be read and goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import ppl_lvm as lvm
from ppl_lvm import ELBO, SVI, Renyi, models, networks
from ppl_lvm.data import load_mnist

OBJECTIVES: dict[str, Any] = {
    "vae_k1": ELBO(),
    "vae_k50": ELBO(num_particles=50),
    "iwae_k50": Renyi(num_particles=50),
}


def one(name: str, seed: int, data: Any, args: argparse.Namespace) -> dict[str, Any]:
    model = models.VAE(
        latent_dim=50,
        encoder=networks.MLP((200, 200), activation="tanh"),
        decoder=networks.MLP((200, 200), activation="tanh"),
        binarise=True,
    )
    engine = SVI(
        backend="numpyro",
        objective=OBJECTIVES[name],
        batch_size=20,
        num_epochs=args.passes,
        learning_rate=1e-3,
        checkpoint=str(args.out / f"{name}_{seed}"),
    )
    began = time.perf_counter()
    fit = lvm.fit(model, data.x_train.reshape(-1, 784), engine, seed=seed, progress=False)
    trained = time.perf_counter() - began
    test = data.x_test[: args.images].reshape(-1, 784)
    began = time.perf_counter()
    scores = fit.log_predictive(test, num_particles=args.particles)
    curve = fit.groups["training"]["bound"].values
    return {
        "name": name,
        "seed": seed,
        "passes": args.passes,
        "test_nll": round(-float(scores.pointwise.mean()), 3),
        "test_mc_error": round(float(np.sqrt((scores.std_error**2).sum()) / len(test)), 4),
        "per_image": [round(float(v), 4) for v in scores.pointwise],
        "curve": [round(float(v), 3) for v in curve],
        "train_seconds": round(trained, 1),
        "evaluate_seconds": round(time.perf_counter() - began, 1),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and paired differences (IWAE less VAE, over images and seeds)."""
    out: dict[str, Any] = {}
    for name in OBJECTIVES:
        found = [r for r in rows if r["name"] == name]
        if found:
            out[name] = {
                k: round(float(np.mean([r[k] for r in found])), 3) for k in ("test_nll", "train_seconds")
            }
            out[name]["by_seed"] = [r["test_nll"] for r in found]
    images = {(r["name"], r["seed"]): np.array(r["per_image"]) for r in rows}
    for other in ("vae_k1", "vae_k50"):
        seeds = [s for n, s in images if n == other and ("iwae_k50", s) in images]
        gaps = [images["iwae_k50", s] - images[other, s] for s in seeds]
        if gaps:
            mean = np.mean(gaps, 0)
            error = float(mean.std(ddof=1) / np.sqrt(len(mean)))
            out[f"iwae_k50 - {other}"] = {
                "nats": round(float(mean.mean()), 3),
                "std_error_over_images": round(error, 4),
                "by_seed": [round(float(g.mean()), 3) for g in gaps],
            }
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mnist", required=True, help="mnist.npz or a folder with the IDX files")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--particles", type=int, default=5000)
    parser.add_argument("--only", nargs="*", default=list(OBJECTIVES))
    parser.add_argument("--out", type=Path, default=Path("out/mnist"))
    args = parser.parse_args()
    data = load_mnist(args.mnist)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(args.seeds):
        for name in args.only:
            path = args.out / f"{name}_{seed}_{args.passes}_{args.particles}_{args.images}.json"
            if not path.exists():
                path.write_text(json.dumps(one(name, seed, data, args)))
            rows.append(json.loads(path.read_text()))
            print(
                json.dumps({k: v for k, v in rows[-1].items() if k != "per_image"}),
                file=sys.stderr,
                flush=True,
            )
    print(
        json.dumps(
            {"passes": args.passes, "images": args.images, "particles": args.particles, **summary(rows)}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
