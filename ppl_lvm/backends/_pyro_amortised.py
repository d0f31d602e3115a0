"""Per-datum terms of an amortised Pyro model and guide."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import poutine

from ppl_lvm.backends.amortised import Terms
from ppl_lvm.core import Problem


class AmortisedPrograms:
    """A Pyro model and guide whose latents all lie in the data plate."""

    def __init__(self, problem: Problem, guide: Any = None) -> None:
        program = problem.model.pyro
        self.guide: Any = program.guide if guide is None else guide
        self.model: Any = program.model
        self.plate = problem.data_plate
        self.latents = [s.name for s in problem.latents()]
        self.observed_names = [s.name for s in problem.sites.values() if s.kind == "observed"]
        self.nesting = problem.max_plate_nesting

    def traces(self, args: Mapping[str, Any], num: int, values: Any = None) -> tuple[Any, Any]:
        """Traces of the guide and of the model at its ``num`` draws (or at given values (num, b, ...))."""
        with self._particles(num):
            if values is not None:
                held = (poutine.condition(f, data=values) for f in (self.guide, self.model))
                return tuple(poutine.trace(f).get_trace(**args) for f in held)  # type: ignore[return-value]  # two
            drawn = poutine.trace(self.guide).get_trace(**args)
            return drawn, poutine.trace(poutine.replay(self.model, trace=drawn)).get_trace(**args)

    def _particles(self, num: int) -> Any:
        if num == 1:
            return contextlib.nullcontext()
        return pyro.plate("_particles", num, dim=-1 - self.nesting)

    def terms(self, args: Mapping[str, Any], num: int, values: Any = None) -> Terms:
        """:class:`Terms` of ``num`` draws of the guide for each datum."""
        guide, model = self.traces(args, num, values)
        return self.of_traces(guide, model, num)

    def of_traces(self, guide: Any, model: Any, num: int) -> Terms:
        log_lik = self._sum(model, self.observed_names, num)
        log_prior, log_q = self._sum(model, self.latents, num), self._sum(guide, self.latents, num)
        return Terms(log_lik, log_prior, log_q, self._kl(guide, model, num))

    def _sum(self, trace: Any, names: list[str], num: int) -> torch.Tensor:
        total: Any = 0.0
        for name in names:
            node = trace.nodes[name]
            term = node["fn"].log_prob(node["value"])
            total = total + self._per_datum(term, node, num)
        return total

    def _per_datum(self, term: torch.Tensor, node: Any, num: int) -> torch.Tensor:
        """(num, b): other dimensions of a batch are summed."""
        frame = next(f for f in node["cond_indep_stack"] if f.name == self.plate)
        term = term.expand(torch.broadcast_shapes(term.shape, node["fn"].batch_shape))
        if num == 1:
            term = term.unsqueeze(0)
            return term if term.dim() == 2 else term.movedim(frame.dim, -1).flatten(1, -2).sum(1)
        return term if term.dim() == 2 else term.movedim(frame.dim, -1).flatten(1, -2).sum(1)

    def _kl(self, guide: Any, model: Any, num: int) -> torch.Tensor | None:
        parts = []
        for name in self.latents:
            found = kl_of(guide.nodes[name]["fn"], model.nodes[name]["fn"])
            if found is None:
                return None
            parts.append(found if num == 1 else found[0])
        return torch.cat(parts, -1)

    def prior(self, args: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """A draw of the model's latents for each datum, (b, ...) by site."""
        nodes: Any = poutine.trace(self.model).get_trace(**args).nodes
        return {n: nodes[n]["value"] for n in self.latents}

    def moments(
        self, args: Mapping[str, Any], num: int = 200
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Mean and sd of q by site, (b, ...): in closed form, or from ``num`` draws."""
        nodes: Any = poutine.trace(self.guide).get_trace(**args).nodes
        try:
            return {n: (nodes[n]["fn"].mean, nodes[n]["fn"].variance.sqrt()) for n in self.latents}
        except NotImplementedError:
            return {n: (v.mean(0), v.std(0)) for n, v in self.draw(args, num).items()}

    def draw(self, args: Mapping[str, Any], num: int) -> dict[str, torch.Tensor]:
        """Draws of the guide, (num, b, ...) by site."""
        with self._particles(max(num, 2)):
            nodes: Any = poutine.trace(self.guide).get_trace(**args).nodes
        return {n: nodes[n]["value"][:num] for n in self.latents}

    def observed(self, args: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Mean of each observed site at latents (b, ...), and a draw; of categories, the probabilities."""
        nodes: Any = poutine.trace(poutine.condition(self.model, data=dict(values))).get_trace(**args).nodes
        out = {}
        for name in self.observed_names:
            fn = nodes[name]["fn"]
            base = getattr(fn, "base_dist", fn)
            mean = base.probs if isinstance(base, torch.distributions.Categorical) else fn.mean
            out[name] = (mean, fn.sample())
        return out


def kl_of(q: Any, p: Any) -> torch.Tensor | None:
    """KL(q || p) for a normal prior with independent coordinates: (..., q), or (..., 1); None elsewhere."""
    prior = _standard(p)
    if prior is None:
        return None
    plain = _standard(q)
    if plain is not None:
        ratio = (plain.scale / prior.scale) ** 2
        shift = ((plain.loc - prior.loc) / prior.scale) ** 2
        return 0.5 * (ratio + shift - 1 - torch.log(ratio))
    if not isinstance(q, torch.distributions.MultivariateNormal):
        return None
    root = q.scale_tril / prior.scale[..., None]
    shift = (q.loc - prior.loc) / prior.scale
    log_det = torch.diagonal(root, dim1=-2, dim2=-1).log().sum(-1)
    kl = 0.5 * ((root**2).sum((-2, -1)) + (shift**2).sum(-1) - shift.shape[-1]) - log_det
    return kl[..., None]


def _standard(fn: Any) -> Any | None:
    if isinstance(fn, torch.distributions.Independent) and fn.reinterpreted_batch_ndims == 1:
        base = fn.base_dist
        return base if isinstance(base, torch.distributions.Normal) else None
    return None
