"""What several test files share: small data, cases of every model and engine, comparisons with errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax  # at collection: importing it draws from NumPy's generator, which conftest.py would report
import numpy as np

from ppl_lvm import EM, NUTS, SVI, ImportanceSampling, engines, models
from ppl_lvm.core import Engine, Problem

# ---- figures with errors -------------------------------------------------------------------------


def assert_within(found: Any, expected: Any, std_error: Any, num_errors: float = 4.0) -> None:
    """``found`` lies within so many standard errors of ``expected``, entry by entry; 1e-9 for rounding.

    Four errors: a test of 20 such figures fails about once in 800 seeds, and the seeds are fixed.
    """
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    room = num_errors * np.asarray(std_error, dtype=float) + 1e-9 * (1.0 + np.abs(expected))
    if not (np.abs(found - expected) <= room).all():
        raise AssertionError(f"{found} is not within {num_errors} errors ({std_error}) of {expected}")


def log_mean_exp(terms: np.ndarray, axis: int = 0) -> np.ndarray:
    top = np.max(terms, axis=axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.mean(np.exp(terms - top), axis=axis))


def attempt(run: Callable[[], Any]) -> tuple[Any, str]:
    """What ``run`` gives and "", or None and the words of its refusal: where either is a right answer."""
    try:
        return run(), ""
    except (ValueError, TypeError) as error:
        return None, str(error)


# ---- data ----------------------------------------------------------------------------------------


def clusters(n: int = 24, d: int = 2, *, gap: float = 3.0, seed: int = 0) -> np.ndarray:
    """Two clusters of unequal size and spread, (n, d), shuffled; ``gap`` is between their means, in units."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3 == 0)
    scale = np.where(labels, 0.5, 0.8)[:, None]
    return np.where(labels, gap / 2, -gap / 2)[:, None] + scale * rng.standard_normal((n, d))


SCHOOL_EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SCHOOL_ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
SCHOOLS = {"y": SCHOOL_EFFECTS, "sigma": SCHOOL_ERRORS}  # Rubin (1981); effects and their errors, points

# ---- models --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelCase:
    """One setting of a model with data.

    ``separated`` gives values whose components differ clearly, and ``moved`` the site by which they do;
    ``by_datum`` says whether the programs have a density per datum, ``allows`` names the faults of
    ``BAD_DATA`` (test_model_contract) that this model takes as data.
    """

    name: str
    make: Callable[[], Any]
    data: Any
    separated: Mapping[str, np.ndarray] | None = None
    moved: str = "loc"
    by_datum: bool = True
    allows: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return self.name


def _mixture_case(covariance: str, k: int, d: int, **prior: Any) -> ModelCase:
    name = "-".join(["mixture", covariance, f"k{k}", f"d{d}", *prior])
    scale = {"full": (k, d), "diag": (k, d), "tied": (d,), "spherical": (k,)}[covariance]
    values = {
        "weights": np.arange(1.0, k + 1) / np.arange(1.0, k + 1).sum(),
        "loc": 10.0 * np.arange(k)[:, None] + np.arange(d),
        "scale": np.linspace(0.5, 0.9, int(np.prod(scale))).reshape(scale),
    }
    if covariance in ("full", "tied") and d > 1:
        tril = np.linalg.cholesky(0.7 * np.eye(d) + 0.3)
        values["corr_tril"] = np.broadcast_to(tril, (k, d, d) if covariance == "full" else (d, d)).copy()
    make = lambda: models.GaussianMixture(num_components=k, covariance=covariance, **prior)  # noqa: E731
    return ModelCase(name, make, clusters(20, d, seed=k + 10 * d), values)


_COVARIANCES = ("full", "tied", "diag", "spherical")
# A new model of the zoo gets a line here; test_model_contract fails until it has one.
MODEL_CASES: dict[str, list[ModelCase]] = {
    "GaussianMixture": [
        *(_mixture_case(covariance, 3, 2) for covariance in _COVARIANCES),
        *(_mixture_case(covariance, 2, 1) for covariance in ("full", "tied", "spherical")),
        *(_mixture_case(covariance, 1, 2) for covariance in ("full", "spherical")),
        _mixture_case("full", 2, 3, corr_concentration=0.7),
        _mixture_case("diag", 2, 2, concentration=(1.0, 3.0)),
    ],
}


def all_model_cases() -> list[ModelCase]:
    return [case for name in models.__all__ for case in MODEL_CASES.get(name, [])]


def spread_points(problem: Problem, num: int, *, seed: int = 0, sd: float = 1.0) -> dict[str, np.ndarray]:
    """Values (num, ...) of the continuous latent sites: normal draws of ``sd`` in unconstrained space."""
    import torch
    from pyro import poutine
    from pyro.distributions.transforms import biject_to

    from ppl_lvm.backends._pyro_trace import to_torch
    from ppl_lvm.backends.session import torch_session

    rng = np.random.default_rng(seed)
    with torch_session(0, "float64"):
        nodes = poutine.trace(problem.model.pyro.model).get_trace(**to_torch(problem.arguments)).nodes
        values = {}
        for name in (site.name for site in problem.latents(discrete=False)):
            transform = biject_to(nodes[name]["fn"].support)
            shape = transform.inverse_shape(nodes[name]["value"].shape)
            values[name] = transform(torch.from_numpy(sd * rng.standard_normal((num, *shape)))).numpy()
    return values


# ---- engines -------------------------------------------------------------------------------------

# The smallest runs that still do everything an engine does: settings by a name for the test's report.
TINY_ENGINES: dict[str, Engine] = {
    "EM": EM(num_init=2, max_iter=50),
    "SVI-pyro": SVI(num_steps=60, num_draws=60, window=20),
    "SVI-numpyro": SVI(backend="numpyro", num_steps=60, num_draws=60, window=20),
    "ImportanceSampling-pyro": ImportanceSampling(num_samples=60, backend="pyro"),
    "ImportanceSampling-numpyro": ImportanceSampling(num_samples=60, backend="numpyro"),
    "NUTS-pyro": NUTS(backend="pyro", num_warmup=6, num_samples=8, num_chains=2, max_tree_depth=3),
    "NUTS-numpyro": NUTS(backend="numpyro", num_warmup=40, num_samples=30, num_chains=2),
}


def engine_classes() -> dict[str, type[Engine]]:
    """Every public engine (objectives are not engines)."""
    found = {name: getattr(engines, name) for name in engines.__all__}
    return {name: value for name, value in found.items() if issubclass(value, Engine)}


# ---- what was compiled ---------------------------------------------------------------------------


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The list of events of JAX handing a program to its compiler, in any thread, while this is open."""
    seen: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def same_arrays(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Equal to the last bit, by name."""
    names: Sequence[str] = sorted(map(str, a))
    return names == sorted(map(str, b)) and all(
        np.array_equal(np.asarray(a[name]), np.asarray(b[name]), equal_nan=True) for name in names
    )
