"""NUTS steps with adaptation, of BlackJAX and of NumPyro, behind one small face."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    from ppl_lvm.engines.nuts import NUTS


class Kernel(NamedTuple):
    """``init(point, key, data, params)`` and ``step(i, key, state, data, params)``; the step returns
    the state, the point and its statistics by ArviZ's names."""

    init: Callable[..., Any]
    step: Callable[..., tuple[Any, Any, dict[str, Any]]]

    @staticmethod
    def stats_like(dtype: Any) -> dict[str, Any]:
        """Statistics of a draw, as zeros of their dtypes."""
        real = jnp.zeros((), dtype)
        names = ("lp", "energy", "acceptance_rate", "step_size")
        count = jnp.zeros((), jnp.int32)
        return dict.fromkeys(names, real) | {
            "diverging": jnp.zeros((), bool),
            "n_steps": count,
            "tree_depth": count,
        }


class _Blackjax(NamedTuple):
    hmc: Any
    step_size: Any
    mass: Any
    size: Any
    inverse_mass: Any


_WORTH = 25.0  # draws of a window that the mass matrix of a fit counts as


def blackjax_kernel(engine: NUTS, log_density: Callable[..., Any], informed: bool) -> Kernel:
    """BlackJAX's NUTS under Stan's warm-up schedule (windows of doubling length).

    ``informed``: ``params[2]`` is the inverse mass matrix to begin with. Each window's estimate is then mixed
    with the one before it, which counts as ``_WORTH`` draws: the first windows are short, and by themselves
    worth less than a fit.
    """
    from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
    from blackjax.adaptation.staged_adaptation import build_schedule
    from blackjax.adaptation.step_size import dual_averaging_adaptation
    from blackjax.mcmc import hmc, nuts

    move = nuts.build_kernel()
    size_init, size_update, size_final = dual_averaging_adaptation(engine.target_accept)
    worth = _WORTH if informed else 0.0
    mass_init, mass_update, mass_final = mass_matrix_adaptation(not engine.dense_mass, worth)
    warmup = engine.num_warmup
    schedule = np.asarray(build_schedule(warmup)) if warmup else np.zeros((1, 2), int)

    def init(point: Any, key: Any, data: Any, params: Any) -> _Blackjax:
        del key
        state = hmc.init(point, lambda p: log_density(p, data, params))
        mass = mass_init(point.shape[0], params[2] if informed else None)
        one = jnp.ones((), point.dtype)
        return _Blackjax(state, size_init(one), mass, one, mass.inverse_mass_matrix)

    def adapt(i: Any, own: _Blackjax, rate: Any) -> _Blackjax:
        slow, window_ends = jnp.asarray(schedule)[i, 0] == 1, jnp.asarray(schedule)[i, 1] == 1
        sizes = size_update(own.step_size, rate)
        mass = lax.cond(slow, lambda m: mass_update(m, own.hmc.position), lambda m: m, own.mass)

        def close(_: Any) -> tuple:
            done = mass_final(mass)
            return size_init(size_final(sizes)), done, done.inverse_mass_matrix

        sizes, mass, inverse = lax.cond(window_ends, close, lambda _: (sizes, mass, own.inverse_mass), None)
        last = i == warmup - 1
        size = jnp.where(last, size_final(sizes), jnp.exp(sizes.log_step_size))
        return own._replace(step_size=sizes, mass=mass, size=size, inverse_mass=inverse)

    def step(i: Any, key: Any, own: _Blackjax, data: Any, params: Any) -> tuple[_Blackjax, Any, dict]:
        density = lambda p: log_density(p, data, params)  # noqa: E731  (a closure over this step's data)
        state, info = move(key, own.hmc, density, own.size, own.inverse_mass, engine.max_tree_depth)
        stats = {
            "lp": state.logdensity,
            "energy": info.energy,
            "acceptance_rate": info.acceptance_rate,
            "step_size": own.size,
            "diverging": info.is_divergent,
            "n_steps": info.num_integration_steps,
            "tree_depth": info.num_trajectory_expansions,
        }
        moved = own._replace(hmc=state)
        if warmup:
            moved = lax.cond(i < warmup, lambda o: adapt(i, o, info.acceptance_rate), lambda o: o, moved)
        return moved, state.position, stats

    return Kernel(init, step)


def numpyro_kernel(engine: NUTS, log_density: Callable[..., Any], informed: bool) -> Kernel:
    """NumPyro's NUTS, run by our own loop: its ``MCMC.run`` compiles again at every call."""
    from numpyro.infer.hmc import hmc

    def potential(data: Any, params: Any) -> Callable[[Any], Any]:
        return lambda flat: -log_density(flat, data, params)

    init_kernel, sample_kernel = hmc(potential_fn_gen=potential, algo="NUTS")

    def init(point: Any, key: Any, data: Any, params: Any) -> Any:
        return init_kernel(
            point,
            num_warmup=engine.num_warmup,
            target_accept_prob=engine.target_accept,
            max_tree_depth=engine.max_tree_depth,
            dense_mass=engine.dense_mass,
            inverse_mass_matrix=params[2] if informed else None,
            model_args=(data, params),
            rng_key=key,
        )

    def step(i: Any, key: Any, state: Any, data: Any, params: Any) -> tuple[Any, Any, dict]:
        del i
        new = sample_kernel(state._replace(rng_key=key), model_args=(data, params))
        stats = {
            "lp": -new.potential_energy,
            "energy": new.energy,
            "acceptance_rate": new.accept_prob,
            "step_size": state.adapt_state.step_size,
            "diverging": new.diverging,
            "n_steps": new.num_steps,
            "tree_depth": jnp.log2(new.num_steps + 1.0).astype(jnp.int32),
        }
        return new, new.z, stats

    return Kernel(init, step)


KERNELS: dict[str, Callable[[Any, Callable[..., Any], bool], Kernel]] = {
    "blackjax": blackjax_kernel,
    "numpyro": numpyro_kernel,
}
# a state's point and its log density
WHERE: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "blackjax": lambda state: (state.hmc.position, state.hmc.logdensity),
    "numpyro": lambda state: (state.z, -state.potential_energy),
}
