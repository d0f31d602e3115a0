"""Reference posteriors from plain Pyro functions: translated, sampled by NUTS on JAX, and held to the rule.

Each case first agrees with the log density that is published for it at one point, so that what is sampled is
the posterior that was meant. The rule is in tests/posteriordb/_rule.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ppl_lvm as lvm
from ppl_lvm.core import Outcome
from tests.posteriordb import arma, eight_schools, gp_pois_regr, hmm_example, low_dim_gauss_mix
from tests.posteriordb._rule import Case, check

CASES = {
    "arma": arma.CASE,
    "eight_schools": eight_schools.CASE,
    "gp_pois_regr": gp_pois_regr.CASE,
    "hmm_example": hmm_example.CASE,
    "low_dim_gauss_mix": low_dim_gauss_mix.CASE,
}
# Kept draws a chain, so that the slowest quantity's effective size is well over 4,000; step-size targets.
SETTINGS: dict[str, dict[str, Any]] = {
    "arma": {"num_samples": 2000},
    "eight_schools": {"num_samples": 3000, "target_accept": 0.95},
    "gp_pois_regr": {"num_samples": 3500, "target_accept": 0.95},
    "hmm_example": {"num_samples": 2500},
    "low_dim_gauss_mix": {"num_samples": 2000},
}
SLOW = ("arma", "gp_pois_regr", "hmm_example")


def by_speed(names: Any) -> list[Any]:
    return [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in names]


def unconstrained(case: Case, data: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """The case's point by Pyro's own transforms, and the log-Jacobian there."""
    import torch
    from pyro import poutine
    from torch.distributions import biject_to

    from ppl_lvm.backends.session import torch_session

    with torch_session(0, "float64"):
        tensors = {k: torch.from_numpy(v) for k, v in data.items()}
        values = {k: torch.as_tensor(np.asarray(v, dtype=float)) for k, v in case.point.items()}
        trace = poutine.trace(poutine.condition(case.function, data=values)).get_trace(**tensors)
        point, jacobian = {}, 0.0
        for name, value in values.items():
            transform = biject_to(trace.nodes[name]["fn"].support)
            free = transform.inv(value)
            point[name] = free.numpy()
            jacobian += float(transform.log_abs_det_jacobian(free, value).sum())
    return point, jacobian


def test_every_reference_posterior_has_a_case(shared_data: Path) -> None:
    folders = {path.name for path in (shared_data / "posteriordb").iterdir() if path.is_dir()}
    assert folders == {case.name for case in CASES.values()}


@pytest.mark.parametrize("name", CASES)
def test_the_translation_has_the_published_log_density(name: str, shared_data: Path) -> None:
    """Values published to 10 decimals (8 for gp_pois_regr), of programs that share nothing with ours."""
    case = CASES[name]
    data = case.data(shared_data)
    point, jacobian = unconstrained(case, data)
    translation = lvm.translate(case.function, data)
    np.testing.assert_allclose(translation.log_density(point) - jacobian, case.log_joint, rtol=1e-10)


@pytest.mark.parametrize("name", by_speed(CASES))
def test_nuts_through_the_translation_meets_the_rule(name: str, shared_data: Path) -> None:
    case = CASES[name]
    engine = lvm.NUTS(backend="numpyro", num_warmup=1000, num_chains=4, **SETTINGS[name])
    fit = lvm.fit(case.function, case.data(shared_data), engine, seed=0)
    assert fit.backend == "numpyro"
    assert fit.status.outcome is not Outcome.FAILED
    assert fit.meta["translation"]["at_draws"]["passed"]
    check(case.quantities(fit.posterior), case.reference(shared_data), 4000)


@pytest.mark.slow
def test_a_loop_over_hidden_states_meets_the_rule(
    shared_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Over 10,000 operators: that is told beforehand, with the alternative, and then it runs all the same."""
    case = hmm_example.CASE_BY_STATES
    engine = lvm.NUTS(backend="numpyro", num_warmup=1000, num_samples=2500, num_chains=4)
    fit = lvm.fit(case.function, case.data(shared_data), engine, seed=0)
    assert any("pyro.markov" in r.message and "DiscreteHMM" in r.message for r in caplog.records)
    assert fit.meta["translation"]["num_ops"] > 5000
    check(case.quantities(fit.posterior), case.reference(shared_data), 4000)
