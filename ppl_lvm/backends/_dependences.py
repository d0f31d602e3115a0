"""Which sites a Gaussian needs to let depend on which, so that it fits the posterior's structure.

The posterior's density is a product of factors, one for each site of the program, of the site and what it
is drawn from. Sites that share a factor are neighbours. Taken in the program's order, a site depends on those
earlier ones that are its neighbours once all later ones have been integrated out, each of which makes its own
neighbours each other's. This is the faithful inverse of the program's graph (Webb et al. 2018, NeurIPS 31): a
Gaussian posterior of that graph factorises in this way, so that nothing that it has is dropped.

Sites in the data plate come last, those of one datum as one block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ppl_lvm.backends._few_rows import resized
from ppl_lvm.core import Problem, Site
from ppl_lvm.streams import in_memory

_ROWS = 1000  # the program is looked through at no more than these
_DATUM = ""  # the block of one datum's sites: no site has that name


class Dependences(NamedTuple):
    """Sites outside and inside the data plate, in the program's order; earlier sites that each of the outer
    ones depends on; those that a datum's block depends on."""

    outer: tuple[str, ...]
    inner: tuple[str, ...]
    parents: tuple[tuple[str, ...], ...]
    shared: tuple[str, ...]


def dependences(problem: Problem) -> Dependences:
    """From three runs of the Pyro program; kept in ``problem.notes``. Every site on every earlier one where
    the program cannot be looked through."""
    if "dependences" not in problem.notes:
        problem.notes["dependences"] = _found(problem)
    found: Dependences = problem.notes["dependences"]
    return found


def in_data_plate(problem: Problem, site: Site) -> bool:
    """Whether a site's value runs along the data plate (a sequential plate makes a site for each datum)."""
    return any(p.name == problem.data_plate and p.dim is not None for p in site.plates)


def _found(problem: Problem) -> Dependences:
    sites = problem.latents(discrete=False)
    inner = tuple(s.name for s in sites if in_data_plate(problem, s))
    outer = tuple(s.name for s in sites if s.name not in inner)
    scopes = _scopes(problem)
    if scopes is None:
        return Dependences(outer, inner, tuple(outer[:i] for i in range(len(outer))), outer)
    neighbours: dict[str, set[str]] = {}
    for scope in scopes:
        _join(neighbours, scope)
    order = [s.name for s in problem.latents(discrete=True) if not in_data_plate(problem, s)]
    order += [_DATUM, *reversed(outer)]
    before = {name: _integrated_out(neighbours, name) for name in order}
    parents = tuple(tuple(n for n in outer if n in before[name]) for name in outer)
    return Dependences(outer, inner, parents, tuple(n for n in outer if n in before[_DATUM]))


def _join(neighbours: dict[str, set[str]], names: Iterable[str]) -> None:
    together = set(names)
    for name in together:
        neighbours.setdefault(name, set()).update(together - {name})


def _integrated_out(neighbours: dict[str, set[str]], name: str) -> set[str]:
    """The neighbours of a site, which become each other's as it goes."""
    own = neighbours.pop(name, set())
    for other in own:
        neighbours[other].discard(name)
    _join(neighbours, own)
    return own


def _scopes(problem: Problem) -> list[set[str]] | None:
    """The latent sites in each factor of the joint density; those of the data plate as one."""
    from ppl_lvm.backends._pyro_graph import trace_nodes
    from ppl_lvm.backends.session import random_states_restored, torch_session

    try:
        with random_states_restored(), torch_session(0, problem.dtype):
            nodes = {n.name: n for n in trace_nodes(_at_few(problem))}
    except ValueError:  # a program that cannot be run in that way
        return None
    latent = {s.name: s for s in problem.latents()}
    names = {n: _DATUM if in_data_plate(problem, s) else n for n, s in latent.items()}
    factors = [n for n in nodes.values() if n.kind in ("latent", "observed")]
    return [{names[n] for n in _sources(nodes, f.parents) | {f.name} if n in names} for f in factors]


def _sources(nodes: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """Sites with deterministic ones replaced by what they are computed from."""
    found: set[str] = set()
    for name in names:
        node = nodes.get(name)
        computed = node is not None and node.kind == "deterministic"
        found |= _sources(nodes, node.parents) if node is not None and computed else {name}
    return found


def _at_few(problem: Problem) -> Problem:
    """The problem at its first rows where there are many."""
    n = problem.num_data
    if n is None or n <= _ROWS or not problem.batched:
        return problem
    few = {k: v[:_ROWS] if k in problem.batched else v for k, v in problem.arguments.items()}
    arguments = in_memory(few, problem.dtype)
    plate = str(problem.data_plate)
    sites = {name: resized(site, plate, _ROWS) for name, site in problem.sites.items()}
    return dataclasses.replace(problem, arguments=arguments, sites=sites, num_data=_ROWS, notes={})


__all__ = ["Dependences", "dependences", "in_data_plate"]
