"""What every model of the zoo has to keep: one density in three writings, symmetries, settings, data."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from helpers import MODEL_CASES, ModelCase, all_model_cases, covering, spread_points

import ppl_lvm as lvm
from ppl_lvm import ImportanceSampling, models
from ppl_lvm.core import Problem, Program
from ppl_lvm.fitting import prepare

NUM_POINTS = 20
CASES = all_model_cases()


def agree(a: Any, b: Any) -> None:
    """To 1e-10 relative; the absolute part is for sums of terms that happen to cancel."""
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-10, atol=1e-10)


def test_every_model_has_cases() -> None:
    assert len(models.__all__) >= 1
    assert set(MODEL_CASES) == set(models.__all__) - {"VAE"}  # params and no globals: tests/test_vae.py
    assert all(len(cases) >= 1 for cases in MODEL_CASES.values())
    for name, cases in MODEL_CASES.items():
        assert all(type(case.make()).__name__ == name for case in cases)
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_covariance_type_has_cases() -> None:
    from ppl_lvm.models.gaussian_mixture import COVARIANCES

    made = [case.make() for case in MODEL_CASES["GaussianMixture"]]
    assert {m.covariance for m in made} == set(COVARIANCES)
    assert 1 in {m.num_components for m in made}
    assert 1 in {case.matrix.shape[1] for case in MODEL_CASES["GaussianMixture"]}


class Traced(NamedTuple):
    case: ModelCase
    problem: Problem
    points: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=CASES, ids=repr)
def traced(request: pytest.FixtureRequest) -> Traced:
    case: ModelCase = request.param
    problem = prepare(case.make(), case.data)
    return Traced(case, problem, spread_points(problem, NUM_POINTS))


# ---- one density, three writings -----------------------------------------------------------------


class Terms(NamedTuple):
    """Log densities in constrained space: prior (s,), per datum (s, n), total (s,).

    A program on sufficient statistics has no densities per datum.
    """

    prior: np.ndarray
    per_datum: np.ndarray | None
    total: np.ndarray


class TwinTerms(NamedTuple):
    """The twin's, by the package's Density, and the total by NumPyro's own function."""

    terms: Terms
    total_by_numpyro: np.ndarray


@pytest.fixture(scope="module")
def pyro_terms(traced: Traced) -> Terms:
    from ppl_lvm.backends._pyro_density import log_density
    from ppl_lvm.backends.session import torch_session

    with torch_session(0, "float64"):
        total, rest, per_datum = log_density(traced.problem, traced.points, {})
        prior, _, _ = log_density(traced.problem, traced.points, {}, prior=True)
    if traced.case.by_datum:
        assert rest is not None
        assert per_datum is not None
        agree(rest + per_datum.sum(-1), total)
    return Terms(prior, per_datum, total)


@pytest.fixture(scope="module")
def numpyro_terms(traced: Traced) -> TwinTerms:
    """The package's Density is of unconstrained values, so its log-Jacobians are taken off again."""
    import jax
    from numpyro.infer.util import log_density

    from ppl_lvm.backends._numpyro import density_of, statics_of
    from ppl_lvm.backends.session import jax_session

    twin = traced.problem.model.numpyro
    assert twin is not None
    with jax_session("float64"):
        density, data = density_of(traced.problem)
        statics = dict(statics_of(traced.problem.arguments))

        @jax.jit
        @jax.vmap
        def terms(values: Any) -> Any:
            z = density.unconstrain(values, data, {})
            jacobian = density.log_jacobian(z, data, {})
            _, per_datum = density.log_joint(z, data, {})
            prior = density.log_prior(z, data, {}) - jacobian
            total = density.total(z, data, {}) - jacobian
            direct = log_density(twin.model, (), {**data, **statics}, values)[0]
            return prior, per_datum, total, direct

        prior, per_datum, total, direct = terms(traced.points)
        by_datum = None if per_datum is None else np.asarray(per_datum)
    return TwinTerms(Terms(np.asarray(prior), by_datum, np.asarray(total)), np.asarray(direct))


