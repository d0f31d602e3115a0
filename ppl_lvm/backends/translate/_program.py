"""The one torch function that is traced, checked and compared: a Pyro program at unconstrained values.

``Program.evaluate`` runs the user's model once at given unconstrained values of its continuous latent sites,
with discrete sites enumerated, and returns every quantity that a :class:`Density` needs as tensors by name.
Tracing records exactly this function, and the check evaluates exactly this function, so that what is compared
is the translation alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import pyro
import torch
from pyro import poutine
from pyro.distributions.transforms import biject_to
from pyro.poutine.messenger import Messenger
from torch.distributions import Distribution

from ppl_lvm.backends._pyro_density import enumerated, traced_terms
from ppl_lvm.core import Problem

Tensors = dict[str, torch.Tensor]
Marker = Callable[[str], AbstractContextManager[Any]]


def _unmarked(site: str) -> AbstractContextManager[Any]:
    del site
    return nullcontext()


class FromUnconstrained(Messenger):
    """Give latent sites the image of unconstrained values in their supports, and note the log-Jacobians.

    With ``inverse`` the given values lie in the supports, and their preimages are noted.
    """

    def __init__(self, values: Mapping[str, torch.Tensor], mark: Marker, *, inverse: bool = False) -> None:
        super().__init__()
        self.values, self.mark, self.inverse = values, mark, inverse
        self.jacobians: Tensors = {}
        self.free: Tensors = {}

    def _pyro_sample(self, msg: dict) -> None:
        name = msg["name"]
        if name not in self.values or msg["is_observed"]:
            return
        with self.mark(name):
            transform = biject_to(msg["fn"].support)
            if self.inverse:
                value = self.values[name]
                self.free[name] = transform.inv(value)
            else:
                free = self.values[name]
                value = transform(free)
                jacobian = transform.log_abs_det_jacobian(free, value)
                extra = jacobian.dim() - len(msg["fn"].batch_shape)
                self.jacobians[name] = jacobian.sum(tuple(range(-extra, 0))) if extra > 0 else jacobian
        msg["value"] = value


class HoldTensors(Messenger):
    """Hold ``pyro.param`` statements at given tensors."""

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_param(self, msg: dict) -> None:
        if msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True


@dataclass(frozen=True)
class Layout:
    """How the flat inputs of the traced function are arranged: sites, then data leaves, then params."""

    sites: tuple[str, ...]
    data: Any  # a jax tree structure
    num_data: int
    params: tuple[str, ...]

    def split(self, flat: tuple) -> tuple[Tensors, dict[str, Any], Tensors]:
        cut = len(self.sites)
        z = dict(zip(self.sites, flat[:cut], strict=True))
        data = jax.tree_util.tree_unflatten(self.data, list(flat[cut : cut + self.num_data]))
        return z, data, dict(zip(self.params, flat[cut + self.num_data :], strict=True))


@dataclass(frozen=True)
class Program:
    """A bound Pyro model as a function of flat tensors; ``statics`` are its other arguments."""

    problem: Problem
    layout: Layout
    statics: Mapping[str, Any]

    def evaluate(self, flat: tuple, mark: Marker = _unmarked) -> Tensors:
        """Log densities, values and Jacobians by name ."""
        with _unvalidated():
            return self._evaluate(flat, mark)

    def _evaluate(self, flat: tuple, mark: Marker) -> Tensors:
        z, data, params = self.layout.split(flat)
        placed = FromUnconstrained(z, mark)
        trace = self._trace(placed, data, params)
        out: Tensors = {}
        for site, term in placed.jacobians.items():
            out[f"jacobian:{site}"] = term
        for name, declared in self.problem.sites.items():
            node = trace.nodes.get(name)
            if node is None or declared.discrete or declared.kind not in ("latent", "deterministic"):
                continue
            if tuple(node["value"].shape) == declared.shape or name in z:
                out[f"value:{name}"] = node["value"]
        self._log_densities(trace, placed.jacobians, out, mark)
        return out

    def unconstrain(self, flat: tuple, mark: Marker = _unmarked) -> Tensors:
        """Preimages of values in the supports, by site: the sites' inputs are constrained here."""
        values, data, params = self.layout.split(flat)
        placed = FromUnconstrained(values, mark, inverse=True)
        with _unvalidated():
            self._trace(placed, data, params)
        return {f"free:{site}": value for site, value in placed.free.items()}

    def _trace(self, placed: Messenger, data: Mapping[str, Any], params: Tensors) -> Any:
        model = placed(self.problem.model.pyro.model)
        with HoldTensors(params):
            return poutine.trace(enumerated(self.problem, model)).get_trace(**data, **self.statics)

    def _log_densities(self, trace: Any, jacobians: Tensors, out: Tensors, mark: Marker) -> None:
        problem = self.problem
        _score(trace, mark)
        terms = traced_terms(problem, trace, particles=False)
        frames = {n: _frame_dim(trace.nodes[n], problem.data_plate) for n in jacobians}
        split = terms.per_datum is not None
        outside = [j.sum() for n, j in jacobians.items() if frames[n] is None or not split]
        rest = terms.rest if terms.rest is not None else terms.total
        out["rest"] = sum(outside, rest)
        if split:
            inside = [_by_datum(j, frames[n]) for n, j in jacobians.items() if frames[n] is not None]
            start: Any = terms.per_datum
            out["per_datum"] = sum(inside, start)
        prior = traced_terms(problem, trace, particles=False, prior=True).total
        out["log_prior"] = sum((j.sum() for j in jacobians.values()), prior)


@contextmanager
def _unvalidated() -> Iterator[None]:
    """No checks by Pyro or torch, which branch on values: none at all of values in ``log_prob``.

    A distribution that was expanded before (as in a ``PyroSample``) has kept the setting of that time.
    """
    own = Distribution._validate_sample
    Distribution._validate_sample = lambda self, value: None  # type: ignore[method-assign]
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        Distribution._validate_sample = own  # type: ignore[method-assign]


def _score(trace: Any, mark: Marker) -> None:
    """Log densities of all sites, site by site so that what is recorded carries the site's name."""
    from pyro.distributions.util import scale_and_mask

    for name, node in trace.nodes.items():
        if node["type"] != "sample" or "log_prob" in node or type(node["fn"]).__name__ == "_Subsample":
            continue
        with mark(name):
            plain = node["fn"].log_prob(node["value"], *node["args"], **node["kwargs"])
            node["unscaled_log_prob"] = plain
            node["log_prob"] = scale_and_mask(plain, node["scale"], node["mask"])
            node["log_prob_sum"] = node["log_prob"].sum()


def _frame_dim(node: Mapping[str, Any], plate: str | None) -> int | None:
    return next((f.dim for f in node["cond_indep_stack"] if f.name == plate and f.vectorized), None)


def _by_datum(term: torch.Tensor, dim: int | None) -> torch.Tensor:
    moved = term.movedim(dim, -1)  # type: ignore[arg-type]  # only called where there is a dimension
    return moved.reshape((-1, moved.shape[-1])).sum(0)
