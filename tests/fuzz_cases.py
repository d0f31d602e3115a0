"""A fuzz of runs: random models, data and settings, each of which ends in a result or in our own words."""

from __future__ import annotations

import contextlib
import linecache
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_data import ODD, forms_of
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


def draw(number: int) -> Case:
    """The combination of a number."""
    rng = np.random.default_rng((7, number))
    pick = lambda values: values[int(rng.integers(len(values)))]  # noqa: E731
    source = pick(SOURCES)
    jax = sorted(source.jax)
    if jax and rng.random() < 0.3:
        engine = f"{pick(jax)}-numpyro"
    else:
        takes = sorted(source.engines)
        engine = f"{pick(takes if takes and rng.random() < 0.95 else ON_PYRO)}-pyro"
    name, _, backend = engine.partition("-")
    valid = name in source.engines | source.jax
    settings = pick([s for s in GOOD_SETTINGS[engine] if not (source.by_epochs and "average" in s)])
    kind = rng.choice(["plain", "form", "odd data", "odd setting", "bad setting", "bad call"],
                      p=[0.1, 0.4, 0.25, 0.1, 0.1, 0.05])  # fmt: skip
    change, argument, call = "as it is", None, {}
    names = sorted(source.data(np.random.default_rng(0)))
    if kind in ("form", "odd data") and names:
        argument = pick(names)
        change = pick(sorted(forms_of(source) if kind == "form" else ODD))
        if backend == "numpyro" and change in COMPILED:
            change = "strided" if kind == "form" else "1e8"
        valid = valid and kind == "form"
    elif kind == "odd setting" and name in ODD_SETTINGS and backend == "pyro":
        settings, valid = settings | pick(ODD_SETTINGS[name]), False
    elif kind == "bad setting":
        settings, valid = settings | pick(BAD_SETTINGS[name]), False
    elif kind == "bad call":
        call, valid = pick(BAD_CALLS), False
    return Case(number, source, engine, settings, change, argument, call, valid)


# Other shapes and types of data, for which JAX's programs would be compiled anew.
COMPILED = {"one row", "two rows", "fewer rows than components", "one column", "flat", "one dimension more",
            "duplicates", "integers", "bool", "int64", "uint8", "pandas Int64", "tensor of bool"}  # fmt: skip


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
    """Run a combination; a fault is another exception, no end, or a figure that is not a number."""
    try:
        with at_most(limit):
            engine = ENGINES[case.engine](**case.settings)
            fit = lvm.fit(case.source.make(), case.data(), engine, **{"seed": case.number, **case.call})
    except (Exception, Hang) as error:
        kind = "refused" if ours(error) else "fault"
        return Outcome(
            case, kind, f"{type(error).__name__}: {error}" + ("" if kind == "refused" else where(error))
        )
    bad = not_numbers(fit)
    return Outcome(case, "fault" if bad else "result", bad)


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
