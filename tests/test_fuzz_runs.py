"""A fuzz of runs: random combinations of model, data and settings end in a result or in our own words."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from fuzz_cases import ON_PYRO, Outcome, draw, outcome
from fuzz_jax import RESULTS as RESULTS_ON_JAX
from fuzz_jax import SHARE

NUM = 2000
FEW = 45  # the first of these on Pyro, for the fast test
RESULTS = 0.8  # the least share of valid combinations that end in a result


def judge(outcomes: list[Outcome]) -> None:
    faults = [f"{o.case!r}: {o.said}" for o in outcomes if o.kind == "fault"]
    assert not faults, "\n".join(faults)
    valid = [o for o in outcomes if o.case.valid]
    refused = [f"{o.case!r}: {o.said}" for o in valid if o.kind != "result"]
    assert len(valid) - len(refused) >= RESULTS * len(valid), "\n".join(refused)


def test_a_few_random_runs_end_as_they_should() -> None:
    on_pyro = (case for case in map(draw, range(NUM)) if case.engine.endswith("-pyro"))
    outcomes = [outcome(case) for case in itertools.islice(on_pyro, FEW)]
    assert {"result", "refused"} <= {o.kind for o in outcomes}
    judge(outcomes)


@pytest.mark.slow
def test_random_runs_end_as_they_should() -> None:
    """In the order of their programs, so that what is compiled is still kept when it is wanted again."""
    cases = sorted(map(draw, range(NUM)), key=lambda c: (c.engine, c.source.name, repr(c.settings)))
    on_jax = [case for case in cases if case.engine.endswith("-numpyro")]
    assert len(on_jax) >= SHARE * NUM
    outcomes = [outcome(case) for case in cases]
    judge(outcomes)
    engines = Counter(o.case.engine for o in outcomes if o.kind == "result")
    few = {name: engines[f"{name}-numpyro"] for name in RESULTS_ON_JAX}
    assert all(few[name] >= least for name, least in RESULTS_ON_JAX.items()), few
    assert all(engines[f"{name}-pyro"] >= 50 for name in ON_PYRO), engines
