"""The graph of a model: its sites, what each depends on, and the statement that declares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ppl_lvm.core import Problem


@dataclass(frozen=True)
class Node:
    """One site: what it is, how it is drawn (in words), and the sites that this depends on directly.

    ``statement`` is the right-hand side: "Normal(mu, tau)", or "f(mu, z)" where it is computed and no simpler
    form was recognised. ``plates`` run from the outermost to the innermost.
    """

    name: str
    kind: Literal["latent", "observed", "deterministic", "param"]
    statement: str
    parents: tuple[str, ...]
    plates: tuple[str, ...]
    event_shape: tuple[int, ...] = ()
    discrete: bool = False
    is_factor: bool = False

    @property
    def sentence(self) -> str:
        """``theta ~ Normal(mu, tau)``; ``=`` for what is computed."""
        if self.is_factor:
            return f"log p({self.name}) = {self.statement}"
        return f"{self.name} {'~' if self.kind in ('latent', 'observed') else '='} {self.statement}"


@dataclass(frozen=True, repr=False)
class ModelGraph:
    """What :func:`model_graph` found: nodes in the order of the program, and sizes of plates by name."""

    model: str
    nodes: tuple[Node, ...]
    plates: Mapping[str, int]

    def plot(self) -> Any:
        """Sites as circles, observed ones shaded, plates as frames (:func:`ppl_lvm.plots.plot_model`)."""
        from ppl_lvm.plots import plot_model

        return plot_model(self)

    def __repr__(self) -> str:
        lines = [f"{self.model}:"]
        inside: tuple[str, ...] = ()
        for node in self.nodes:
            if node.plates != inside and node.plates:
                lines.append(f"  for each {self.where(node)}:")
            inside = node.plates
            lines.append(f"  {'  ' if inside else ''}{node.sentence}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from ppl_lvm.notebook import graph_html

        return graph_html(self)

    def where(self, node: Node) -> str:
        """``school (8)``: the plates that a node lies in, outermost first, with their sizes."""
        return ", ".join(f"{p} ({self.plates[p]})" for p in node.plates)


def model_graph(model: Any, data: Any = None) -> ModelGraph:
    """The graph of a model at data, or of a fit, from three runs of the Pyro program.

    Dependencies are those of Pyro's provenance tracking: each value carries the names of the sites that it
    was computed from. A parameter that equals a site's value, an entry of it chosen by a discrete site, or a
    simple function of it, is written as such; a constant by its value or the name of the data argument.

    Parameters
    ----------
    model, data
        As for :func:`ppl_lvm.fit`; or a fit, alone.

    Raises
    ------
    ValueError
        For a fit loaded without its data, and where the program cannot be traced in this way.
    """
    from ppl_lvm.backends._pyro_graph import trace_nodes
    from ppl_lvm.backends.session import random_states_restored, torch_session

    problem = _problem(model, data)
    with random_states_restored(), torch_session(0, problem.dtype):
        nodes = trace_nodes(problem)
    sizes = {p.name: p.size for s in problem.sites.values() for p in s.plates}
    return ModelGraph(problem.model.describe(), nodes, sizes)


def _problem(model: Any, data: Any) -> Problem:
    from ppl_lvm.fitting import prepare
    from ppl_lvm.result import Fit

    if not isinstance(model, Fit):
        return prepare(model, data)
    if data is not None:
        raise ValueError("data: a fit has its own; pass a fit alone, or a model with data.")
    if model.problem is None:
        raise ValueError("model: this fit was loaded without its data; pass its model with the data.")
    return model.problem


__all__ = ["ModelGraph", "Node", "model_graph"]