def test_exact_agrees_with_the_pyro_program(traced: Traced, pyro_terms: Terms) -> None:
    exact = traced.problem.model.exact
    if traced.case.joint:
        pytest.skip("the program has local latents as sites: see the model's own tests")
    prior = exact.log_prior(traced.points, traced.problem.arguments)
    per_datum = exact.log_likelihood(traced.points, traced.problem.arguments)
    assert per_datum.shape == (NUM_POINTS, traced.problem.num_data)
    agree(prior, pyro_terms.prior)
    if traced.case.by_datum:
        agree(per_datum, pyro_terms.per_datum)
    agree(prior + per_datum.sum(-1), pyro_terms.total)


# Compiling takes seconds a case. Emissions: each has its twin in test_mixture.py, factors and HMMs in their
# own files; here one of each kind is left.
ALREADY_TWINNED = (
    "mixture-full-k3-d2",
    "mixture-spherical-k3-d2",
    "mixture-spherical-k2-d1",
    "mixture-full-k1-d2",
    "poisson-k3-d2",
    "poisson-k1-d1",
    "mixture-Gaussian-full",
    "mixture-Gaussian-diag",
    "mixture-Bernoulli",
    "mixture-Categorical",
    "mixture-NegativeBinomial",
    "mixture-StudentT",
    "PPCA-q2-d4",
    "FactorAnalysis-q2-d5",
    "FactorAnalysis-q2-d4-mask",
    "FactorAnalysis-q1-d3-missing",
    "hmm-Poisson-k2-missing-uniform",
    "hmm-Poisson-k1",
)


@pytest.mark.parametrize("traced", covering(CASES, ALREADY_TWINNED, key=repr), indirect=True, ids=repr)
def test_the_numpyro_twin_agrees_with_the_pyro_program(pyro_terms: Terms, numpyro_terms: TwinTerms) -> None:
    agree(numpyro_terms.terms.prior, pyro_terms.prior)
    assert (numpyro_terms.terms.per_datum is None) == (pyro_terms.per_datum is None)
    if pyro_terms.per_datum is not None:
        agree(numpyro_terms.terms.per_datum, pyro_terms.per_datum)
    agree(numpyro_terms.terms.total, pyro_terms.total)
    agree(numpyro_terms.total_by_numpyro, pyro_terms.total)


def test_the_points_are_spread_out(traced: Traced, pyro_terms: Terms) -> None:
    """An agreement at points that hardly differ would show little."""
    assert np.ptp(pyro_terms.total) > 1.0
    assert all(np.isfinite(value).all() for value in traced.points.values())


# ---- sites ---------------------------------------------------------------------------------------


