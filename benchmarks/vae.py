"""W5 and W6: one epoch of a VAE, and its importance-weighted bound, beside the peers on the same data.

    python benchmarks/vae.py [--rows 30080] [--images 100] [--particles 5000] [--rounds 5] [--threads 2]

Networks 784-400-400-20 (relu, Bernoulli), batches of 128, Adam with step 0.001, float32, one sample; the same
weights for all. Peers: Pyro's SVI loop with Trace_ELBO and with analytic KL, a plain NumPyro epoch in
``lax.scan``, Pyro's vectorised RenyiELBO, and the blocked bound written by hand in JAX. Rounds are taken in
turn; medians and ratios are printed as one JSON line, with the peak memory of the bound by particles.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCH = 128


def images(rows: int) -> np.ndarray:
    """Binary images (rows, 784) of a few moving strokes, so that there is something to learn."""
    rng = np.random.default_rng(5000)
    grid = np.stack(np.meshgrid(np.arange(28), np.arange(28), indexing="ij"), -1).reshape(-1, 2)
    centre = rng.uniform(6, 22, (rows, 3, 1, 2))
    distance = ((grid - centre) ** 2).sum(-1)
    grey = np.exp(-distance / rng.uniform(4, 16, (rows, 3, 1))).max(1)
    return (rng.random((rows, 784)) < grey).astype(np.float32)


def model() -> Any:
    from ppl_lvm import models, networks

    return models.VAE(latent_dim=20, encoder=networks.MLP((400, 400)), decoder=networks.MLP((400, 400)))


def shared_weights(x: np.ndarray) -> dict[str, np.ndarray]:
    resolved = model().resolve(x)
    drawn = resolved.initial_params({"x": x}, np.random.default_rng(0))
    return {k: v.astype(np.float32) for k, v in drawn.items()}


# ---- ours -------------------------------------------------------------------------------------------


def our_epochs(x: np.ndarray, weights: dict[str, np.ndarray], backend: str) -> Callable[[], float]:
    """One more epoch at each call, through the trainer that ``fit`` uses."""
    from ppl_lvm import SVI
    from ppl_lvm.backends.session import jax_session, torch_session
    from ppl_lvm.core import Run
    from ppl_lvm.engines._epochs import _Plan
    from ppl_lvm.engines._interrupt import Interrupt
    from ppl_lvm.engines._training import settled
    from ppl_lvm.fitting import prepare

    problem = prepare(model(), x)
    engine = settled(SVI(backend=backend, batch_size=BATCH, num_epochs=1000), problem)
    run = Run(0, weights)
    session = jax_session("float32") if backend == "numpyro" else torch_session(0, "float32")
    session.__enter__()
    if backend == "numpyro":
        from ppl_lvm.engines._jax_epochs import JaxTrainer as Trainer
    else:
        from ppl_lvm.engines._pyro_epochs import TorchTrainer as Trainer
    trainer = Trainer(engine, problem, run)
    plan = _Plan(engine, run, np.arange(len(x)), np.arange(0), BATCH)
    count = iter(range(10**6))

    def epoch() -> float:
        e = next(count)
        parts = trainer.epoch(plan.word(e), plan.order(e), plan.rates(e), plan.betas(e), Interrupt())
        return -float(parts[-20:, 1].mean())

    return epoch


def our_bound(x: np.ndarray, weights: dict[str, np.ndarray], particles: int) -> Callable[[], float]:
    from ppl_lvm.backends.amortised import BLOCK, evaluator
    from ppl_lvm.fitting import prepare

    problem = prepare(model(), x)
    of, count = evaluator(problem, "numpyro"), iter(range(10**6))
    return lambda: float(of.importance(weights, {"x": x}, particles, next(count), BLOCK).value.mean())


# ---- peers --------------------------------------------------------------------------------------------


def torch_networks(weights: dict[str, np.ndarray]) -> tuple[Any, Any]:
    import torch
    from torch import nn

    def build(sizes: list[int], prefix: str) -> Any:
        layers: list[Any] = []
        for i, (a, b) in enumerate(itertools.pairwise(sizes)):
            layer = nn.Linear(a, b)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weights[f"{prefix}$$$layers.{i}.weight"]))
                layer.bias.copy_(torch.from_numpy(weights[f"{prefix}$$$layers.{i}.bias"]))
            layers += [layer, nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return build([784, 400, 400, 40], "encoder"), build([20, 400, 400, 784], "decoder")


def pyro_programs(weights: dict[str, np.ndarray], prefix: str = "") -> tuple[Any, Any]:
    """``prefix`` keeps the weights of two loops apart in Pyro's parameter store."""
    import pyro
    import pyro.distributions as dist

    encoder, decoder = torch_networks(weights)

    def program(b: Any) -> None:
        pyro.module(f"{prefix}decoder", decoder)
        with pyro.plate("n", b.shape[0], dim=-1):
            zero = b.new_zeros(b.shape[0], 20)
            z = pyro.sample("z", dist.Normal(zero, zero + 1).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=b)

    def guide(b: Any) -> None:
        pyro.module(f"{prefix}encoder", encoder)
        with pyro.plate("n", b.shape[0], dim=-1):
            loc, log_scale = encoder(b).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return program, guide


