"""What each torch operator is in jax.numpy: one table, filled by one small file per kind of operator."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

Rule = Callable[..., Any]
_RULES: dict[str, Rule] = {}
_FILES: dict[str, str] = {}
_USERS: dict[str, Rule] = {}
# Compiled functions are kept under the identity of the rules in them, so that may not be used again.
_EVER_REGISTERED: list[Rule] = []


def name_of(op: Any) -> str:
    """``namespace.op.overload`` of a torch operator, or the string itself."""
    if isinstance(op, str):
        return op.replace("::", ".")
    schema = getattr(op, "_schema", None)
    if schema is not None:
        return f"{schema.name.replace('::', '.')}.{schema.overload_name or 'default'}"
    qualified = getattr(op, "_qualified_op_name", None)  # a packet: all overloads
    if qualified is not None:
        return str(qualified).replace("::", ".")
    return getattr(op, "__name__", repr(op))


def rule(*names: str) -> Callable[[Any], Any]:
    """Register a rule of our own for operators by name, e.g. ``aten.add`` or ``aten.add.Tensor``."""
    file = sys._getframe(1).f_globals["__name__"].rsplit(".", 1)[-1]

    def register(function: Any) -> Any:
        for name in names:
            _RULES[name], _FILES[name] = function, file
        return function

    return register


def register_rule(op: Any) -> Callable[[Rule], Rule]:
    """Teach the translation an operator: ``lvm.register_rule(torch.ops.mylib.op)(function)``.

    Parameters
    ----------
    op
        A torch operator (``torch.ops.<library>.<op>`` for all its overloads, or one overload), or its name
        such as ``"mylib.op"``.

    Returns
    -------
    A decorator. The function takes the operator's arguments with ``jax`` arrays for tensors and returns what
    the operator returns; it must be differentiable by JAX. It takes precedence over a rule of our own, that
    of an overload over that of all overloads, and every translation is checked against Pyro's value and
    gradient as always.

    Raises
    ------
    TypeError
        If ``op`` is no operator or name, or the rule is not callable.
    """
    name = name_of(op)
    if not isinstance(op, str) and not hasattr(op, "_schema") and not hasattr(op, "_qualified_op_name"):
        raise TypeError(
            f"op: expected a torch operator such as torch.ops.mylib.op or its name, got {op!r}; a Python "
            "function becomes an operator by torch.library.custom_op."
        )

    def register(function: Rule) -> Rule:
        if not callable(function):
            raise TypeError(f"rule for {name}: expected a function of jax arrays, got {function!r}.")
        _USERS[name] = function
        _EVER_REGISTERED.append(function)
        return function

    return register


def find_rule(op: Any) -> Rule | None:
    """The rule for an operator: a user's first, its overload's before the whole packet's."""
    _load()
    return user_rule(op) or _look_up(op, _RULES)


def user_rule(op: Any) -> Rule | None:
    """The rule that a user has registered for an operator, if any."""
    return _look_up(op, _USERS)


def _look_up(op: Any, table: dict[str, Rule]) -> Rule | None:
    full = name_of(op)
    short = full.rsplit(".", 1)[0] if full.count(".") > 1 else full
    return table.get(full) or table.get(short)


def user_rules() -> dict[str, Rule]:
    return dict(_USERS)


def supported() -> dict[str, list[str]]:
    """Operators by the file that holds their rule; those "decomposed" are rewritten by torch."""
    from ppl_lvm.backends.translate.rules.decomposed import names

    _load()
    found: dict[str, list[str]] = {}
    for name in sorted(_RULES):
        found.setdefault(_FILES[name], []).append(name)
    return {**found, "decomposed": list(names())}


def _load() -> None:
    from ppl_lvm.backends.translate.rules import (  # noqa: F401  (each fills the table)
        creation,
        elementwise,
        factorisations,
        fourier,
        indexing,
        linalg,
        networks,
        ordering,
        pooling,
        reduction,
        scatter,
        shape,
        special,
    )
