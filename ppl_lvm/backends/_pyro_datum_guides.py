"""Guides on Pyro that treat the data plate's sites by datum: ``"structured"`` and ``"amortized"``.

The same families as in ``_jax_datum_guides`` (the formulas stand there), with the same params by name and
shape. What is drawn is noise, at auxiliary sites; the model's sites are functions of it, and carry what the
maps do to the density.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import biject_to
from pyro.distributions.util import sum_rightmost
from pyro.nn import PyroModule

from ppl_lvm.backends._dependences import dependences
from ppl_lvm.backends._encoder import feature_names, initial_params, network_of, weights_in
from ppl_lvm.backends._guide_layout import layout_of
from ppl_lvm.backends._pyro_density import spread
from ppl_lvm.backends._pyro_trace import to_torch
from ppl_lvm.core import Problem, Site
from ppl_lvm.families import Amortized, is_amortized
from ppl_lvm.networks._pyro_networks import build_encoder

_START_SCALE = 0.1


class Datum(NamedTuple):
    """Means and log scales (n, k) of the data's coordinates, entries of L (n, m), B ([n,] k, m) or None."""

    mean: torch.Tensor
    log_scale: torch.Tensor
    below: torch.Tensor | None
    slope: torch.Tensor | None


class DatumGuide(PyroModule):
    """A guide program; ``start`` are values by site, what is not there starts within 2 of 0."""

    def __init__(self, problem: Problem, family: Any, start: Mapping[str, torch.Tensor]) -> None:
        super().__init__(name="Amortized" if is_amortized(family) else "Structured")
        self.sites = {s.name: s for s in problem.latents(discrete=False)}
        self.nesting, self.plate = problem.max_plate_nesting, problem.data_plate
        self.names, self.family = feature_names(problem), family
        self.maps = {name: biject_to(site.constraint) for name, site in self.sites.items()}
        shapes = {n: tuple(self.maps[n].inverse_shape(torch.Size(s.shape))) for n, s in self.sites.items()}
        self.layout = layout_of(problem, shapes, dependences(problem))
        self.dim = next(
            (p.dim for s in self.sites.values() for p in s.plates if p.name == self.plate and p.dim), -1
        )
        for name, value in self._initial(problem, shapes, start).items():
            if value.numel():
                setattr(self, name, torch.nn.Parameter(value))
        self.network: tuple[Any, ...] = ()
        spec = network_of(family) if isinstance(family, Amortized) else None
        if spec is not None:  # it gives the layers alone; in a tuple it is no part of this module
            shift, offset = self.encoder_shift, self.encoder_offset
            self.network = (build_encoder(spec, tuple(shift.shape), len(offset)),)

    def _initial(self, problem: Problem, shapes: Any, start: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        layout, rows = self.layout, ()
        free = {n: 4 * torch.rand(shape) - 2 for n, shape in shapes.items()}
        free |= {n: self.maps[n].inv(v) for n, v in start.items() if n in free}
        g, u = layout.vectors(torch, free)
        out: dict[str, Any] = {}
        if g is not None:
            out = {"loc": g, "log_scale": torch.full_like(g, np.log(_START_SCALE))}
            out["lower"] = torch.zeros(layout.free.shape[1])
        if u is not None and isinstance(self.family, Amortized):
            rng = np.random.default_rng(int(torch.randint(2**31, ())))
            made = initial_params(problem, self.family, layout.num_inner, _START_SCALE, rng)
            out |= {n: torch.as_tensor(v, dtype=torch.get_default_dtype()) for n, v in made.items()}
        elif u is not None:
            rows = u.shape[:1]
            out |= {"datum_loc": u, "datum_log_scale": torch.full_like(u, np.log(_START_SCALE))}
            out["datum_lower"] = torch.zeros(*rows, layout.below.shape[1])
        out["slope"] = torch.zeros(*rows, layout.num_inner, len(layout.shared))
        return out

    # ---- the program -----------------------------------------------------------------------------

    def forward(self, **args: Any) -> None:
        layout, outer, inner = self.layout, None, None
        own = self._by_datum(args) if layout.num_inner else None
        plates = self._plates(len(own.mean) if own is not None else 0)
        if layout.num_outer:
            outer = pyro.sample(self.noise_name("outer"), _noise(layout.num_outer), infer=_AUXILIARY)
        if own is not None:
            with plates[str(self.plate)]:
                inner = pyro.sample(self.noise_name("inner"), _noise(layout.num_inner), infer=_AUXILIARY)
        head = self._head(outer, inner)
        if outer is not None:
            outer = outer.reshape((*head, layout.num_outer))
        if own is not None and inner is not None:
            inner = inner.reshape((*head, len(own.mean), layout.num_inner))
        free = layout.by_site(torch.moveaxis, *self._bent(outer, inner, own))
        inside = own.log_scale if own is not None else None
        scales = layout.by_site(torch.moveaxis, self.log_scale if layout.num_outer else None, inside)
        for name, site in self.sites.items():
            self._declare(site, free[name], scales[name], head, plates)

    def noise_name(self, which: str) -> str:
        return f"_{self._pyro_name}_{which}"

    def _plates(self, rows: int) -> dict[str, Any]:
        """By name; the data plate has as many rows as the data that are given."""
        frames = {p.name: p for s in self.sites.values() for p in s.plates if p.dim is not None}
        return {
            name: pyro.plate(name, rows if name == self.plate and rows else p.size, dim=p.dim)
            for name, p in frames.items()
        }

    def _head(self, outer: torch.Tensor | None, inner: torch.Tensor | None) -> tuple[int, ...]:
        """The particles' dimension, if there is one."""
        noise: Any = outer if outer is not None else inner
        return (noise.shape[0],) if noise.dim() - 1 > self.nesting else ()

    def _declare(
        self, site: Site, free: torch.Tensor, log_scale: torch.Tensor, head: Any, plates: Any
    ) -> None:
        transform = self.maps[site.name]
        value = transform(free)
        batch = value.dim() - site.event_dim
        jacobian = transform.log_abs_det_jacobian(free, value)
        density = -sum_rightmost(jacobian, jacobian.dim() - batch)
        density = density - sum_rightmost(log_scale, log_scale.dim() - (batch - len(head)))
        if head:  # particles stand to the left of all plates
            value = spread(value, site, self.nesting)
            density = density.reshape((*head, *value.shape[1 : value.dim() - site.event_dim]))
        with contextlib.ExitStack() as stack:
            for frame in site.plates:
                if frame.dim is not None:
                    stack.enter_context(plates[frame.name])
            pyro.sample(site.name, dist.Delta(value, density, event_dim=site.event_dim))

    # ---- the maths, any leading dimensions -------------------------------------------------------

    def _bent(self, outer: Any, inner: Any, own: Datum | None) -> tuple[Any, Any]:
        """Noise (*head, G) and (*head, n, k) as coordinates."""
        g = u = v = None
        if outer is not None:
            v = torch.linalg.solve_triangular(self._unit(), outer[..., None], upper=False, unitriangular=True)
            v = v[..., 0]
            g = self.loc + torch.exp(self.log_scale) * v
        if own is not None:
            bent = inner + self._follow(own, v)
            if own.below is not None:
                bent = bent + (self._strict(own.below) @ inner[..., None])[..., 0]
            u = own.mean + torch.exp(own.log_scale) * bent
        return g, u

    def noise_at(
        self, values: Mapping[str, torch.Tensor], args: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        """The noise, placed under the particle plate, that gives constrained values (s, *shape)."""
        g, u = self.layout.vectors(torch, {n: self.maps[n].inv(v) for n, v in values.items()})
        v, out = None, {}
        ones = (1,) * self.nesting
        if g is not None:
            v = (g - self.loc) * torch.exp(-self.log_scale)
            noise = (self._unit() @ v[..., None])[..., 0]
            out[self.noise_name("outer")] = noise.reshape(len(noise), *ones, self.layout.num_outer)
        if u is not None:
            own = self._by_datum(args)
            noise = (u - own.mean) * torch.exp(-own.log_scale) - self._follow(own, v)
            if own.below is not None:
                root = self._strict(own.below) + torch.eye(self.layout.num_inner)
                noise = torch.linalg.solve_triangular(root, noise[..., None], upper=False)[..., 0]
            at = (*ones[: self.nesting + self.dim], noise.shape[1], *ones[: -self.dim - 1])
            out[self.noise_name("inner")] = noise.reshape(len(noise), *at, self.layout.num_inner)
        return out

    def _unit(self) -> torch.Tensor:
        """T."""
        unit, at = torch.eye(self.layout.num_outer), self.layout.free
        return unit.index_put(to_torch(at).unbind(), self.lower) if at.size else unit

    def _strict(self, entries: torch.Tensor) -> torch.Tensor:
        """(n, m) entries below the diagonal as matrices (n, k, k)."""
        size, at = self.layout.num_inner, self.layout.below
        out = torch.zeros(len(entries), size, size)
        out[:, at[0], at[1]] = entries
        return out

    def _follow(self, own: Datum, v: torch.Tensor | None) -> Any:
        """B v, (*head, n, k)."""
        if own.slope is None or v is None:
            return 0.0
        shared = v[..., self.layout.shared]
        if own.slope.dim() == 2:  # the same for all data
            return (shared @ own.slope.T)[..., None, :]
        return torch.einsum("nij,...j->...ni", own.slope, shared)

    def _by_datum(self, args: Mapping[str, Any]) -> Datum:
        k, below = self.layout.num_inner, self.layout.below.shape[1]
        slope = self.slope if len(self.layout.shared) else None
        if not isinstance(self.family, Amortized):
            lower = self.datum_lower if below else None
            return Datum(self.datum_loc, self.datum_log_scale, lower, slope)
        features = self._features(args)
        linear = features @ self.encoder_skip.T / np.sqrt(features.shape[-1])
        out = self.encoder_offset.expand(len(features), -1)
        if self.network:
            own = {n: getattr(self, n) for n in self._parameters if n.startswith("encoder_layers")}
            weights = weights_in(own, self.family)
            out = out + torch.func.functional_call(self.network[0], weights, (features,))
        return Datum(linear + out[:, :k], out[:, k : 2 * k], out[:, 2 * k :] if below else None, slope)

    def _features(self, args: Mapping[str, Any]) -> torch.Tensor:
        dtype = self.encoder_offset.dtype
        table = torch.cat([args[n].reshape(len(args[n]), -1).to(dtype) for n in self.names], 1)
        # what is stored of the data is not to be trained
        standard = (table - self.encoder_shift.detach()) / self.encoder_spread.detach()
        return torch.where(torch.isfinite(standard), standard, torch.zeros(()))


_AUXILIARY: Any = {"is_auxiliary": True}


def _noise(size: int) -> Any:
    return dist.Normal(torch.zeros(size), torch.ones(size)).to_event(1)


def draws_at(problem: Problem, family: Any, params: Mapping[str, Any], num: int) -> dict[str, np.ndarray]:
    """Draws (num, *shape) of the latents at any data, of an amortised guide trained on either backend."""
    from ppl_lvm.backends._pyro_guide import draw

    guide = DatumGuide(problem, family, {})
    own = {name.removeprefix(f"{guide._pyro_name}."): value for name, value in params.items()}
    with torch.no_grad():
        for name, param in guide._parameters.items():
            param.copy_(torch.as_tensor(np.array(own[name])))  # type: ignore[union-attr]  # none are None
    others = {k: v for k, v in params.items() if k in problem.params}
    return draw(problem, guide, {**problem.model.fixed_params, **others}, num)[0]
