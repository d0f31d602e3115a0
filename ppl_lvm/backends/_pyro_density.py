"""Log densities of Pyro programs for many values at once, discrete sites summed out.

The unit of work is a *particle*: one set of values of the continuous latent sites. All particles of
a chunk go through the program together, under one extra plate to the left of the program's own;
enumeration dimensions lie further to the left. Factors are then contracted by Pyro's own variable
elimination, keeping the particle plate, or the particle and the data plate for per-datum terms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.ops.contract import contract_to_tensor
from pyro.poutine.messenger import Messenger

from ppl_lvm.backends._pyro_trace import HoldParams, to_torch
from ppl_lvm.core import Problem, Site

PARTICLES = "_particles"


class Terms(NamedTuple):
    """Log density of each particle, ``total`` (s,), and its split over the data plate.

    ``per_datum`` (s, n) sums every factor inside the data plate, ``rest`` (s,) those outside;
    both are None where there is no data plate, or where a discrete site outside it ties data together.
    """

    total: torch.Tensor
    rest: torch.Tensor | None
    per_datum: torch.Tensor | None


def particle_plate(problem: Problem, num_particles: int) -> Any:
    """A plate to the left of all of the program's own."""
    return pyro.plate(PARTICLES, num_particles, dim=-1 - problem.max_plate_nesting)


def spread(value: torch.Tensor, site: Site, nesting: int) -> torch.Tensor:
    """(s, *shape) -> particles at the particle plate's dimension."""
    gap = nesting - len(site.batch_shape)
    return value.reshape(value.shape[:1] + (1,) * gap + value.shape[1:])


def gather(value: torch.Tensor, site: Site, nesting: int) -> torch.Tensor:
    """The inverse of :func:`spread`, for values drawn under the particle plate."""
    gap = nesting - len(site.batch_shape)
    return value.reshape(value.shape[:1] + value.shape[1 + gap :])


class EnumerateAll(Messenger):
    """Mark every enumerable latent site for parallel enumeration, whatever the program says."""

    def _pyro_sample(self, msg: dict) -> None:
        if not msg["is_observed"] and msg["fn"].has_enumerate_support:
            msg["infer"] = {**msg["infer"], "enumerate": "parallel"}


def enumerated(problem: Problem, model: Callable[..., Any]) -> Callable[..., Any]:
    """The model with every enumerable discrete site enumerated in parallel."""
    first = -2 - problem.max_plate_nesting
    return poutine.enum(EnumerateAll()(model), first_available_dim=first)


def traced_terms(problem: Problem, trace: Any, *, particles: bool = True, prior: bool = False) -> Terms:
    """Contract the factors of an enumerated trace that ran under the particle plate.

    ``prior`` leaves out the observed sites: the density of the continuous latents alone.
    """
    trace.compute_log_prob()
    nodes = _scored(problem, trace, prior)
    if not any(
        "_enumerate_dim" in node["infer"] for node in trace.nodes.values() if node["type"] == "sample"
    ):
        return _summed_terms(problem, nodes, _plate_sizes(trace), particles)
    trace.pack_tensors()
    symbols, sizes = trace.plate_to_symbol, _plate_sizes(trace)
    single = {symbols[name] for name, size in sizes.items() if size == 1}  # packing drops those
    keep = frozenset({symbols[PARTICLES]} - single) if particles else frozenset()
    data = symbols.get(problem.data_plate) if problem.data_plate else None
    inside: OrderedDict = OrderedDict()
    outside: OrderedDict = OrderedDict()
    for node in nodes:
        ordinal = frozenset(symbols[f.name] for f in node["cond_indep_stack"] if f.vectorized)
        where = inside if data in ordinal else outside
        where.setdefault(ordinal - single, []).append(node["packed"]["log_prob"])
    enum_dims = set(trace.symbol_to_dim) - set(symbols.values())
    head = (sizes[PARTICLES],) if particles else ()
    if data is None or _enum_symbols(inside, enum_dims) & _enum_symbols(outside, enum_dims):
        for ordinal, terms in inside.items():
            outside.setdefault(ordinal, []).extend(terms)
        return Terms(_contract(outside, enum_dims, keep).reshape(head), None, None)
    local: Any = _contract(inside, enum_dims, keep | ({data} - single)) if inside else None
    if local is None:  # a prior without local latents
        local = torch.zeros((*head, sizes[str(problem.data_plate)]))
    elif {symbols.get(PARTICLES), data} <= set(local._pyro_dims) and local._pyro_dims[0] == data:
        local = local.transpose(-1, -2)
    local = local.reshape((*head, sizes[str(problem.data_plate)]))
    rest = _contract(outside, enum_dims, keep).reshape(head) if outside else torch.zeros(head)
    return Terms(rest + local.sum(-1), rest, local)


