"""Guides on JAX that treat the data plate's sites by datum: ``"structured"`` and ``"amortized"``.

With g the coordinates outside the plate and u_n those of datum n inside it,

    v = T^-1 eps,   g = loc + exp(log_scale) v,   u_n = m_n + exp(s_n) (L_n eps_n + B_n v),

T and L_n triangular with unit diagonals, T sparse as the model's structure says (see :mod:`._dependences`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._dependences import dependences
from ppl_lvm.backends._encoder import feature_names, initial_params, network_of, weights_in
from ppl_lvm.backends._guide_layout import Layout, layout_of
from ppl_lvm.backends._jax_guide import Guide, identity
from ppl_lvm.backends.density import Density, Tree
from ppl_lvm.core import Problem
from ppl_lvm.families import Amortized
from ppl_lvm.networks._numpyro_networks import build_encoder


class Datum(NamedTuple):
    """Means and log scales (n, k) of the data's coordinates, entries of L (n, m), B ([n,] k, m) or None."""

    mean: Any
    log_scale: Any
    below: Any
    slope: Any | None


def datum_guide(problem: Problem, density: Density, family: Any, point: Any, start_scale: float) -> Guide:
    """``point`` (size,) is where the guide starts; an encoder starts at 0 for all data."""
    layout = layout_of(problem, density.shapes, dependences(problem))
    encoder = _Encoder(problem, family) if isinstance(family, Amortized) else None

    def init(key: Any) -> Tree:
        g, u = layout.vectors(jnp, density.unflatten(point))
        out, rows = {}, ()
        if g is not None:
            out = {"loc": g, "log_scale": jnp.full_like(g, np.log(start_scale))}
            out["lower"] = jnp.zeros(layout.free.shape[1], point.dtype)
        if u is not None and encoder is not None:
            out |= encoder.init(layout.num_inner, start_scale, key, point.dtype)
        elif u is not None:
            rows = u.shape[:1]
            out |= {"datum_loc": u, "datum_log_scale": jnp.full_like(u, np.log(start_scale))}
            out["datum_lower"] = jnp.zeros((*rows, layout.below.shape[1]), point.dtype)
        out["slope"] = jnp.zeros((*rows, layout.num_inner, len(layout.shared)), point.dtype)
        return {name: value for name, value in out.items() if value.size}

    def by_datum(params: Tree, data: Tree) -> Datum:
        if encoder is not None:
            return encoder.of(params, data, layout.num_inner)
        below = params.get("datum_lower")
        return Datum(params["datum_loc"], params["datum_log_scale"], below, params.get("slope"))

    def draw(params: Tree, key: Any, data: Tree) -> tuple[Tree, tuple[Any, Any | None]]:
        first, second = jax.random.split(key)
        g = u = local = None
        v = jnp.zeros(0, point.dtype)
        rest: Any = jnp.zeros((), point.dtype)
        if layout.num_outer:
            noise = jax.random.normal(first, (layout.num_outer,), point.dtype)
            v = jax.scipy.linalg.solve_triangular(
                _unit(layout, params, point.dtype), noise, lower=True, unit_diagonal=True
            )
            g = params["loc"] + jnp.exp(params["log_scale"]) * v
            rest = _standard(noise, params["log_scale"])
        if layout.num_inner:
            own = by_datum(params, data)
            noise = jax.random.normal(second, own.mean.shape, point.dtype)
            bent = noise + _product(own.slope, v[layout.shared])
            if layout.num_inner > 1:
                bent = bent + jnp.einsum("nij,nj->ni", _strict(layout, own.below), noise)
            u = own.mean + jnp.exp(own.log_scale) * bent
            local = _standard(noise, own.log_scale)
        return layout.by_site(jnp.moveaxis, g, u), (rest, local)

    def centre(params: Tree, data: Tree) -> Tree:
        g = params["loc"] if layout.num_outer else None
        return layout.by_site(jnp.moveaxis, g, by_datum(params, data).mean if layout.num_inner else None)

    def log_prob(params: Tree, z: Tree, data: Tree) -> Any:
        g, u = layout.vectors(jnp, z)
        v, total = jnp.zeros(0, point.dtype), jnp.zeros((), point.dtype)
        if g is not None:
            v = (g - params["loc"]) * jnp.exp(-params["log_scale"])
            noise = _unit(layout, params, point.dtype) @ v
            total = _standard(noise, params["log_scale"])
        if u is not None:
            own = by_datum(params, data)
            gap = (u - own.mean) * jnp.exp(-own.log_scale) - _product(own.slope, v[layout.shared])
            if layout.num_inner > 1:
                root = _strict(layout, own.below) + jnp.eye(layout.num_inner, dtype=gap.dtype)
                gap = jax.scipy.linalg.solve_triangular(root, gap[..., None], lower=True)[..., 0]
            total = total + _standard(gap, own.log_scale).sum()
        return total

    return Guide(init, draw, log_prob, identity, identity, splits=True, centre=centre)


class _Encoder:
    """Of the arguments along the data plate."""

    def __init__(self, problem: Problem, settings: Amortized) -> None:
        self.names, self.settings = feature_names(problem), settings
        self.initial = partial(initial_params, problem, settings)

    def init(self, num_inner: int, scale: float, key: Any, dtype: Any) -> dict[str, Any]:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        made = self.initial(num_inner, scale, rng)
        return {name: jnp.asarray(value, dtype) for name, value in made.items()}

    def of(self, params: Tree, data: Tree, num_inner: int) -> Datum:
        features, k = self._features(params, data), num_inner
        linear = features @ params["encoder_skip"].T / np.sqrt(features.shape[-1])
        offset, network = params["encoder_offset"], network_of(self.settings)
        out = jnp.broadcast_to(offset, (len(features), len(offset)))
        if network is not None:
            out = out + build_encoder(network, (), weights_in(params, self.settings))(features)
        return Datum(linear + out[:, :k], out[:, k : 2 * k], out[:, 2 * k :], params.get("slope"))

    def _features(self, params: Tree, data: Tree) -> Any:
        dtype = params["encoder_offset"].dtype
        rows = [data[name].reshape(len(data[name]), -1).astype(dtype) for name in self.names]
        # what is stored of the data is not to be trained
        shift, spread = (jax.lax.stop_gradient(params[f"encoder_{n}"]) for n in ("shift", "spread"))
        standard = (jnp.concatenate(rows, 1) - shift) / spread
        return jnp.where(jnp.isfinite(standard), standard, 0.0)


def _unit(layout: Layout, params: Tree, dtype: Any) -> Any:
    """T."""
    unit = jnp.eye(layout.num_outer, dtype=dtype)
    return unit.at[layout.free[0], layout.free[1]].set(params["lower"]) if "lower" in params else unit


def _strict(layout: Layout, entries: Any) -> Any:
    """(n, m) entries below the diagonal as matrices (n, k, k)."""
    size = layout.num_inner
    empty = jnp.zeros((len(entries), size, size), entries.dtype)
    return empty.at[:, layout.below[0], layout.below[1]].set(entries)


def _product(slope: Any | None, v: Any) -> Any:
    """B v, (n, k) or (k,)."""
    return 0.0 if slope is None else slope @ v


def _standard(noise: Any, log_scale: Any) -> Any:
    """Log density of what noise is turned into, summed over the last axis."""
    return (-0.5 * (noise**2 + jnp.log(2 * jnp.pi)) - log_scale).sum(-1)
