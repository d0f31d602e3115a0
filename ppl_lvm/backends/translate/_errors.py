"""Why a program cannot be translated, in words: model, site, source line, and the way out."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from ppl_lvm.backends.translate._graph import Problems
from ppl_lvm.backends.translate._trace import origin_of
from ppl_lvm.backends.translate.rules import name_of

_PYRO = "or run on Pyro with backend='pyro'"
_MOST_LISTED = 12


class TranslationError(ValueError):
    """A Pyro program that the translation to JAX does not take; the message says why and what to do."""


def refusal(model: str, problems: Problems, sites: tuple[str, ...]) -> TranslationError:
    """All reasons against a translation, in one message."""
    del sites
    reasons = []
    if problems.concrete:
        reasons.append(
            f"the value of a latent site or param is taken out of the graph ({_places(problems.concrete)}), as by "
            ".item(), float(), or an if on it, so that one course of the program would be frozen; use "
            f"torch.where, {_PYRO}"
        )
    if problems.shaped:
        reasons.append(
            f"a shape depends on the value of a latent site or param ({_places(problems.shaped)}), as by a "
            f"boolean mask; keep the shape and use torch.where or a sum over a mask, {_PYRO}"
        )
    if problems.random:
        reasons.append(
            f"the density draws random numbers ({_places(problems.random)}); make the draw a pyro.sample site, "
            f"or compute it before the fit and pass it as data, {_PYRO}"
        )
    if problems.missing:
        reasons.append(
            f"no rule for {_operators(problems.missing)}; teach them with lvm.register_rule(op)(function), {_PYRO}"
        )
    return TranslationError(f"{model} cannot be translated to JAX: " + "; moreover ".join(reasons) + ".")


def _places(nodes: Iterable[fx.Node]) -> str:
    found = list(dict.fromkeys(place(n) for n in nodes))
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def place(node: fx.Node) -> str:
    """``site 'x', model.py:12`` as far as it is known."""
    origin = origin_of(node)
    line = origin.line or _line_before(node)
    parts = [f"site {origin.site!r}"] if origin.site else []
    return ", ".join([*parts, line] if line else parts) or name_of(node.target)


def _line_before(node: fx.Node) -> str:
    """The line of the nearest node that it was computed from, where it has none of its own."""
    seen = {node}
    queue = list(node.all_input_nodes)
    while queue:
        current = queue.pop(0)
        if current in seen:
            continue
        seen.add(current)
        if origin_of(current).line:
            return f"after {origin_of(current).line}"
        queue.extend(current.all_input_nodes)
    return ""


def _operators(nodes: Iterable[fx.Node]) -> str:
    found: dict[str, str] = {}
    for node in nodes:
        found.setdefault(name_of(node.target), place(node))
    listed = [f"{name} ({where})" for name, where in list(found.items())[:_MOST_LISTED]]
    more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    return ", ".join(listed) + more


def failed_while_recorded(model: str, error: Exception) -> TranslationError:
    """The user's code (or a library's) raised while it was recorded, though it runs on plain tensors."""
    text = str(error).split("\n")[0] or type(error).__name__
    hint = ""
    if "numpy" in text.lower() or "tracing tensor" in text.lower():
        hint = " (a value leaves torch there, as by .numpy() or .tolist())"
    return TranslationError(
        f"{model} cannot be translated to JAX: it runs on plain tensors, but failed while it was recorded: "
        f"{text}{hint}; keep to torch operators on latent values, {_PYRO}."
    )