def support_of(constraint: Any) -> str:
    """A name that both libraries share: the outermost structure, event dimensions stripped."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    name = type(constraint).__name__.strip("_")
    same = {"GreaterThan": "Positive", "GreaterThanEq": "Positive", "Interval": "UnitInterval"}
    if name in same and float(constraint.lower_bound) == 0.0:
        return same[name]
    return name


def pyro_trace(program: Any, problem: Problem, **extra: Any) -> dict[str, Any]:
    from pyro import poutine

    from ppl_lvm.backends._pyro_trace import to_torch
    from ppl_lvm.backends.session import torch_session

    with torch_session(0, "float64"):
        nodes = poutine.trace(program).get_trace(**to_torch(problem.arguments), **extra).nodes
    return {name: node for name, node in nodes.items() if node["type"] in ("sample", "param")}


def numpyro_trace(program: Any, problem: Problem, **extra: Any) -> dict[str, Any]:
    import jax
    from numpyro import handlers

    from ppl_lvm.backends._numpyro import split_arguments
    from ppl_lvm.backends.session import jax_session

    with jax_session("float64"):
        data, statics = split_arguments(problem.arguments)
        seeded = handlers.seed(program, jax.random.key(0))
        trace = handlers.trace(seeded).get_trace(**{**data, **dict(statics), **extra})
    return {name: site for name, site in trace.items() if site["type"] in ("sample", "param")}


def described(trace: dict[str, Any]) -> list[tuple[str, tuple[int, ...], str]]:
    """(name, shape, support) of the continuous latent sites, in the order of their statements."""
    return [
        (name, tuple(site["value"].shape), support_of(site["fn"].support))
        for name, site in trace.items()
        if site["type"] == "sample"
        and not site["is_observed"]
        and type(site["fn"]).__name__ != "_Subsample"  # how Pyro records a plate
        and not site["fn"].support.is_discrete
    ]


def test_twins_have_the_same_sites(traced: Traced) -> None:
    import jax

    from ppl_lvm.backends._numpyro import split_arguments
    from ppl_lvm.backends.session import jax_session

    model, theirs = traced.problem.model, []

    def look(data: Any) -> None:  # traced as a whole: run, every operation of it would be compiled
        theirs.extend(described(numpyro_trace(model.numpyro.model, traced.problem, **data)))

    ours = described(pyro_trace(model.pyro.model, traced.problem))
    assert ours
    with jax_session("float64"):
        jax.eval_shape(look, split_arguments(traced.problem.arguments)[0])
    assert theirs == ours


def test_every_site_has_named_dimensions(traced: Traced) -> None:
    for site in traced.problem.latents():
        if site.name in traced.problem.model.internal_sites:
            continue
        names = traced.problem.dims[site.name]
        assert len(names) == len(site.shape)
        assert len(set(names)) == len(names)
        assert not any(re.fullmatch(rf"{site.name}_dim_\d+", name) for name in names)


# ---- guides --------------------------------------------------------------------------------------


def guides(problem: Problem) -> tuple[Any, Any]:
    twin: Program | None = problem.model.numpyro
    if problem.model.pyro.guide is None or twin is None or twin.guide is None:
        pytest.skip("the model has no guide of its own in both backends")
    return problem.model.pyro.guide, twin.guide


def start_of(problem: Problem) -> dict[str, np.ndarray]:
    return problem.model.exact.initial_values(problem.arguments, np.random.default_rng(1))


def param_values(trace: dict[str, Any]) -> dict[str, np.ndarray]:
    found = {}
    for name, site in trace.items():
        if site["type"] == "param":
            value = site["value"]
            found[name] = value.detach().numpy().copy() if hasattr(value, "detach") else np.array(value)
    return found


@pytest.mark.parametrize("with_init", [False, True], ids=["prior-centre", "init"])
def test_guides_start_from_the_same_params(traced: Traced, with_init: bool) -> None:
    import torch

    ours, theirs = guides(traced.problem)
    start = start_of(traced.problem) if with_init else None
    tensors = {k: torch.from_numpy(v) for k, v in start.items()} if start else None
    extra = {"init": tensors} if with_init else {}
    a = param_values(pyro_trace(ours, traced.problem, **extra))
    b = param_values(numpyro_trace(theirs, traced.problem, **({"init": start} if with_init else {})))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.shape == b[name].shape, name
        agree(b[name], value)


def moved_params(problem: Problem, guide: Any) -> dict[str, np.ndarray]:
    """Params moved at random from where they start, within their constraints."""
    import torch
    from torch.distributions import transform_to

    from ppl_lvm.backends.session import torch_session

    rng = np.random.default_rng(3)
    nodes = {n: s for n, s in pyro_trace(guide, problem).items() if s["type"] == "param"}
    moved = {}
    with torch_session(0, "float64"):
        for name, node in nodes.items():
            transform = transform_to(node["kwargs"].get("constraint", torch.distributions.constraints.real))
            free = transform.inv(node["value"].detach())
            moved[name] = transform(free + torch.from_numpy(0.3 * rng.standard_normal(free.shape))).numpy()
    return moved


def pyro_guide_log_density(
    guide: Any, problem: Problem, params: dict[str, np.ndarray], points: dict[str, np.ndarray]
) -> np.ndarray:
    """One point at a time, by Pyro's own handlers."""
    import torch
    from pyro import poutine

    from ppl_lvm.backends._pyro_trace import to_torch
    from ppl_lvm.backends.session import torch_session

    out = []
    with torch_session(0, "float64"), torch.no_grad():
        held = poutine.substitute(guide, data={k: torch.from_numpy(v) for k, v in params.items()})
        for i in range(NUM_POINTS):
            values = {k: torch.from_numpy(v[i]) for k, v in points.items()}
            trace = poutine.trace(poutine.condition(held, data=values)).get_trace(
                **to_torch(problem.arguments)
            )
            out.append(float(trace.log_prob_sum()))
    return np.array(out)


@pytest.fixture(scope="module")
def guide_params(traced: Traced) -> dict[str, np.ndarray]:
    return moved_params(traced.problem, guides(traced.problem)[0])


@pytest.fixture(scope="module")
def guide_density(traced: Traced, guide_params: dict[str, np.ndarray]) -> np.ndarray:
    return pyro_guide_log_density(guides(traced.problem)[0], traced.problem, guide_params, traced.points)


