"""How a model enters the zoo: one decorator, one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A plain Pyro model with small data.

    ``notes`` says what of Pyro it exercises. ``enumerated``: discrete latent sites are summed out.
    ``dependent``: a site's support depends on another site, which Pyro's own potential does not follow.
    ``by_datum``: there is a plate around all observed statements, and no label outside of it is summed out.
    ``baked`` names the arguments whose values decide the course of the program.
    ``params``: values at which its ``pyro.param`` statements start.
    ``quick``: a test of every day; the others take seconds to compile.
    """

    function: Callable[..., Any]
    data: Callable[[], Data]
    notes: str
    enumerated: bool = False
    dependent: bool = False
    by_datum: bool = True
    baked: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = True


ZOO: dict[str, Entry] = {}


def zoo(data: Callable[[], Data], notes: str, **flags: Any) -> Callable[[Callable[..., Any]], Any]:
    """Register a model under the name of its function."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        enter(function.__name__, function, data, notes, **flags)
        return function

    return register


def enter(
    name: str, function: Callable[..., Any], data: Callable[[], Data], notes: str, **flags: Any
) -> None:
    """Register a model under a name of its own (one that a handler made)."""
    if name in ZOO:
        raise ValueError(f"{name} is in the zoo already")
    ZOO[name] = Entry(function, data, notes, **flags)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
