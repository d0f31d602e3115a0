"""A fuzz of runs: random models, data and settings, each of which ends in a result or in our own words."""

from __future__ import annotations

import contextlib
import linecache
import signal
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_data import ODD, forms_of
from fuzz_jax import COMPILED, FREE, PROGRAMS
from fuzz_models import SOURCES, Source
from fuzz_settings import BAD_CALLS, BAD_SETTINGS, ENGINES, GOOD_SETTINGS, ODD_SETTINGS

import ppl_lvm as lvm

OURS = Path(lvm.__file__).parent
LIMIT = 60  # seconds of CPU time of one run; the slowest compiles take 20
_WALL = 10  # times as many seconds by the clock, for runs that wait for something; a busy machine is slow


@dataclass(frozen=True)
class Case:
    """One combination; ``valid`` when model, form of the data and settings are all in order."""

    number: int
    source: Source
    engine: str
    settings: dict[str, Any]
    change: str
    argument: str | None
    call: dict[str, Any] = field(default_factory=dict)
    valid: bool = True

    def __repr__(self) -> str:
        return (
            f"#{self.number} {self.source.name} {self.engine}({self.settings}) {self.argument}: "
            f"{self.change} {self.call or ''}"
        )

    def data(self) -> dict[str, Any]:
        rng = np.random.default_rng(self.number)
        found = self.source.data(rng)
        if self.argument is not None:
            change = (forms_of(self.source) | ODD)[self.change]
            found[self.argument] = change(np.asarray(found[self.argument]))
        return found


ON_PYRO = sorted(name.removesuffix("-pyro") for name in ENGINES if name.endswith("-pyro"))
_BY_NAME = {source.name: source for source in SOURCES}
_ON_JAX = 0.27  # of the combinations


def draw(number: int) -> Case:
    """The combination of a number."""
    rng = np.random.default_rng((7, number))
    pick = lambda values: values[int(rng.integers(len(values)))]  # noqa: E731
    on_jax = rng.random() < _ON_JAX
    if on_jax:
        model, name, settings = pick(PROGRAMS)
        source, valid = _BY_NAME[model], True
    else:
        source = pick(SOURCES)
        takes = sorted(source.engines)
        name = pick(takes if takes and rng.random() < 0.95 else ON_PYRO)
        fit_for = [s for s in GOOD_SETTINGS[name] if not (source.by_epochs and "average" in s)]
        settings, valid = pick(fit_for), name in source.engines
    kind = rng.choice(["plain", "form", "odd data", "odd setting", "bad setting", "bad call"],
                      p=[0.1, 0.4, 0.25, 0.1, 0.1, 0.05])  # fmt: skip
    change, argument, call = "as it is", None, {}
    names = sorted(source.data(np.random.default_rng(0)))
    if kind in ("form", "odd data") and names:
        argument = pick(names)
        changes = forms_of(source) if kind == "form" else ODD
        change = pick(sorted(changes.keys() - COMPILED if on_jax else changes))
        valid = valid and kind == "form"
    elif kind == "odd setting" and on_jax:
        settings = settings | pick(FREE.get(name, [{}]))
    elif kind == "odd setting" and name in ODD_SETTINGS:
        settings, valid = settings | pick(ODD_SETTINGS[name]), False
    elif kind == "bad setting":
        settings, valid = settings | pick(BAD_SETTINGS[name]), False
    elif kind == "bad call":
        call, valid = pick(BAD_CALLS), False
    engine = f"{name}-{'numpyro' if on_jax else 'pyro'}"
    return Case(number, source, engine, settings, change, argument, call, valid)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: "result", "refused" (our words), or "fault", with what was said."""

    case: Case
    kind: str
    said: str = ""


class Hang(BaseException):
    """Raised by a timer; no ``except Exception`` stops it."""


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        del number, frame
        raise Hang(f"no end after {seconds} s")

    timers = (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, _WALL * seconds),
    )
    before = [signal.signal(which, ring) for _, which, _ in timers]
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (timer, which, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(which, handler)


def outcome(case: Case, limit: int = LIMIT) -> Outcome:
    """Run a combination; a fault is another exception, no end, a figure that is not a number, or a library's
    warning beside a result."""
    try:
        with at_most(limit), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")  # also those that Python has shown once in this process
            engine = ENGINES[case.engine](**case.settings)
            fit = lvm.fit(case.source.make(), case.data(), engine, **{"seed": case.number, **case.call})
    except (Exception, Hang) as error:
        kind = "refused" if ours(error) else "fault"
        return Outcome(
            case, kind, f"{type(error).__name__}: {error}" + ("" if kind == "refused" else where(error))
        )
    bad = not_numbers(fit) or shown(warned)
    return Outcome(case, "fault" if bad else "result", bad)


def shown(warned: list[warnings.WarningMessage]) -> str:
    """The warnings that Python shows to users, which leaves out those for developers; "" for none."""
    hidden = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
    seen = [w for w in warned if not issubclass(w.category, hidden)]
    return "; ".join(f"{Path(w.filename).name}:{w.lineno} warned: {w.message}" for w in seen[:3])


def ours(error: BaseException) -> bool:
    """Whether an error is raised by a ``raise`` statement of the package, with words of its own."""
    if not isinstance(error, (ValueError, TypeError)) or not str(error).strip():
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    if "__init__() got an unexpected keyword" in str(error):  # a typo in a setting: Python's own words
        return True
    line = linecache.getline(last.filename, last.lineno or 0)
    return OURS in Path(last.filename).parents and line.strip().startswith("raise")


def where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " | " + " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-6:]))


def not_numbers(fit: Any) -> str:
    """Names of the figures of a fit that are NaN, or infinite where they must not be; "" for none."""
    draws = {} if fit.draws is None else {str(k): v.values for k, v in fit.draws.data_vars.items()}
    figures = {
        **{f"draws of {k}": v for k, v in draws.items()},
        **{f"params {k}": v for k, v in fit.params.items()},
    }
    if fit.evidence is not None:
        figures |= {"evidence": fit.evidence.nats}
    if fit.log_likelihood is not None:
        figures |= {"log_likelihood": fit.log_likelihood}
    bad = [k for k, v in figures.items() if not np.isfinite(np.asarray(v, dtype=float)).all()]
    bad += [k for k, v in fit.status.details.items() if np.isnan(v)]
    if fit.evidence is not None and np.isnan(fit.evidence.std_error):
        bad.append("std_error")
    return f"not finite: {bad}" if bad else ""