def test_guides_agree(traced: Traced, guide_params: dict[str, np.ndarray], guide_density: np.ndarray) -> None:
    """By NumPyro's own function, and by what engines weigh draws with (in unconstrained space)."""
    import jax
    import jax.numpy as jnp
    from numpyro.infer.util import log_density

    from ppl_lvm.backends import _jax_guides
    from ppl_lvm.backends._numpyro import density_of
    from ppl_lvm.backends.session import jax_session

    twin = guides(traced.problem)[1]
    with jax_session("float64"):
        density, data = density_of(traced.problem)
        ours = _jax_guides.build_guide(traced.problem, density, None, {}, jnp.zeros(density.size))
        params = {k: jnp.asarray(v) for k, v in guide_params.items()}
        free = ours.unconstrain(params)

        @jax.jit
        @jax.vmap
        def log_q(values: Any) -> Any:
            z = density.unconstrain(values, data, {})
            weighed = ours.log_prob(free, z, data) - density.log_jacobian(z, data, {})
            return log_density(twin, (), data, {**params, **values})[0], weighed

        direct, weighed = log_q(traced.points)
        agree(direct, guide_density)
        agree(weighed, guide_density)


def test_particles_together_have_the_density_of_each(
    traced: Traced, guide_params: dict[str, np.ndarray], guide_density: np.ndarray
) -> None:
    from ppl_lvm.backends import _pyro_guide
    from ppl_lvm.backends.session import torch_session

    with torch_session(0, "float64"):
        guide = _pyro_guide.build_guide(traced.problem, None, {})
        agree(_pyro_guide.log_q_at(traced.problem, guide, guide_params, traced.points), guide_density)


# ---- symmetry ------------------------------------------------------------------------------------


def exchangeable(traced: Traced) -> tuple[Any, int]:
    """The model and its number of labels; skips where labels are told apart."""
    from ppl_lvm.relabel import num_labels

    model = traced.problem.model
    if not model.label_axes:
        pytest.skip("the model has no exchangeable labels")
    return model, num_labels(model.label_axes, traced.points)


def reordered(model: Any, values: dict[str, np.ndarray], orders: np.ndarray) -> dict[str, np.ndarray]:
    """Draw t with its labels in ``orders[t]``; written out, not by the package's own permute."""
    out = {name: value.copy() for name, value in values.items()}
    for name, axes in model.label_axes.items():
        for axis in axes if name in values else ():
            for t, order in enumerate(orders):
                out[name][t] = np.take(out[name][t], order, axis=axis)
    return out


def test_density_and_invariants_do_not_change_with_labels(traced: Traced, pyro_terms: Terms) -> None:
    model, k = exchangeable(traced)
    exact, before = model.exact, model.invariants(traced.points)
    assert before
    for order in itertools.permutations(range(k)):
        values = reordered(model, traced.points, np.tile(order, (NUM_POINTS, 1)))
        agree(exact.log_prior(values, traced.problem.arguments), pyro_terms.prior)
        agree(exact.log_likelihood(values, traced.problem.arguments), pyro_terms.per_datum)
        after = model.invariants(values)
        assert after.keys() == before.keys()
        for name, value in before.items():
            np.testing.assert_allclose(after[name], value, rtol=1e-12, atol=1e-12)


def test_invariants_are_quantities_of_each_draw(traced: Traced) -> None:
    """Draw dimensions lead, any number of them, and one draw does not depend on the others."""
    model = traced.problem.model
    together = model.invariants(traced.points)
    alone = model.invariants({k: v[3:4] for k, v in traced.points.items()})
    grid = model.invariants({k: v.reshape(4, 5, *v.shape[1:]) for k, v in traced.points.items()})
    for name, value in together.items():
        np.testing.assert_allclose(alone[name][0], value[3], rtol=1e-13)
        np.testing.assert_allclose(grid[name].reshape(value.shape), value, rtol=1e-13)
        assert len(model.dims.get(name, ())) == value.ndim - 1