def _scored(problem: Problem, trace: Any, prior: bool) -> list[Any]:
    """The sample nodes whose densities count."""
    return [
        node
        for name, node in trace.nodes.items()
        if node["type"] == "sample"
        and type(node["fn"]).__name__ != "_Subsample"
        and not (prior and problem.sites[name].kind == "observed")
    ]


def _summed_terms(problem: Problem, nodes: list[Any], sizes: Mapping[str, int], particles: bool) -> Terms:
    """Where nothing is enumerated, densities are sums; no contraction is needed."""
    head = (sizes[PARTICLES],) if particles and PARTICLES in sizes else ()
    n = sizes.get(problem.data_plate) if problem.data_plate else None
    rest, local = torch.zeros(head), torch.zeros((*head, n or 0))
    for node in nodes:
        dims = {f.name: f.dim for f in node["cond_indep_stack"] if f.vectorized}
        inside = n is not None and problem.data_plate in dims
        keep = [dims[PARTICLES]] if head else []
        keep += [dims[problem.data_plate]] if inside else []
        term = _sum_but(node, keep)
        if inside:
            local = local + term
        else:
            rest = rest + term
    return Terms(rest, None, None) if n is None else Terms(rest + local.sum(-1), rest, local)


def _sum_but(node: Any, keep: list[int]) -> torch.Tensor:
    """A node's log density summed over all batch dimensions but ``keep``, which come in that order."""
    term = node["log_prob"]
    frames = {f.dim: f.size for f in node["cond_indep_stack"] if f.vectorized}
    width = max([term.dim(), *(-d for d in frames)])
    shape = [1] * (width - term.dim()) + list(term.shape)
    term = term.expand([frames.get(i - width, size) for i, size in enumerate(shape)])
    if not keep:
        return term.sum()
    moved = term.movedim(keep, list(range(len(keep))))
    return moved.sum(tuple(range(len(keep), width))) if width > len(keep) else moved


def _plate_sizes(trace: Any) -> dict[str, int]:
    return {
        f.name: f.size
        for node in trace.nodes.values()
        if node["type"] == "sample"
        for f in node["cond_indep_stack"]
        if f.vectorized
    }


def _contract(factors: OrderedDict, enum_dims: set, target: frozenset) -> torch.Tensor:
    used = _enum_symbols(factors, enum_dims)
    merged = OrderedDict((ordinal, _merged(terms)) for ordinal, terms in factors.items())
    return contract_to_tensor(merged, used, target_ordinal=target)


def _merged(terms: list[torch.Tensor]) -> list[torch.Tensor]:
    """Factors over the same dimensions added up, so that each sum is exponentiated once."""
    found: dict[Any, torch.Tensor] = {}
    for term in terms:
        dims: Any = term._pyro_dims  # type: ignore[attr-defined]  # set by Pyro's packing
        if dims not in found:
            found[dims] = term
            continue
        found[dims] = found[dims] + term
        found[dims]._pyro_dims = dims  # type: ignore[attr-defined]
    return list(found.values())


def _enum_symbols(factors: OrderedDict, enum_dims: set) -> set:
    return {d for terms in factors.values() for t in terms for d in t._pyro_dims} & enum_dims


