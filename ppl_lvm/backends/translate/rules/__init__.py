"""What each torch operator is in jax.numpy: one table, filled by one small file per kind of operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rule = Callable[..., Any]
_RULES: dict[str, Rule] = {}
_USERS: dict[str, Rule] = {}


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


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule of our own for operators by name, e.g. ``aten.add`` or ``aten.add.Tensor``."""

    def register(function: Rule) -> Rule:
        for name in names:
            _RULES[name] = function
        return function

    return register


def register_rule(op: Any) -> Callable[[Rule], Rule]:
    """Teach the translation an operator: ``lvm.register_rule(torch.ops.mylib.op)(function)``.

    Parameters
    ----------
    op
        A torch operator (``torch.ops.<library>.<op>`` for all its overloads, or one overload), or its name such
        as ``"mylib.op"``.

    Returns
    -------
    A decorator. The function takes the operator's arguments with ``jax`` arrays for tensors and returns what the
    operator returns; it must be differentiable by JAX. It takes precedence over a rule of our own, and every
    translation is checked against Pyro's value and gradient as always.

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
        return function

    return register


def find_rule(op: Any) -> Rule | None:
    """The rule for an operator: a user's first, its overload's before the whole packet's."""
    _load()
    full = name_of(op)
    short = full.rsplit(".", 1)[0] if full.count(".") > 1 else full
    for table in (_USERS, _RULES):
        for name in (full, short):
            if name in table:
                return table[name]
    return None


def user_rules() -> dict[str, Rule]:
    return dict(_USERS)


def supported() -> dict[str, list[str]]:
    """Operators by the file that holds their rule, for the documentation."""
    _load()
    found: dict[str, list[str]] = {}
    for name, function in sorted(_RULES.items()):
        found.setdefault(function.__module__.rsplit(".", 1)[-1], []).append(name)
    return found


def _load() -> None:
    from ppl_lvm.backends.translate.rules import (  # noqa: F401  (each fills the table)
        creation,
        elementwise,
        indexing,
        linalg,
        networks,
        reduction,
        shape,
        special,
    )