def switched(traced: Traced, num: int = 60) -> tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The model, draws about well-separated values in one order, and the same each in a random order."""
    model, k = exchangeable(traced)
    rng = np.random.default_rng(5)
    centre = traced.case.separated
    if centre is None:
        pytest.skip("the case has no well-separated values")
    ordered = {name: np.repeat(value[None], num, axis=0) for name, value in centre.items()}
    moved = traced.case.moved
    ordered[moved] = ordered[moved] * np.exp(0.03 * rng.standard_normal(ordered[moved].shape))
    orders = np.stack([rng.permutation(k) for _ in range(num)])
    orders[0] = np.arange(k)
    return model, ordered, reordered(model, ordered, orders)


def test_relabelling_recovers_the_order_of_every_draw(traced: Traced) -> None:
    from ppl_lvm.relabel import relabel_values

    model, ordered, mixed = switched(traced)
    found, orders = relabel_values(model, mixed, pivot=0)
    for name, value in ordered.items():
        np.testing.assert_array_equal(found[name], value)
    applied = reordered(model, mixed, orders)
    assert all(np.array_equal(applied[name], found[name]) for name in ordered)


def test_relabelling_twice_changes_nothing(traced: Traced) -> None:
    from ppl_lvm.relabel import align, describe_labels, relabel_values

    model, _, mixed = switched(traced)
    once, _ = relabel_values(model, mixed, pivot=0)
    twice, orders = relabel_values(model, once, pivot=0)
    assert (orders == np.arange(orders.shape[1])).all()
    assert all(np.array_equal(twice[name], once[name]) for name in once)
    # Where components can hardly be told apart: no draw would rather have another order, given the rest.
    once, _ = relabel_values(model, traced.points, pivot=0)
    features = model.label_features(once)
    orders = align(features, describe_labels(features))
    assert (orders == np.arange(orders.shape[1])).all()


# ---- settings ------------------------------------------------------------------------------------


def test_resolve_is_idempotent_and_stays(traced: Traced) -> None:
    """Numbers filled in from one data set are not taken from another one later (as SBC must rely on)."""
    model = traced.case.make()
    once = model.resolve(traced.case.data)
    assert once.resolve(traced.case.data) == once
    few = traced.case.data[: len(traced.case.data) // 2]
    assert once.resolve([*few, *few] if isinstance(few, list) else np.concatenate([few, few])) == once
    assert once == traced.problem.model
    assert hash(once) == hash(model.resolve(traced.case.data))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def test_settings_survive_json(traced: Traced) -> None:
    model = traced.problem.model
    record = json.loads(json.dumps(model.to_settings()))
    settings = {k: _tuples(v) for k, v in record["settings"].items()}
    assert getattr(models, record["model"])(**settings) == model


def test_a_saved_fit_brings_back_the_model(traced: Traced, tmp_path: Any) -> None:
    fit = lvm.fit(traced.case.make(), traced.case.data, ImportanceSampling(num_samples=30, backend="pyro"))
    fit.save(tmp_path / "fit")
    assert lvm.load(tmp_path / "fit").model == traced.problem.model


# ---- data ----------------------------------------------------------------------------------------


def _with(case: ModelCase, index: tuple[int, int], value: float) -> np.ndarray:
    x = case.matrix.copy()
    x[index] = value
    return x


BAD_DATA: dict[str, tuple[Any, str]] = {
    "nan": (lambda case: _with(case, (4, 0), np.nan), r"^x\b.*NaN.*\(4, 0\)"),
    "infinity": (lambda case: _with(case, (7, -1), -np.inf), r"^x\b.*infinite"),
    "one-dimensional": (lambda case: case.matrix[:, 0], r"^x\b.*\(n, d\).*x\[:, None\]"),
    "three-dimensional": (lambda case: case.matrix[None], r"^x\b.*\(n, d\)"),
    "scalar": (lambda case: 3.0, r"^x\b.*\((n|T), d\)"),
    "no rows": (lambda case: case.matrix[:0], r"^x\b.*at least one row"),
    "no columns": (lambda case: case.matrix[:, :0], r"^x\b"),
    "ragged": (lambda case: [[1.0, 2.0], [3.0]], r"^x\b.*rectangular"),
    "strings": (lambda case: np.full(case.matrix.shape, "a"), r"^x\b.*numbers"),
    "objects": (lambda case: np.full(case.matrix.shape, "a", dtype=object), r"^x\b.*numbers"),
    "complex": (lambda case: case.matrix.astype(complex), r"^x\b.*numbers"),
    "nothing": (lambda case: None, r"^x\b"),
    "wrong name": (lambda case: {"y": case.matrix}, r"missing \['x'\].*unknown \['y'\]"),
    "extra name": (lambda case: {"x": case.matrix, "y": case.matrix}, r"unknown \['y'\]"),
    "no names": (lambda case: {}, r"missing \['x'\]"),
    "frame with text": (
        lambda case: pd.DataFrame(case.matrix, columns=[f"c{i}" for i in range(case.matrix.shape[1])]).assign(
            colour="red"
        ),
        r"^x\b.*numeric columns.*colour",
    ),
    "masked": (
        lambda case: np.ma.array(
            case.matrix, mask=np.arange(case.matrix.size).reshape(case.matrix.shape) == 3
        ),
        r"^x\b.*(masked|missing|NaN)",
    ),
    "frame with nan": (lambda case: pd.DataFrame(_with(case, (2, 0), np.nan)), r"^x\b.*NaN"),
}


@pytest.mark.parametrize("fault", BAD_DATA)
@pytest.mark.parametrize("name", MODEL_CASES)
def test_bad_data_is_an_error_in_words(name: str, fault: str) -> None:
    case = MODEL_CASES[name][0]
    make, words = BAD_DATA[fault]
    if fault in case.allows:
        case.make().bind(make(case))
        return
    with pytest.raises((ValueError, TypeError), match=re.compile(words, re.DOTALL)):
        case.make().bind(make(case))


def test_too_few_rows_for_the_components(traced: Traced) -> None:
    model = traced.case.make()
    k = getattr(model, "num_components", 1)
    if k == 1:
        pytest.skip("one row is enough for one component, and a factor model has none")
    with pytest.raises(
        ValueError, match=rf"^x\b.*at least {k} rows.*fewer rows than components.*got {k - 1}"
    ):
        model.bind(traced.case.matrix[: k - 1])
    assert len(model.bind(traced.case.matrix[: k - 1], fitting=False).values["x"]) == k - 1


def test_a_constant_column_needs_explicit_numbers(traced: Traced) -> None:
    x = traced.case.matrix.copy()
    x[:, -1] = 1.0
    column = x.shape[1] - 1
    if not traced.case.needs_spread:
        traced.case.make().resolve(x)
        return
    with pytest.raises(ValueError, match=rf"^x\b.*column {column}.*constant"):
        traced.case.make().resolve(x)
    if isinstance(traced.problem.model, models.GaussianMixture):  # every number is given: nothing to scale
        assert traced.problem.model.resolve(x) == traced.problem.model


def test_errors_come_before_anything_runs(traced: Traced) -> None:
    with pytest.raises(ValueError, match=r"^x\b.*infinit"):
        lvm.fit(traced.case.make(), _with(traced.case, (0, 0), np.inf), ImportanceSampling(num_samples=25))


def test_frames_mappings_lists_and_arrays_bind_alike(traced: Traced) -> None:
    x, model = traced.case.matrix, traced.case.make()
    sequences = isinstance(traced.case.data, list)
    columns = [f"length {i}" for i in range(x.shape[1])]
    rows = [f"row {i}" for i in range(len(x))]
    frame = pd.DataFrame(x, columns=columns, index=rows)
    for raw in (x, x.tolist(), {"x": x}, frame, {"x": frame}, x.astype(np.float32).astype(float)):
        if sequences and isinstance(raw, list):
            continue  # a list is one of sequences
        bound = model.bind(raw).values["x"]
        np.testing.assert_allclose(bound[0] if sequences else bound, x, rtol=1e-6)
        assert bound.dtype == np.float64
    problem = prepare(model, frame)
    assert list(problem.coords["feature"]) == columns
    assert list(problem.coords["time" if sequences else problem.data_plate]) == rows
    if not np.isnan(x).any():
        whole = np.round(x)
        integers = model.bind(whole.astype(np.int64)).values["x"]
        np.testing.assert_array_equal(integers[0] if sequences else integers, whole)


def test_other_features_are_refused_at_prediction(traced: Traced) -> None:
    wider = np.concatenate([traced.case.matrix, traced.case.matrix], axis=1)
    with pytest.raises(ValueError, match=r"^x\b.*(features|columns) as in the fit"):
        prepare(traced.problem.model, wider, fitting=False)


def test_the_callers_array_is_not_touched_or_shared(traced: Traced) -> None:
    x = traced.case.matrix.copy()
    problem = prepare(traced.case.make(), x)
    x[:] = 0.0
    np.testing.assert_array_equal(np.squeeze(problem.data.values["x"]), np.squeeze(traced.case.matrix))