def pyro_epochs(x: np.ndarray, weights: dict[str, np.ndarray], kind: str) -> Callable[[], float]:
    import pyro
    import torch
    from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

    pyro.enable_validation(False)
    data = torch.from_numpy(x)
    elbo = Trace_ELBO() if kind == "trace" else TraceMeanField_ELBO()
    svi = SVI(*pyro_programs(weights, kind), pyro.optim.Adam({"lr": 1e-3}), elbo)

    def epoch() -> float:
        order = torch.randperm(len(data))
        losses = [svi.step(data[order[i : i + BATCH]]) for i in range(0, len(data) - BATCH + 1, BATCH)]
        return sum(losses[-20:]) / 20 / BATCH

    return epoch


def jax_nets(weights: dict[str, np.ndarray]) -> tuple[list, list]:
    import jax.numpy as jnp

    def part(name: str) -> list:
        return [
            (
                jnp.asarray(weights[f"{name}$$$layers.{i}.weight"].T),
                jnp.asarray(weights[f"{name}$$$layers.{i}.bias"]),
            )
            for i in range(3)
        ]

    return part("encoder"), part("decoder")


def forward(net: list, x: Any) -> Any:
    import jax

    for w, b in net[:-1]:
        x = jax.nn.relu(x @ w + b)
    return x @ net[-1][0] + net[-1][1]


def numpyro_epochs(x: np.ndarray, weights: dict[str, np.ndarray]) -> Callable[[], float]:
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import SVI, Trace_ELBO

    encoder, decoder = jax_nets(weights)

    def program(b: Any) -> None:
        net = numpyro.param("decoder", decoder)
        with numpyro.plate("n", b.shape[0]):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([20]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=forward(net, z)).to_event(1), obs=b)

    def guide(b: Any) -> None:
        net = numpyro.param("encoder", encoder)
        with numpyro.plate("n", b.shape[0]):
            loc, log_scale = jnp.split(forward(net, b), 2, -1)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    svi = SVI(program, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())
    data = jnp.asarray(x)
    steps = len(x) // BATCH
    state = [svi.init(jax.random.key(0), data[:BATCH]), jax.random.key(1)]

    @jax.jit
    def run(s: Any, key: Any, data: Any) -> Any:
        order = jax.random.permutation(key, len(x))[: steps * BATCH].reshape(steps, BATCH)
        return jax.lax.scan(lambda s, i: svi.update(s, data[i]), s, order)

    def epoch() -> float:
        state[1], key = jax.random.split(state[1])
        state[0], losses = run(state[0], key, data)
        return float(losses[-20:].mean()) / BATCH

    return epoch


def pyro_bound(x: np.ndarray, weights: dict[str, np.ndarray], particles: int) -> Callable[[], float]:
    import pyro
    import torch
    from pyro.infer import RenyiELBO

    pyro.enable_validation(False)
    program, guide = pyro_programs(weights)
    data = torch.from_numpy(x)
    elbo = RenyiELBO(alpha=0, num_particles=particles, vectorize_particles=True, max_plate_nesting=1)
    return lambda: -sum(elbo.loss(program, guide, b) for b in data.split(10)) / len(x)


