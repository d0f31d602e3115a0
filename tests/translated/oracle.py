"""Pyro's own log density and gradient of a model of the zoo, without a line of ppl_lvm.

Values are unconstrained, by site, as NumPy arrays. Log densities contain the Jacobians of Pyro's transforms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import init_to_value
from pyro.infer.mcmc.util import initialize_model
from pyro.poutine.messenger import Messenger
from torch.distributions import biject_to

from translated._registry import Entry

Point = Mapping[str, np.ndarray]


@contextmanager
def torch_settings(dtype: str) -> Iterator[None]:
    """A default dtype, an own parameter store and random state, all put back."""
    before = torch.get_default_dtype()
    with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
        torch.manual_seed(0)
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def arguments(entry: Entry, dtype: str = "float64") -> dict[str, Any]:
    """The model's arguments as tensors (floats in ``dtype``) and static values."""
    out = {}
    for name, value in entry.data().items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value.astype(dtype) if value.dtype.kind == "f" else value.copy())
        out[name] = value
    return out


class _Place(Messenger):
    """Give latent sites the images of unconstrained values, each support as it is at that moment."""

    def __init__(self, z: Mapping[str, torch.Tensor] | None) -> None:
        super().__init__()
        self.z, self.shapes, self.jacobians = z, {}, {}

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if msg["is_observed"] or type(fn).__name__ == "_Subsample" or fn.has_enumerate_support:
            return
        to = biject_to(fn.support)
        self.shapes[msg["name"]] = tuple(to.inverse_shape(fn.batch_shape + fn.event_shape))
        free = torch.zeros(self.shapes[msg["name"]]) if self.z is None else self.z[msg["name"]]
        msg["value"] = to(free)
        terms = to.log_abs_det_jacobian(free, msg["value"])
        batch = len(fn.batch_shape)
        self.jacobians[msg["name"]] = (
            terms.sum(tuple(range(batch, terms.dim()))) if terms.dim() > batch else terms
        )


class Oracle:
    """What Pyro says of one model: call inside of :func:`torch_settings`."""

    def __init__(self, entry: Entry, dtype: str = "float64") -> None:
        self.entry, self.dtype = entry, dtype
        self.arguments = arguments(entry, dtype)
        trace, place = self._placed(None)
        self.shapes = place.shapes
        start = {name: trace.nodes[name]["value"].detach() for name in place.shapes}
        self._potential: Any = None
        if not entry.dependent:
            _, self._potential, _, _ = initialize_model(
                entry.function,
                model_kwargs=self.arguments,
                initial_params={},
                max_plate_nesting=_nesting(trace),
                init_strategy=init_to_value(values=start),
            )

    def _placed(self, z: Mapping[str, torch.Tensor] | None) -> tuple[Any, _Place]:
        place = _Place(z)
        trace = poutine.trace(place(self.entry.function)).get_trace(**self.arguments)
        return trace, place

    def _tensors(self, z: Point) -> dict[str, torch.Tensor]:
        return {k: torch.tensor(np.asarray(v, self.dtype)).requires_grad_() for k, v in z.items()}

    def log_density(self, z: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Pyro's potential function, negated; where supports depend on sites, the sum over a trace."""
        if self._potential is not None:
            return -self._potential(dict(z))
        trace, place = self._placed(z)
        return trace.log_prob_sum() + sum(j.sum() for j in place.jacobians.values())

    def value_and_gradient(self, z: Point) -> tuple[float, dict[str, np.ndarray]]:
        free = self._tensors(z)
        value = self.log_density(free)
        slopes = torch.autograd.grad(value, list(free.values()), allow_unused=True)
        found = {
            k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(free.items(), slopes, strict=True)
        }
        return float(value.detach()), {k: g.numpy() for k, g in found.items()}

    def constrained(self, z: Point) -> dict[str, np.ndarray]:
        """Values of the continuous latent sites and of the deterministic ones."""
        with torch.no_grad():
            nodes = self._placed(self._tensors(z))[0].nodes
        named = [n for n, s in nodes.items() if n in z or s.get("infer", {}).get("_deterministic")]
        return {n: nodes[n]["value"].detach().numpy() for n in named}

    def jacobians(self, z: Point) -> dict[str, float]:
        with torch.no_grad():
            return {k: float(v.sum()) for k, v in self._placed(self._tensors(z))[1].jacobians.items()}

    def log_prior(self, z: Point) -> float:
        """Of the latent sites alone, with Jacobians; only for models without discrete sites."""
        with torch.no_grad():
            trace, place = self._placed(self._tensors(z))
            trace.compute_log_prob()
            latent = [trace.nodes[name]["log_prob_sum"] for name in place.jacobians]
            return float(sum(latent) + sum(j.sum() for j in place.jacobians.values()))

    def by_datum(self, z: Point) -> tuple[float, np.ndarray | None]:
        """Sums of log densities and Jacobians outside of the data plate and for each datum inside of it.

        The data plate is the outermost one around every observed statement (factors count where there are no
        others); None without one. Only for models without discrete sites.
        """
        with torch.no_grad():
            trace, place = self._placed(self._tensors(z))
            trace.compute_log_prob()
        nodes = {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and "log_prob" in s}
        plate = data_plate(nodes)
        outside, inside = 0.0, None if plate is None else np.zeros(plate.size)
        for name, node in nodes.items():
            frames = {f.name: f for f in node["cond_indep_stack"] if f.vectorized}
            for term in [node["log_prob"], *([place.jacobians[name]] if name in place.jacobians else [])]:
                full = term.expand(torch.broadcast_shapes(term.shape, _dims(frames.values())))
                if plate is not None and plate.name in frames:
                    inside += full.movedim(plate.dim, -1).reshape(-1, plate.size).sum(0).numpy()
                else:
                    outside += float(full.sum())
        return outside, inside

    def unconstrained(self, values: Point) -> dict[str, np.ndarray]:
        """Preimages of values in the supports."""
        held = {k: torch.tensor(np.asarray(v, self.dtype)) for k, v in values.items()}
        with torch.no_grad():
            trace = poutine.trace(poutine.condition(self.entry.function, data=held)).get_trace(
                **self.arguments
            )
            return {k: biject_to(trace.nodes[k]["fn"].support).inv(v).numpy() for k, v in held.items()}


def _nesting(trace: Any) -> int:
    stacks = [s["cond_indep_stack"] for s in trace.nodes.values() if s["type"] == "sample"]
    return max((-f.dim for stack in stacks for f in stack if f.vectorized), default=0)


def _dims(frames: Iterable[Any]) -> tuple[int, ...]:
    """The batch shape that plates ask for."""
    sizes = {f.dim: f.size for f in frames}
    return tuple(sizes.get(d, 1) for d in range(min(sizes, default=0), 0))


def data_plate(nodes: Mapping[str, Any]) -> Any | None:
    """The outermost plate around every observed statement."""
    observed = [s for s in nodes.values() if s["is_observed"] and not s["infer"].get("_deterministic")]
    plain = [s for s in observed if s["value"].numel() > 0]
    chosen = plain or [s for s in observed if s["cond_indep_stack"]]
    if not chosen:
        return None
    shared = set.intersection(*({f.name for f in s["cond_indep_stack"] if f.vectorized} for s in chosen))
    return next((f for f in chosen[0]["cond_indep_stack"] if f.name in shared), None)
