"""Why a program cannot be translated, in words: model, site, source line, and the way out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import fx

from ppl_lvm.backends.translate._graph import Problems, is_foreign
from ppl_lvm.backends.translate._recorder import example, is_users, origin_of
from ppl_lvm.backends.translate.rules import name_of

_PYRO = "or run on Pyro with backend='pyro'"
_MOST_LISTED = 12
_MOST_PLACES = 3
_LONGEST = 240
# What a library says when it fails -> what that means for a model.
_HINTS = {
    ("numpy", "tracing tensor"): "a value leaves torch there; use torch's function of the same name",
    ("only one element", "more than one value", "cannot be converted to scalar"): (
        "a discrete site that is summed out holds all its values at once; index tensors with it, as loc[z], "
        "and use torch.where in place of an if"
    ),
    ("dynamo", "torch.compile", "torchscript"): "leave out torch.compile and torch.jit; JAX compiles it all",
    ("quantized", "sparse"): "use dense tensors of float64 or float32",
}


class TranslationError(ValueError):
    """A Pyro program that the translation to JAX does not take; the message says why and what to do."""


def refusal(model: str, problems: Problems, sites: tuple[str, ...]) -> TranslationError:
    """All reasons against a translation, in one message; ``sites`` are the graph's first inputs."""
    reasons = []
    if problems.concrete:
        taken = f"{_values_of(problems.concrete, sites)} is taken out of the graph"
        reasons.append(
            f"{taken} ({_places(problems.concrete)}), as by .item(), float(), or an if, while or assert, "
            "so that one course of the program would be frozen; use torch.where (for a loop, a fixed number "
            f"of steps), {_PYRO}"
        )
    if problems.shaped:
        reasons.append(
            f"a shape depends on {_values_of(problems.shaped, sites)} ({_places(problems.shaped)}), as by a "
            f"boolean mask; keep the shape and use torch.where or a sum over a mask, {_PYRO}"
        )
    if problems.random:
        reasons.append(
            f"the density draws random numbers ({_places(problems.random)}); make the draw a pyro.sample "
            "site, or compute it before the fit and pass it as data (networks: built outside of the model, "
            f"dropout off by .eval()), {_PYRO}"
        )
    if problems.foreign:
        reasons.append(
            f"JAX has no counterpart of {_kinds(problems.foreign)}; use dense tensors of float64 or float32, "
            f"{_PYRO}"
        )
    if problems.missing:
        reasons.append(
            f"no rule for {_operators(problems.missing)}; teach them with lvm.register_rule(op)(function), "
            f"{_PYRO}"
        )
    return TranslationError(f"{model} cannot be translated to JAX: " + "; moreover ".join(reasons) + ".")


def _values_of(nodes: Iterable[fx.Node], sites: tuple[str, ...]) -> str:
    """``the value of latent site 'm'``: the latents that nodes were computed from."""
    names: list[str] = []
    for node in nodes:
        inputs = [n for n in node.graph.nodes if n.op == "placeholder"]
        above = _ancestors(node)
        names += [site for site, n in zip(sites, inputs, strict=False) if n in above and site not in names]
    if not names:
        return "the value of a param"
    listed = ", ".join(map(repr, names[:_MOST_PLACES])) + (", ..." if len(names) > _MOST_PLACES else "")
    return f"the value of latent site{'s' if len(names) > 1 else ''} {listed}"


def _ancestors(node: fx.Node) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            stack.extend(current.all_input_nodes)
    return seen


def _places(nodes: Iterable[fx.Node]) -> str:
    found = list(dict.fromkeys(place(n) for n in nodes))
    more = f" and {len(found) - _MOST_PLACES} more" if len(found) > _MOST_PLACES else ""
    return ", ".join(found[:_MOST_PLACES]) + more


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


def _kinds(nodes: Iterable[fx.Node]) -> str:
    """``torch.bfloat16 (model.py:12)`` and the like."""
    found: dict[str, str] = {}
    for node in nodes:
        found.setdefault(_kind(example(node)), place(node))
    return ", ".join(f"{kind} ({where})" for kind, where in found.items())


def _kind(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return next(_kind(v) for v in value if is_foreign(v))
    return str(value.dtype if value.layout == torch.strided else value.layout)


# ---- what the user's code raised -----------------------------------------------------------------


def no_bijection(model: str, site: str, support: Any) -> TranslationError:
    """A latent site's support has no unconstrained coordinates."""
    return TranslationError(
        f"{model}: site {site!r} has support {support}, onto which Pyro has no bijection, so that "
        "neither gradients nor Pyro's own samplers can move it; write it as a function of sites that have "
        "one (a covariance by dist.LKJCholesky and scales, a direction by a normalised normal vector, a "
        "mixture by a discrete site), or use poutine.reparam."
    )


def failed_while_recorded(model: str, error: Exception) -> TranslationError:
    """The user's code (or a library's) raised while it was recorded, though it runs on plain tensors."""
    return TranslationError(
        f"{model} cannot be translated to JAX: it runs on plain tensors, but failed while it was recorded"
        f"{_raised(error)}; keep to torch operators on latent values, {_PYRO}."
    )


def failed_on_pyro(model: str, error: Exception) -> TranslationError:
    """The user's code raised when Pyro ran or differentiated it at a point of the check."""
    return TranslationError(
        f"{model} cannot be checked against Pyro, for Pyro's own log density or its gradient fails"
        f"{_raised(error)}; keep to torch operators on latent values."
    )


def _raised(error: Exception) -> str:
    where = _place_of(error)
    text = str(error).split("\n")[0].strip().rstrip(".") or type(error).__name__
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return f"{f' ({where})' if where else ''}: {text}{_hint(str(error))}"


def _hint(text: str) -> str:
    lower = text.lower()
    return next((f" ({hint})" for words, hint in _HINTS.items() if any(w in lower for w in words)), "")


def _place_of(error: Exception) -> str:
    """``site 'x', model.py:12`` from the traceback: the user's innermost line, and the site there."""
    line = site = ""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if is_users(frame.f_code.co_filename):
            line, site = f"{Path(frame.f_code.co_filename).name}:{trace.tb_lineno}", ""
        site = _site_at(frame) or site
        trace = trace.tb_next
    return ", ".join(part for part in (f"site {site!r}" if site else "", line) if part)


def _site_at(frame: FrameType) -> str:
    """The name of the site that a frame of Pyro's statements, or of our scoring, is busy with."""
    file, function = Path(frame.f_code.co_filename), frame.f_code.co_name
    statement = file.name == "primitives.py" and function in ("sample", "factor", "deterministic")
    scoring = file.name == "_program.py" and function in ("_score", "_pyro_sample")
    name = frame.f_locals.get("name") if statement or scoring else None
    return name if isinstance(name, str) else ""