def blocked_bound(x: np.ndarray, weights: dict[str, np.ndarray], particles: int) -> Callable[[], float]:
    """By hand: images in tens, particles in blocks of 500, a running log-sum."""
    import jax
    import jax.numpy as jnp

    encoder, decoder = jax_nets(weights)
    data = jnp.asarray(x).reshape(-1, 10, 784)

    def ten(carry: Any) -> Any:
        b, key = carry
        loc, log_scale = jnp.split(forward(encoder, b), 2, -1)

        def body(total: Any, k: Any) -> Any:
            noise = jax.random.normal(k, (500, *loc.shape))
            z = loc + jnp.exp(log_scale) * noise
            logit = forward(decoder, z)
            weight = (logit * b - jax.nn.softplus(logit)).sum(-1)
            weight += 0.5 * (noise**2 - z**2).sum(-1) + log_scale.sum(-1)
            return jnp.logaddexp(total, jax.scipy.special.logsumexp(weight, 0)), None

        total, _ = jax.lax.scan(body, jnp.full(len(b), -jnp.inf), jax.random.split(key, particles // 500))
        return total - math.log(particles)

    run = jax.jit(lambda key, data: jax.lax.map(ten, (data, jax.random.split(key, len(data)))).mean())
    count = iter(range(10**6))
    return lambda: float(run(jax.random.key(next(count)), data))


# ---- timing -----------------------------------------------------------------------------------------


def rounds(jobs: dict[str, Callable[[], float]], num: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each job, taken in turn, and its last value."""
    values = {name: job() for name, job in jobs.items()}  # compiled
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(num):
        for name, job in jobs.items():
            began = time.perf_counter()
            values[name] = job()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(s) for name, s in seconds.items()}, values


def peak_memory(particles: int) -> float:
    """Peak MiB of a process that computes the bound of 100 images."""
    code = [sys.executable, __file__, "--memory", str(particles)]
    done = subprocess.run(code, capture_output=True, text=True, check=True, env=dict(os.environ))
    return float(done.stdout.strip().splitlines()[-1])


def _memory(particles: int) -> int:
    import resource

    x = images(1000)[:100]
    our_bound(x, shared_weights(x), particles)()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=30_080)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--particles", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        return _memory(args.memory)
    import torch

    torch.set_num_threads(args.threads)
    x = images(args.rows)
    weights = shared_weights(x)
    epochs = {
        "ours_numpyro": our_epochs(x, weights, "numpyro"),
        "numpyro_scan": numpyro_epochs(x, weights),
        "pyro_trace": pyro_epochs(x, weights, "trace"),
        "pyro_meanfield": pyro_epochs(x, weights, "mean_field"),
        "ours_pyro": our_epochs(x, weights, "pyro"),
    }
    seconds, losses = rounds(epochs, args.rounds)
    rates = {name: round(args.rows // BATCH * BATCH / s) for name, s in seconds.items()}
    few = x[: args.images]
    bounds = {
        "ours": our_bound(few, weights, args.particles),
        "jax_blocked": blocked_bound(few, weights, args.particles),
        "pyro_renyi": pyro_bound(few, weights, args.particles),
    }
    bound_seconds, values = rounds(bounds, args.rounds)
    result = {
        "epoch_rows_per_second": rates,
        "epoch_loss": {k: round(v, 2) for k, v in losses.items()},
        "epoch_ratios": {
            "ours_numpyro/pyro_trace": round(rates["ours_numpyro"] / rates["pyro_trace"], 2),
            "ours_numpyro/numpyro_scan": round(rates["ours_numpyro"] / rates["numpyro_scan"], 3),
            "ours_pyro/pyro_trace": round(rates["ours_pyro"] / rates["pyro_trace"], 3),
            "ours_pyro/pyro_meanfield": round(rates["ours_pyro"] / rates["pyro_meanfield"], 3),
        },
        "bound_seconds": {k: round(v, 3) for k, v in bound_seconds.items()},
        "bound_values": {k: round(v, 2) for k, v in values.items()},
        "bound_ratios": {
            "pyro_renyi/ours": round(bound_seconds["pyro_renyi"] / bound_seconds["ours"], 2),
            "jax_blocked/ours": round(bound_seconds["jax_blocked"] / bound_seconds["ours"], 3),
        },
        "peak_mib_by_particles": {k: round(peak_memory(k)) for k in (500, 5000, 50_000)},
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
