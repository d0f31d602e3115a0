"""What several test files share: small data, cases of every model and engine, comparisons with errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax  # at collection: importing it draws from NumPy's generator, which conftest.py would report
import numpy as np
import pytest

from ppl_lvm import (
    AIS,
    EM,
    MAP,
    NUTS,
    SMC,
    SVI,
    ChEES,
    ImportanceSampling,
    Laplace,
    Pathfinder,
    SpotCheck,
    emissions,
    engines,
    models,
)
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


# ---- what is fast and what is slow ---------------------------------------------------------------


def covering(values: Iterable[Any], slow: Sequence[Any], *, key: Callable[[Any], Any] = lambda v: v) -> Any:
    """Values for ``parametrize``, in order, those in ``slow`` marked so: `make test-slow` tries them all.

    The rule for what is crossed: fast are each engine, model, backend and kind at least once, and each
    combination that takes a path of its own through the code. The rest only multiplies these.
    """
    values = list(values)
    unknown = [name for name in slow if name not in [key(v) for v in values]]
    assert not unknown, f"slow: none of the values is {unknown}"
    marks = {True: (pytest.mark.slow,), False: ()}
    return [pytest.param(*_row(v), marks=marks[key(v) in slow]) for v in values]


def _row(value: Any) -> tuple[Any, ...]:
    """The arguments of one case: a tuple is several."""
    return value if type(value) is tuple else (value,)


# ---- data ----------------------------------------------------------------------------------------


def clusters(n: int = 24, d: int = 2, *, gap: float = 3.0, seed: int = 0) -> np.ndarray:
    """Two clusters of unequal size and spread, (n, d), shuffled; ``gap`` is between their means, in units."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3 == 0)
    scale = np.where(labels, 0.5, 0.8)[:, None]
    return np.where(labels, gap / 2, -gap / 2)[:, None] + scale * rng.standard_normal((n, d))


# Of a comparison without a reference, where a test asks for its form and not for its findings: the smallest
# check whose chains count. The default's 16 chains take 20 s of sampling a fit.
BRIEF_CHECK = SpotCheck(num_chains=2, num_warmup=50, num_samples=60, most_samples=60)

SCHOOL_EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SCHOOL_ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
SCHOOLS = {"y": SCHOOL_EFFECTS, "sigma": SCHOOL_ERRORS}  # Rubin (1981); effects and their errors, points

# ---- models --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelCase:
    """One setting of a model with data.

    ``separated`` gives values whose components differ clearly, and ``moved`` the site by which they do;
    ``by_datum`` says whether the programs' density per datum is that of the closed forms, ``joint`` that
    local latents are sites of the programs, which the closed forms integrate out; ``needs_spread`` that a
    constant column is refused; ``allows`` names the faults of ``BAD_DATA`` (test_model_contract) that this
    model takes as data.
    """

    name: str
    make: Callable[[], Any]
    data: Any
    separated: Mapping[str, np.ndarray] | None = None
    moved: str = "loc"
    by_datum: bool = True
    joint: bool = False
    needs_spread: bool = True
    allows: frozenset[str] = frozenset()

    @property
    def matrix(self) -> np.ndarray:
        """The data as one matrix (n, d): sequences one after another."""
        return np.concatenate(self.data) if isinstance(self.data, list) else self.data

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


def _poisson_case(k: int, d: int, *, missing: bool = False, **prior: Any) -> ModelCase:
    name = "-".join(["poisson", f"k{k}", f"d{d}", *(["missing"] if missing else []), *prior])
    x = np.random.default_rng(k + 10 * d).poisson(
        np.where(np.arange(20) % 3 == 0, 9.0, 2.0)[:, None], (20, d)
    )
    x = x.astype(float)
    if missing:
        x[[3, 7], [0, d - 1]] = np.nan
    values = {
        "weights": np.arange(1.0, k + 1) / np.arange(1.0, k + 1).sum(),
        "rate": 4.0 ** np.arange(k)[:, None] + np.arange(d),
    }
    make = lambda: models.Mixture(k, emissions.Poisson(), **prior)  # noqa: E731
    return ModelCase(name, make, x, values, moved="rate", allows=_MISSING, needs_spread=False)


def _emission_case(emission: Any, x: np.ndarray) -> ModelCase:
    """Without separated values: these are checked on the Poisson cases."""
    name = "-".join(["mixture", type(emission).__name__, getattr(emission, "covariance", "")]).rstrip("-")
    real = isinstance(emission, emissions.Gaussian | emissions.StudentT)
    return ModelCase(name, lambda: models.Mixture(2, emission), x, allows=_MISSING, needs_spread=real)


