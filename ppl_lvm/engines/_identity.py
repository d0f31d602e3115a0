"""What must be the same for a run to go on from a checkpoint: settings, model, program, data, seed, start."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ppl_lvm.core import Engine, Problem, Run
from ppl_lvm.engines._checkpoint import digest

_PLAIN = (int, float, complex, str, bytes, bool, type(None))


def identity(engine: Engine, problem: Problem, run: Run, left_out: Iterable[str]) -> dict[str, Any]:
    """The run's settings but ``left_out``, and fingerprints of what they are applied to."""
    skipped = {"checkpoint", "checkpoint_every", "num_draws", "num_devices", "distributed", *left_out}
    own = {f.name: getattr(engine, f.name) for f in dataclasses.fields(engine) if f.name not in skipped}
    for name, value in own.items():
        if name == "proposal" and not isinstance(value, str):
            own[name] = _init_digest(value)
        elif callable(value):  # a guide; its repr is an address
            own[name] = f"{_name(value)} {program_digest(value)}"
    settings = problem.model.to_settings()
    return {
        **own,
        "model": settings or problem.model.describe(),
        "program": "the model's" if settings else _programs(problem),
        "seed": run.seed,
        "dtype": problem.dtype,
        "data": digest(problem.data.values),
        "init": _init_digest(run.init),
    }


def program_digest(function: Callable[..., Any]) -> str:
    """A fingerprint of a program's code and of the plain values that it reads (globals, closures, defaults).

    Functions that it calls count where they are of the same module. The state of a module (its weights) does
    not: only its code.
    """
    found = hashlib.blake2b(digest_size=8)
    _add(found, function, getattr(function, "__module__", None), set())
    return found.hexdigest()


def _programs(problem: Problem) -> str:
    model = problem.model
    programs = [p for p in (model.pyro, model.numpyro) if p is not None]
    functions = [f for p in programs for f in (p.model, p.guide) if f is not None]
    return " ".join(program_digest(f) for f in functions)


def _add(found: Any, value: Any, module: str | None, seen: set[int]) -> None:
    if isinstance(value, _PLAIN):
        found.update(repr(value).encode())
    elif isinstance(value, np.ndarray):
        found.update(digest({"": value}).encode())
    elif isinstance(value, (tuple, list)):
        for part in value:
            _add(found, part, module, seen)
    elif isinstance(value, frozenset):  # in an order that is the same in every process
        found.update(repr(sorted(map(repr, value))).encode())
    elif isinstance(value, types.CodeType):
        found.update(value.co_code + repr(value.co_names).encode())
        _add(found, value.co_consts, module, seen)
    elif isinstance(value, functools.partial):
        _add(found, (value.func, value.args, sorted(value.keywords.items())), module, seen)
    elif isinstance(value, types.FunctionType):
        _add_function(found, value, module, seen)
    elif isinstance(value, types.MethodType):
        _add(found, value.__func__, module, seen)
    else:
        _add_object(found, value, module, seen)


def _add_function(found: Any, function: types.FunctionType, module: str | None, seen: set[int]) -> None:
    if function.__module__ != module or id(function) in seen:
        found.update(function.__qualname__.encode())
        return
    seen.add(id(function))
    code = function.__code__
    _add(found, code, module, seen)
    reads = [function.__globals__.get(name) for name in code.co_names]
    _add(found, [v for v in reads if isinstance(v, (*_PLAIN, np.ndarray, types.FunctionType))], module, seen)
    _add(found, function.__defaults__ or (), module, seen)
    for cell in function.__closure__ or ():
        try:
            _add(found, cell.cell_contents, module, seen)
        except ValueError:  # not filled yet
            continue


def _add_object(found: Any, value: Any, module: str | None, seen: set[int]) -> None:
    """An object counts by its class, and by the code of what runs when it is called."""
    kind = value if isinstance(value, type) else type(value)
    found.update(f"{kind.__module__}.{kind.__qualname__}".encode())
    for name in ("forward", "__call__", "model"):
        method = kind.__dict__.get(name)
        if isinstance(method, types.FunctionType) and kind.__module__ == module:
            _add_function(found, method, module, seen)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _init_digest(init: Any) -> str:
    """A fingerprint of starting values: by name, or a fit's params and draws."""
    values = getattr(init, "params", init)
    if values is None:
        return "none"
    arrays = {k: np.asarray(v) for k, v in dict(values).items()}
    draws = getattr(init, "draws", None)
    if draws is not None:
        arrays |= {f"draws/{k}": v.values for k, v in draws.data_vars.items()}
    return digest(arrays)
