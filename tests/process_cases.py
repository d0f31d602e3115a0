"""Runs of torchrun's processes, for tests/test_devices.py: ``process_cases.py NAMES FOLDER``, without JAX."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
import torch.distributed as group
from pyro.optim import PyroOptim

import ppl_lvm as lvm
from ppl_lvm import SVI, models
from ppl_lvm.engines._pyro_ranks import Ranks

RNG = np.random.default_rng(5)
N = 64
ROWS = RNG.normal(size=N)
LINE = {"x": ROWS, "y": 0.7 * ROWS + 0.3 * RNG.normal(size=N)}
BITS = (RNG.random((N, 6)) > 0.5).astype(float)
Arrays = dict[str, np.ndarray]


def line(x: Any, y: Any) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(slope * x, scale), obs=y)


def with_locals(y: Any) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("obs", dist.Normal(z, 0.5), obs=y)


def guide_of_rows(y: Any) -> None:
    """The latents of rows as a function of the data."""
    at = pyro.param("at", torch.zeros(2, dtype=y.dtype))
    spread = pyro.param("spread", torch.ones(2, dtype=y.dtype), constraint=dist.constraints.positive)
    pyro.sample("mean", dist.Normal(at[0], spread[0]))
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(at[1] * y, spread[1]))


LOCAL = lvm.Model(with_locals, guide=guide_of_rows)


def vae() -> Any:
    return models.VAE(
        latent_dim=2,
        encoder=lvm.networks.MLP((8,)),
        decoder=lvm.networks.MLP((8,)),
        likelihood="bernoulli",
    )


def arrays_of(fit: lvm.Fit) -> Arrays:
    out = {f"param {k}": np.asarray(v) for k, v in fit.params.items()}
    if "optimization" in fit.groups:
        out["loss"] = fit.groups["optimization"]["loss"].values
    if fit.evidence is not None:
        out["evidence"] = np.array(fit.evidence.nats)
    if fit.draws is not None:
        out |= {f"draw {k}": v.values for k, v in fit.draws.data_vars.items()}
    return out


def both(two: Arrays, one: Arrays) -> Arrays:
    return {f"two/{k}": v for k, v in two.items()} | {f"one/{k}": v for k, v in one.items()}


@contextmanager
def gradients() -> Iterator[list[list[np.ndarray]]]:
    """The gradients that optimisers are given, step by step, in order of the params."""
    seen: list[list[np.ndarray]] = []
    call, adam = PyroOptim.__call__, torch.optim.Adam.step

    def of_pyro(self: Any, params: Any, *args: Any) -> Any:
        store = pyro.get_param_store()
        ordered = sorted(params, key=store.param_name)
        seen.append([p.grad.numpy().copy() for p in ordered])
        return call(self, params, *args)

    def of_adam(self: Any, *args: Any) -> Any:
        seen.append([p.grad.numpy().copy() for group in self.param_groups for p in group["params"]])
        return adam(self, *args)

    PyroOptim.__call__, torch.optim.Adam.step = of_pyro, of_adam  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        PyroOptim.__call__, torch.optim.Adam.step = call, adam  # type: ignore[method-assign]


TORCH: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "full": (line, LINE, {"num_steps": 20, "window": 20}),
    "batches": (line, LINE, {"num_steps": 20, "window": 20, "batch_size": 32}),
    "local": (LOCAL, LINE["y"], {"num_steps": 20, "window": 20, "batch_size": 32}),
    "vae": (vae(), BITS, {"num_epochs": 2, "batch_size": 32}),
}


@contextmanager
def rows_seen() -> Iterator[set[int]]:
    """How many rows a process keeps of a step's."""
    seen: set[int] = set()
    share = Ranks.share

    def look(self: Any, rows: Any) -> Any:
        own = share(self, rows)
        seen.add(len(own))
        return own

    Ranks.share = look  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Ranks.share = share  # type: ignore[method-assign]


def torch_case(name: str, *, distributed: bool, **more: Any) -> Arrays:
    """Params, losses and the gradients of the first steps."""
    model, data, settings = TORCH[name]
    engine = SVI(backend="pyro", num_draws=20, distributed=distributed, **settings, **more)
    with gradients() as seen:
        fit = lvm.fit(model, data, engine, seed=2, dtype="float64")
    first = {f"gradient {i} {j}": g for i, step in enumerate(seen[:2]) for j, g in enumerate(step)}
    return arrays_of(fit) | first


def torch_shared(name: str) -> Arrays:
    with rows_seen() as rows:
        out = torch_case(name, distributed=True)
    return out | {"rank": np.array(group.get_rank()), "rows": np.array(sorted(rows))}


def torch_resumed() -> Arrays:
    """A run of two processes that goes on from a checkpoint, one that was not stopped, and who wrote."""
    from ppl_lvm.engines._checkpoint import Checkpoint

    folder, saved, save = Path(sys.argv[2]) / "checkpoint", [], Checkpoint.save

    def count(self: Any, *args: Any) -> None:
        saved.append(self.path)
        save(self, *args)

    settings = {
        "window": 10,
        "learning_rate_decay": 1.0,
        "early_stop": False,
        "batch_size": 32,
        "average": False,
    }
    own = {"backend": "pyro", "num_draws": 20, "distributed": True, **settings}
    Checkpoint.save = count  # type: ignore[method-assign]
    try:
        lvm.fit(LOCAL, LINE["y"], SVI(num_steps=10, checkpoint=str(folder), **own), seed=2)
        resumed = lvm.fit(LOCAL, LINE["y"], SVI(num_steps=20, checkpoint=str(folder), **own), seed=2)
    finally:
        Checkpoint.save = save  # type: ignore[method-assign]
    whole = lvm.fit(LOCAL, LINE["y"], SVI(num_steps=20, **own), seed=2)
    found = both(arrays_of(resumed), arrays_of(whole))
    return found | {"rank": np.array(group.get_rank()), "saved": np.array(len(saved))}


def torch_differ() -> Arrays:
    """What each of two processes says that were given different seeds, and then different rows."""
    rank, said = group.get_rank(), []
    for seed, y in ((rank, LINE["y"]), (0, LINE["y"] + rank)):
        try:
            lvm.fit(LOCAL, y, SVI(distributed=True, num_steps=20, window=10, num_draws=20), seed=seed)
        except ValueError as error:
            said.append(str(error))
    return {"rank": np.array(rank), "said": np.array(said)}


CASES: dict[str, Callable[[], Arrays]] = {
    "torch_resumed": torch_resumed,
    "torch_differ": torch_differ,
    **{f"torch_{name}": functools.partial(torch_shared, name) for name in TORCH},
}


def run_named(cases: dict[str, Callable[[], Arrays]]) -> None:
    """The cases that the command line names, each into a file (one of each process)."""
    names, out = sys.argv[1].split(","), Path(sys.argv[2])
    for case in names:
        found = cases[case]()
        suffix = f"_{int(found['rank'])}" if "rank" in found else ""
        np.savez(out / f"{case}{suffix}.npz", **{k.replace("/", "|"): v for k, v in found.items()})


if __name__ == "__main__":
    run_named(CASES)