def _factor_case(kind: str, q: int, d: int, *, missing: bool = False, **settings: Any) -> ModelCase:
    name = "-".join([kind, f"q{q}", f"d{d}", *(["missing"] if missing else []), *settings])
    rng = np.random.default_rng(q + 10 * d)
    x = rng.standard_normal((20, q)) @ rng.standard_normal((q, d)) + 0.5 * rng.standard_normal((20, d))
    if missing:
        x[[3, 3, 7], [0, 1, d - 1]] = np.nan
    explicit = settings.get("collapsed") is False
    # given z, programs have a density by row; what the closed forms integrate out is another one
    make = lambda: getattr(models, kind)(q, **settings)  # noqa: E731
    return ModelCase(
        name, make, x, by_datum=False, joint=explicit, allows=_MISSING, needs_spread=kind != "PPCA"
    )


def _hmm_case(k: int, *, emission: Any = None, missing: bool = False, **settings: Any) -> ModelCase:
    emission = emissions.Poisson() if emission is None else emission
    name = "-".join(
        [
            "hmm",
            type(emission).__name__,
            f"k{k}",
            *(["missing"] if missing else []),
            *map(str, settings.values()),
        ]
    )
    rng = np.random.default_rng(k)
    x = [
        rng.poisson(np.where(np.arange(t) % 8 < 4, 9.0, 2.0)[:, None], (t, 2)).astype(float)
        for t in (9, 5, 7)
    ]
    if missing:
        x[0][2, 1] = x[2][4] = np.nan
    rows = np.arange(1.0, k + 1) / np.arange(1.0, k + 1).sum()
    values = {"transition": 0.5 * np.eye(k) + 0.5 * rows, "rate": 4.0 ** np.arange(k)[:, None] + np.arange(2)}
    if settings.get("initial", "free") == "free":
        values["initial"] = rows
    separated = values if isinstance(emission, emissions.Poisson) else None
    make = lambda: models.HMM(k, emission, **settings)  # noqa: E731
    real = not isinstance(emission, emissions.Poisson)
    return ModelCase(name, make, x, separated, moved="rate", allows=_MISSING | _SEQUENCES, needs_spread=real)


_MASK = ((True, False), (True, False), (False, True), (True, True))
_MISSING = frozenset({"nan", "masked", "frame with nan"})
_SEQUENCES = frozenset({"one-dimensional", "three-dimensional", "ragged"})
_COUNTS = np.random.default_rng(5).poisson(3.0, (16, 2)).astype(float)
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
    "Mixture": [
        _poisson_case(3, 2),
        _poisson_case(2, 3, missing=True),
        _poisson_case(1, 1),
        _poisson_case(2, 2, concentration=(1.0, 3.0)),
        *(_emission_case(emissions.Gaussian(c), clusters(16, 2)) for c in ("full", "diag")),
        _emission_case(emissions.Bernoulli(), (_COUNTS > 2).astype(float)),
        _emission_case(emissions.Categorical(num_categories=4), np.minimum(_COUNTS, 3)),
        _emission_case(emissions.NegativeBinomial(), _COUNTS),
        _emission_case(emissions.StudentT(), clusters(16, 2)),
    ],
    "PPCA": [
        _factor_case("PPCA", 2, 4),
        _factor_case("PPCA", 1, 3, missing=True),
        _factor_case("PPCA", 2, 4, ard=True),
        _factor_case("PPCA", 1, 3, collapsed=False),
    ],
    "FactorAnalysis": [
        _factor_case("FactorAnalysis", 2, 5),
        _factor_case("FactorAnalysis", 1, 3, missing=True),
        _factor_case("FactorAnalysis", 2, 4, ard=True),
        _factor_case("FactorAnalysis", 2, 4, mask=_MASK),
        _factor_case("FactorAnalysis", 2, 4, mask=_MASK, correlated=True, missing=True),
        _factor_case("FactorAnalysis", 1, 3, collapsed=False, missing=True),
    ],
    "HMM": [
        _hmm_case(3),
        _hmm_case(2, missing=True, initial="uniform"),
        _hmm_case(2, initial="stationary"),
        _hmm_case(2, emission=emissions.Gaussian("diag"), missing=True),
        _hmm_case(1),
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
    "ChEES": ChEES(num_chains=16, num_warmup=40, num_samples=8, num_starts=4),
    "SMC": SMC(num_particles=40, num_runs=4, num_moves=1),
    "AIS": AIS(num_particles=100, num_temperatures=100),
    "MAP": MAP(num_init=2, max_iter=300),
    "Laplace-pyro": Laplace(backend="pyro", num_init=1, num_draws=60),
    "Pathfinder": Pathfinder(num_paths=4, num_samples=400, max_iter=60),
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