def log_density(
    problem: Problem,
    values: Mapping[str, np.ndarray],
    params: Mapping[str, Any],
    *,
    chunk: int = 250,
    prior: bool = False,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Marginal log density at given values of the continuous latent sites, leading dimension s.

    Returns ``(total (s,), rest (s,) | None, per_datum (s, n) | None)`` as in :class:`Terms`, in the
    constrained space of the sites, scaled as the program itself scales. Programs that do not
    broadcast over an extra plate are run once per particle; which way is right is decided by
    running the first two particles both ways. ``prior`` leaves out the observed sites.
    """
    args = to_torch(problem.arguments)
    tensors = {k: to_torch(np.asarray(v)) for k, v in values.items()}
    num = len(next(iter(tensors.values())))
    runner = run_model if broadcasts(problem, args, tensors, params, prior=prior) else run_each
    with torch.no_grad():
        chunks = [{k: v[i : i + chunk] for k, v in tensors.items()} for i in range(0, num, chunk)]
        parts = [runner(problem, args, part, params, prior=prior) for part in chunks]
    total = torch.cat([p.total for p in parts]).numpy()
    if parts[0].per_datum is None:
        return total, None, None
    rest = torch.cat([p.rest for p in parts if p.rest is not None]).numpy()
    return total, rest, torch.cat([p.per_datum for p in parts if p.per_datum is not None]).numpy()


def broadcasts(
    problem: Problem,
    args: Mapping[str, Any],
    values: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    prior: bool,
) -> bool:
    """Whether one run of the program gives the terms of single ones, for the first two particles."""
    few = {k: v[:2] for k, v in values.items()}
    with torch.no_grad():
        exact = run_each(problem, args, few, params, prior=prior)
        try:
            return agree(exact, run_model(problem, args, few, params, prior=prior))
        except Exception:  # the user's program does not broadcast: any error can come out of it
            return False


def run_each(
    problem: Problem,
    args: Mapping[str, Any],
    values: Mapping[str, torch.Tensor],
    params: Mapping[str, Any],
    *,
    prior: bool = False,
) -> Terms:
    """Terms of all particles in a run of the program for each, at values (s, *site.shape)."""
    size = len(next(iter(values.values())))
    rows = [
        run_single(problem, args, {k: v[i] for k, v in values.items()}, params, prior=prior)
        for i in range(size)
    ]
    return stack_terms(rows)


def stack_terms(rows: list[Terms]) -> Terms:
    """Terms of single particles as those of all."""
    total = torch.stack([r.total for r in rows])
    if rows[0].per_datum is None or rows[0].rest is None:
        return Terms(total, None, None)
    return Terms(total, *(torch.stack(list(part)) for part in list(zip(*rows, strict=True))[1:]))


def agree(a: Terms, b: Terms) -> bool:
    """Whether two evaluations are the same up to rounding."""
    if (a.per_datum is None) != (b.per_datum is None) or a.total.shape != b.total.shape:
        return False
    rtol = 1e-9 if a.total.dtype == torch.float64 else 1e-4
    pairs = [(a.total, b.total)]
    if a.per_datum is not None and b.per_datum is not None:
        if a.per_datum.shape != b.per_datum.shape:
            return False
        pairs.append((a.per_datum, b.per_datum))
    return all(torch.allclose(x, y, rtol=rtol, atol=rtol, equal_nan=True) for x, y in pairs)


def run_model(
    problem: Problem,
    args: Mapping[str, Any],
    values: Mapping[str, torch.Tensor],
    params: Mapping[str, Any],
    *,
    prior: bool = False,
) -> Terms:
    """Terms of all particles in one run of the program, at values (s, *site.shape)."""
    nesting = problem.max_plate_nesting
    num = len(next(iter(values.values())))
    placed = {k: spread(v, problem.sites[k], nesting) for k, v in values.items()}
    fixed = poutine.condition(problem.model.pyro.model, data=placed)
    plate = particle_plate(problem, num)

    def program(**kwargs: Any) -> Any:
        with plate:
            return fixed(**kwargs)

    with HoldParams({**problem.model.fixed_params, **params}):
        trace = poutine.trace(enumerated(problem, program)).get_trace(**args)
    return traced_terms(problem, trace, prior=prior)


def run_single(
    problem: Problem,
    args: Mapping[str, Any],
    values: Mapping[str, torch.Tensor],
    params: Mapping[str, Any],
    *,
    prior: bool = False,
) -> Terms:
    """Terms of one particle, without any plate of ours: total (), rest (), per_datum (n,)."""
    fixed = poutine.condition(problem.model.pyro.model, data=dict(values))
    with HoldParams({**problem.model.fixed_params, **params}):
        trace = poutine.trace(enumerated(problem, fixed)).get_trace(**args)
    return traced_terms(problem, trace, particles=False, prior=prior)
