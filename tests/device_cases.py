"""Runs on several devices or processes, for tests/test_devices.py: ``python device_cases.py NAME OUT``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist
import torch
import torch.distributed as group
from pyro.optim import PyroOptim

import ppl_lvm as lvm
from ppl_lvm import NUTS, SVI, ChEES, models
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


def line_twin(x: Any, y: Any) -> None:
    slope = numpyro.sample("slope", numpyro_dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", numpyro_dist.HalfNormal(1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("obs", numpyro_dist.Normal(slope * x, scale), obs=y)


MODEL = lvm.Model(line, numpyro=line_twin)


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


# ---- JAX -----------------------------------------------------------------------------------------


@contextmanager
def one_device() -> Iterator[None]:
    """Chains on the first device alone, as where there is no other."""
    from ppl_lvm.engines import _jax_devices

    found = _jax_devices.jax.local_devices
    _jax_devices.jax.local_devices = lambda: found()[:1]
    try:
        yield
    finally:
        _jax_devices.jax.local_devices = found


def chains(engine: NUTS | ChEES) -> Arrays:
    """Draws on two devices and on one, and on how many devices they lay."""
    from ppl_lvm.engines._jax_nuts_parts import ChainPart

    kept, lay = ChainPart.kept, []

    def look(self: Any, count: int) -> Any:
        lay.append(len(self.chain.draws.sharding.device_set))
        return kept(self, count)

    ChainPart.kept = look  # type: ignore[method-assign]
    try:
        two = lvm.fit(MODEL, LINE, engine, seed=1)
        with one_device():
            one = lvm.fit(MODEL, LINE, engine, seed=1)
    finally:
        ChainPart.kept = kept  # type: ignore[method-assign]
    return both(arrays_of(two), arrays_of(one)) | {"devices": np.array(lay)}


def both(two: Arrays, one: Arrays) -> Arrays:
    return {f"two/{k}": v for k, v in two.items()} | {f"one/{k}": v for k, v in one.items()}


def jax_walk() -> Arrays:
    """What NUTS does with chains on devices, with a random walk for its kernel; and a checkpoint of it."""
    from ppl_lvm.engines._jax_devices import chain_mesh, copied, placed, split
    from ppl_lvm.engines._jax_nuts import _on_devices
    from ppl_lvm.engines._jax_nuts_parts import Chain, ChainPart

    def start(point: Any, key: Any, data: Any, params: Any) -> Chain:
        del key, data, params
        return Chain((point,), jnp.zeros((6, 2)), {"lp": jnp.zeros(6)}, jnp.int32(0))

    def advance(chain: Chain, first: Any, last: Any, key: Any, data: Any, params: Any) -> Chain:
        def body(i: Any, chain: Chain) -> Chain:
            point = chain.state[0] + data * params * jax.random.normal(jax.random.fold_in(key, i), (2,))
            lp = {"lp": chain.stats["lp"].at[i].set(-(point**2).sum())}
            return Chain((point,), chain.draws.at[i].set(point), lp, chain.warmup_steps + 1)

        return jax.lax.fori_loop(first, last, body, chain)

    mesh = chain_mesh(4)
    assert mesh is not None
    axes = (0, None, None, 0, None, None)
    plain = jax.vmap(start, (0, 0, None, None)), jax.vmap(advance, axes)
    points, keys = jnp.arange(8.0).reshape(4, 2), jax.random.split(jax.random.key(3), 4)
    given = (jnp.float32(0.5), jnp.float32(2.0))

    def part(programs: Any, points: Any, keys: Any, given: Any) -> ChainPart:
        where = lambda state: (state[0], -(state[0] ** 2).sum(-1))  # noqa: E731
        return ChainPart((*map(jax.jit, programs), where), points, keys, given, many=True)

    laid = placed((points, keys), split(mesh))
    one, two, again = (
        part(plain, points, keys, given),
        part(_on_devices(*plain, mesh), *laid, placed(given, copied(mesh))),
        part(_on_devices(*plain, mesh), *laid, placed(given, copied(mesh))),
    )
    one.advance(0, 6)
    two.advance(0, 4)
    again.restore(two.arrays(4)[0], {})
    two.advance(4, 6)
    again.advance(4, 6)
    lay = [len(p.chain.draws.sharding.device_set) for p in (two, again, one)]
    found = both(two.kept(6), one.kept(6)) | {f"again/{k}": v for k, v in again.kept(6).items()}
    return found | {"devices": np.array(lay)}


def jax_nuts() -> Arrays:
    return chains(NUTS(num_warmup=10, num_samples=10, num_chains=4, chain_method="vectorized"))


def jax_chees() -> Arrays:
    return chains(ChEES(num_chains=16, num_warmup=10, num_samples=10))


def jax_svi(model: Any = MODEL, data: Any = LINE, **settings: Any) -> Arrays:
    """SVI on one device and on two, and where the rows of the second run lay."""
    from ppl_lvm.engines._jax_steps import JaxStepper

    begin, made = JaxStepper.__init__, []

    def keep(self: Any, *args: Any) -> None:
        begin(self, *args)
        made.append(self)
        if self.mesh is not None:
            self.block = watched(self.block, sums)

    sums: Arrays = {}
    given = {"backend": "numpyro", "num_steps": 20, "window": 20, "num_draws": 20, **settings}
    JaxStepper.__init__ = keep  # type: ignore[method-assign]
    try:
        fits = [arrays_of(lvm.fit(model, data, SVI(num_devices=n, **given), dtype="float64")) for n in (2, 1)]
    finally:
        JaxStepper.__init__ = begin  # type: ignore[method-assign]
    rows = [len(v.sharding.device_set) for m in made[:1] for v in m.data.values()]
    return both(*fits) | {"devices": np.array(rows)} | sums


def watched(block: Any, found: Arrays) -> Any:
    """A compiled block that counts what its program says between devices."""

    def call(*args: Any) -> Any:
        program = block.lower(*args).compile()
        found.update({k: np.array(program.as_text().count(f" {k}(")) for k in ("all-reduce", "all-gather")})
        return program(*args)

    return call


def jax_full() -> Arrays:
    return jax_svi()


def jax_batches() -> Arrays:
    return jax_svi(batch_size=16)


def jax_restarts() -> Arrays:
    return jax_svi(batch_size=16, num_restarts=2, average=True)


def jax_vae() -> Arrays:
    return jax_svi(vae(), BITS, num_steps=None, num_epochs=2, batch_size=32)


# ---- torch ---------------------------------------------------------------------------------------


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

    settings = {"window": 10, "learning_rate_decay": 1.0, "early_stop": False, "batch_size": 32}
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


JAX = (jax_walk, jax_nuts, jax_chees, jax_full, jax_batches, jax_restarts, jax_vae)
CASES: dict[str, Callable[[], Arrays]] = {f.__name__: f for f in (*JAX, torch_resumed, torch_differ)} | {
    f"torch_{name}": functools.partial(torch_shared, name) for name in TORCH
}


if __name__ == "__main__":
    names, out = sys.argv[1].split(","), Path(sys.argv[2])
    for case in names:
        found = CASES[case]()
        suffix = f"_{int(found['rank'])}" if "rank" in found else ""
        np.savez(out / f"{case}{suffix}.npz", **{k.replace("/", "|"): v for k, v in found.items()})
