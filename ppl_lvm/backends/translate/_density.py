"""From a bound Pyro problem to a :class:`Density`: record, analyse, plan, and the closures over the plan."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.distributions import biject_to
from torch.distributions.transforms import IndependentTransform

from ppl_lvm.backends._numpyro import split_arguments
from ppl_lvm.backends._pyro_trace import HoldParams, to_torch
from ppl_lvm.backends.density import Density, Param, Tree
from ppl_lvm.backends.session import torch_session
from ppl_lvm.backends.translate import _errors
from ppl_lvm.backends.translate._graph import Analysis, Plan
from ppl_lvm.backends.translate._params import as_param, statements
from ppl_lvm.backends.translate._program import Layout, Program
from ppl_lvm.backends.translate._trace import trace
from ppl_lvm.core import Problem

MANY_OPS = 5000
_LOG = logging.getLogger("ppl_lvm")


class Translated:
    """One program with one layout of data: plans by the shapes of the data, made when they are first needed.

    ``examples`` are the data that the program is recorded at (their values only matter for inputs that decide
    its course, the ``baked`` ones, which become constants).
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        data, statics = split_arguments(problem.arguments)
        leaves, structure = jax.tree_util.tree_flatten(data)
        self.examples = [np.asarray(leaf) for leaf in leaves]
        self.sites = {s.name: s for s in problem.latents(discrete=False)}
        self.layout = Layout(tuple(self.sites), structure, len(leaves), problem.params)
        self.program = Program(problem, self.layout, dict(statics))
        with torch_session(0, problem.dtype):
            self.statements = statements(problem)
        self.shapes = {name: self._free_shape(name) for name in self.sites}
        self.baked: frozenset[int] = frozenset()
        self._plans: dict[Any, Plan] = {}
        self._lock = threading.RLock()
        self._run_with_gradients()
        self.plan = self._plan("evaluate", self.examples)

    def _run_with_gradients(self) -> None:
        """Refuse at once what the check would refuse for want of a gradient: recording can take minutes."""
        with torch_session(0, self.problem.dtype):
            latents = [z.requires_grad_() for z in self._example_latents("evaluate", self.examples)]
            try:
                self.program.evaluate((*latents, *self.tensors(self.examples), *self.param_tensors()))
            except Exception as error:  # the user's own code; what else it raises, recording reports
                if "requires grad" in str(error):
                    raise _errors.failed_on_pyro(self.problem.model.describe(), error) from error

    def _free_shape(self, name: str) -> tuple[int, ...]:
        site = self.sites[name]
        if site.constraint is None:
            return site.shape
        with torch_session(0, self.problem.dtype):
            try:
                into = biject_to(site.constraint)
            except NotImplementedError as error:
                raise _errors.no_bijection(self.problem.model.describe(), name, site.constraint) from error
            if _by_element(into):
                return site.shape  # torch would ask its shape algebra, and load sympy for it
            return tuple(into.inverse_shape(torch.Size(site.shape)))

    @property
    def key(self) -> Any:
        """What the compiled functions of this density are cached under: the structure of its graph."""
        shapes = tuple(self.shapes.items())
        held = tuple((k, np.asarray(v).tobytes()) for k, v in sorted(self.problem.model.fixed_params.items()))
        return "translated", self.plan.digest, shapes, self.problem.dtype, self.layout, held

    def tensors(self, leaves: list[np.ndarray]) -> list[torch.Tensor]:
        return [to_torch(np.asarray(leaf)) for leaf in leaves]

    def param_tensors(self) -> list[torch.Tensor]:
        """Example values of the params: as held, else as the program starts them."""
        return [self.statements[n].start for n in self.layout.params]

    # ---- plans -----------------------------------------------------------------------------------

    def _plan(self, kind: str, leaves: list[np.ndarray]) -> Plan:
        key = kind, tuple((leaf.shape, leaf.dtype.name) for leaf in leaves)
        with self._lock:
            if key not in self._plans:
                with torch_session(0, self.problem.dtype):
                    self._plans[key] = self._record(kind, leaves)
            return self._plans[key]

    def _record(self, kind: str, leaves: list[np.ndarray]) -> Plan:
        name = self.problem.model.describe()
        data, params = self.tensors(leaves), self.param_tensors()
        inputs = self._example_latents(kind, leaves)
        evaluate = self.program.evaluate if kind == "evaluate" else self.program.unconstrain
        first = len(inputs)
        lifted = frozenset(range(first, first + len(data)))
        for _ in range(len(data) + 1):
            constant = {i: v.clone() for i, v in enumerate(data) if i in self.baked}  # no input of the tracer
            try:
                traced = trace(_with_constants(evaluate, constant, first), (*inputs, *data, *params))
            except Exception as error:  # the user's own code: anything can come out of it
                raise _errors.failed_while_recorded(name, error) from error
            analysis = Analysis(traced)
            more = frozenset(i - first for i in analysis.baked(lifted)) - self.baked
            if not more:
                break
            self.baked |= more
        problems = analysis.problems()
        if problems:
            raise _errors.refusal(name, problems, self.layout.sites)
        plan = Plan(analysis)
        if plan.num_ops > MANY_OPS and kind == "evaluate":
            _LOG.warning(
                "%s: its graph has %d operators, and compiling takes time that grows with them; unrolled "
                "loops such as pyro.markov are the usual cause: dist.DiscreteHMM (or a vectorised form) has "
                "far fewer.",
                name,
                plan.num_ops,
            )
        return plan

    def _example_latents(self, kind: str, leaves: list[np.ndarray]) -> list[torch.Tensor]:
        sites = self.sites
        same = all(a.shape == b.shape for a, b in zip(leaves, self.examples, strict=True))
        if not same and any(s.local for s in sites.values()):
            raise ValueError(
                f"{self.problem.model.describe()}: sites inside the data plate change their shape with the "
                "data, so the density of other shapes is another density; fit on those data."
            )
        out = []
        for site in sites.values():
            free = torch.full(self.shapes[site.name], 0.1)
            constraint = site.constraint
            out.append(free if kind == "evaluate" or constraint is None else biject_to(constraint)(free))
        return out

    # ---- the functions of a Density --------------------------------------------------------------

    def run(
        self, kind: str, names: tuple[str, ...], values: Tree, data: Tree, params: Tree
    ) -> dict[str, Any]:
        leaves = jax.tree_util.tree_leaves(data)
        plan = self._plan(kind, self._sliced(leaves))
        held = {**self.problem.model.fixed_params, **params}
        inputs = [values[n] for n in self.layout.sites] + leaves + [held[n] for n in self.layout.params]
        return plan.run(tuple(inputs), names)

    def _sliced(self, leaves: list[Any]) -> list[np.ndarray]:
        """Example data in the shapes of ``leaves``: those at hand, cut to the rows of a batch."""
        cut = [i for i in self.baked if jnp.shape(leaves[i]) != self.examples[i].shape]
        if cut:
            raise _errors.TranslationError(
                f"{self.problem.model.describe()}: the course of the program rests on the values of data "
                "that a minibatch slices, so every batch would be another program; leave out batch_size, or "
                "use backend='pyro'."
            )
        out = []
        for own, other in zip(self.examples, leaves, strict=True):
            shape = jnp.shape(other)
            if own.shape == shape:
                out.append(own)
            elif own.ndim == len(shape) and own.shape[1:] == shape[1:] and shape[0] <= own.shape[0]:
                out.append(own[: shape[0]])
            else:
                out.append(np.resize(own, shape).astype(own.dtype))
        return out

    def log_joint(self, z: Tree, data: Tree, params: Tree) -> tuple[Any, Any | None]:
        names = ("rest", "per_datum") if "per_datum" in self.plan.outputs else ("rest",)
        out = self.run("evaluate", names, z, data, params)
        return out["rest"], out.get("per_datum")

    def log_prior(self, z: Tree, data: Tree, params: Tree) -> Any:
        return self.run("evaluate", ("log_prior",), z, data, params)["log_prior"]

    def _by_site(self, prefix: str, names: tuple[str, ...], z: Tree, data: Tree, params: Tree) -> dict:
        out = self.run("evaluate", tuple(f"{prefix}:{n}" for n in names), z, data, params)
        return {n: out[f"{prefix}:{n}"] for n in names}

    def site_jacobians(self, z: Tree, data: Tree, params: Tree) -> dict[str, Any]:
        return self._by_site("jacobian", tuple(self.sites), z, data, params)

    def log_jacobian(self, z: Tree, data: Tree, params: Tree) -> Any:
        return sum(jnp.sum(j) for j in self.site_jacobians(z, data, params).values())

    def constrain(self, z: Tree, data: Tree, params: Tree) -> dict[str, Any]:
        """Values in the supports, and of the deterministic sites that are functions of them alone."""
        named = tuple(n.split(":", 1)[1] for n in self.plan.outputs if n.startswith("value:"))
        return self._by_site("value", named, z, data, params)

    def unconstrain(self, values: Tree, data: Tree, params: Tree) -> dict[str, Any]:
        out = self.run("unconstrain", tuple(f"free:{n}" for n in self.sites), values, data, params)
        return {n: out[f"free:{n}"] for n in self.sites}

    def draw_prior(self, seed: int, num: int, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Unconstrained values of ``num`` draws of the prior, (num, *shape), by Pyro itself."""
        from pyro import poutine

        args = to_torch(dict(self.problem.arguments))
        held = {**params, **self.problem.model.fixed_params}
        rows = []
        with torch_session(seed, self.problem.dtype), torch.no_grad(), HoldParams(held):
            for _ in range(num):
                nodes: Any = poutine.trace(self.problem.model.pyro.model).get_trace(**args).nodes
                rows.append([biject_to(nodes[n]["fn"].support).inv(nodes[n]["value"]) for n in self.sites])
            stacked = [torch.stack(column).numpy() for column in zip(*rows, strict=True)]
        return dict(zip(self.sites, stacked, strict=True))

    def rebound(self, problem: Problem) -> Translated | None:
        """The same translation for other data of the same shapes; None if values that it rests on differ."""
        data, statics = split_arguments(problem.arguments)
        leaves = [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(data)]
        if any(not np.array_equal(leaves[i], self.examples[i], equal_nan=True) for i in self.baked):
            return None
        other = copy.copy(self)
        other.problem, other.examples = problem, leaves
        other.program = Program(problem, self.layout, dict(statics))
        return other

    def density(self) -> Density:
        """As an engine takes it."""
        proper = all(s.proper for s in self.sites.values())
        return Density(
            key=self.key,
            log_joint=self.log_joint,
            log_prior=self.log_prior,
            sample_prior=None,
            draw_prior=self.draw_prior if proper else None,
            constrain=self.constrain,
            unconstrain=self.unconstrain,
            log_jacobian=self.log_jacobian,
            site_jacobians=self.site_jacobians,
            shapes=self.shapes,
            local=tuple(n for n, s in self.sites.items() if s.local),
            params=self.free_params(),
        )

    def free_params(self) -> dict[str, Param]:
        """Params that nothing holds."""
        fixed = self.problem.model.fixed_params
        dtype = self.problem.dtype
        return {n: as_param(s, dtype) for n, s in self.statements.items() if n not in fixed}


def _with_constants(evaluate: Any, constant: Mapping[int, torch.Tensor], first: int) -> Any:
    """``evaluate`` with some data inputs replaced by fixed tensors, so that what they decide is folded."""
    if not constant:
        return evaluate

    def fixed(flat: tuple, mark: Any) -> Any:
        own = list(flat)
        for i, value in constant.items():
            own[first + i] = value
        return evaluate(tuple(own), mark)

    return fixed


def _by_element(transform: Any) -> bool:
    """Whether a transform takes one number to one number."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return transform.domain.event_dim == transform.codomain.event_dim == 0
