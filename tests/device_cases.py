"""Runs on several JAX devices, for tests/test_devices.py: ``device_cases.py NAMES FOLDER``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
from process_cases import BITS, LINE, Arrays, arrays_of, both, line, run_named, vae

import ppl_lvm as lvm
from ppl_lvm import NUTS, SVI, ChEES


def line_twin(x: Any, y: Any) -> None:
    slope = numpyro.sample("slope", numpyro_dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", numpyro_dist.HalfNormal(1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("obs", numpyro_dist.Normal(slope * x, scale), obs=y)


MODEL = lvm.Model(line, numpyro=line_twin)


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


JAX = (jax_walk, jax_nuts, jax_chees, jax_full, jax_batches, jax_restarts, jax_vae)
CASES: dict[str, Callable[[], Arrays]] = {f.__name__: f for f in JAX}

if __name__ == "__main__":
    run_named(CASES)
