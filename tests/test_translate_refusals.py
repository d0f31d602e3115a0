"""Pyro functions that cannot run on JAX: each is refused with the reason, the source line and the way out.

The line that is at fault carries a mark, and must be the one that the message names. Beside them, functions
that look alike and are translated all the same.
"""

from __future__ import annotations

import inspect
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.nn import functional as F

import ppl_lvm as lvm

X = np.array([0.3, -1.2, 0.8, 2.0])
FILE = Path(__file__).name
MARK = "# " + "<-"
TAKEN = (r"value of latent site 'm' is taken out of the graph", r"torch\.where")
SHAPED = (r"a shape depends on the value of latent site", r"torch\.where")
RANDOM = (r"draws random numbers", r"pyro\.sample site", "pass it as data")
CASES: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {}


def refused(*words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Collect a bad model with what its message must say (regular expressions)."""

    def collect(function: Callable[..., None]) -> Callable[..., None]:
        CASES[function.__name__] = function, words
        return function

    return collect


def latent() -> torch.Tensor:
    return pyro.sample("m", dist.Normal(0.0, 1.0))


def observe(x: torch.Tensor, loc: Any, scale: Any = 1.0) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(loc, scale), obs=x)


# ---- values taken out of the graph ----------------------------------------------------------------


@refused(*TAKEN, r"\.item\(\)")
def takes_an_item(x):
    m = latent()
    observe(x, m, 1.0 + abs(m.item()))  # <-


@refused(*TAKEN, r"float\(\)")
def makes_a_float(x):
    m = latent()
    scale = 1.0 + float(m) ** 2  # <-
    observe(x, m, scale)


@refused(*TAKEN, "an if")
def branches(x):
    m = latent()
    if m > 0:  # <-
        m = 2 * m
    observe(x, m)


@refused(*TAKEN, "while", "fixed number of steps")
def loops(x):
    m, steps = latent(), 0
    while m < 3:  # <-
        m, steps = m + 1, steps + 1
    observe(x, m + steps)


@refused(*TAKEN, "assert")
def asserts(x):
    m = latent()
    assert m.abs() < 100  # <-
    observe(x, m)


@refused(*TAKEN)
def indexes_a_list(x):
    m = latent()
    scale = [0.5, 1.0][(m > 0).long()]  # <-
    observe(x, m, scale)


@refused(*TAKEN)
def uses_the_math_module(x):
    m = latent()
    observe(x, m, math.exp(m))  # <-


class TruncatedInPython(dist.Normal):
    def log_prob(self, value):
        tail = float(self.cdf(torch.zeros(())).max())  # <-
        return super().log_prob(value) - tail


@refused(*TAKEN, r"site 'y', ")
def has_a_python_distribution(x):
    with pyro.plate("data", len(x)):
        pyro.sample("y", TruncatedInPython(latent(), 1.0), obs=x)


@refused("failed while it was recorded", r"summed out", r"index tensors with it, as loc\[z\]")
def makes_an_int_of_a_label(x):
    weight = pyro.sample("w", dist.Beta(1.0, 1.0))
    z = pyro.sample("z", dist.Bernoulli(weight))
    observe(x, [weight, -weight][int(z)])  # <-


# ---- shapes that depend on values -----------------------------------------------------------------


@refused(*SHAPED, "boolean mask")
def masks(x):
    m = latent()
    observe(x, m)
    pyro.factor("tail", x[x > m].sum())  # <-


@refused(*SHAPED)
def sums_unique_values(x):
    m = latent()
    observe(x, m + torch.unique(torch.round(m * x)).sum())  # <-


@refused("value differs|shape depends", "nonzero", r"torch\.where")
def counts_by_nonzero(x):
    m = latent()
    where = torch.nonzero(x > m)  # <-
    observe(x, m + len(where))


@refused("taken out of the graph")
def has_a_shape_by_value(x):
    m = latent()
    n = int(m.exp()) + 1  # <-
    observe(x, m + torch.ones(n).sum())


@refused("a shape depends on the value of latent site 'b'")
def repeats_by_value(x):
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    longer = torch.repeat_interleave(b, (b > 0).long() + 1)  # <-
    observe(x, latent() + longer.sum())


@refused("taken out of the graph")
def has_a_plate_by_value(x):
    n = 1 + int(latent() > 0)  # <-
    with pyro.plate("several", n):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
    observe(x, b.sum())


# ---- random numbers -------------------------------------------------------------------------------


@refused(*RANDOM)
def adds_noise(x):
    observe(x, latent() + torch.randn(()))  # <-


@refused(*RANDOM)
def adds_uniform_noise(x):
    observe(x, latent() + torch.rand_like(x).mean())  # <-


@refused(*RANDOM, r"\.eval\(\)")
def drops_out(x):
    observe(x, F.dropout(latent() * x, 0.5))  # <-


@refused(*RANDOM)
def switches_at_random(x):
    observe(x, latent() * torch.bernoulli(torch.full((4,), 0.5)))  # <-


@refused(*RANDOM)
def draws_from_a_distribution(x):
    observe(x, dist.Normal(latent(), 1.0).rsample())  # <-


@refused(*RANDOM, "networks: built outside")
def builds_a_network(x):
    layer = torch.nn.Linear(1, 1)  # <-
    observe(x, layer(latent().reshape(1))[0])


# ---- what only the check can find -----------------------------------------------------------------


@refused("DISAGREES with Pyro", "likely cause: a value leaves torch", "NumPy")
def goes_through_numpy(x):
    m = latent()
    observe(x, m + torch.as_tensor(np.tanh(m.detach().numpy())))  # <-


@refused("DISAGREES with Pyro", "likely cause: a value leaves torch", "list")
def goes_through_a_list(x):
    m = latent()
    observe(x, m, 1.0 + sum((m * x).tolist()) ** 2)  # <-


@refused("DISAGREES with Pyro", r"torch\.tensor\(\[\.\.\.\]\) copies values; use torch\.stack")
def copies_into_a_tensor(x):
    m = latent().detach()
    both = torch.tensor([m, 2 * m])  # <-
    observe(x, both.sum())


@refused("DISAGREES with Pyro", r"likely cause: torch\.no_grad\(\) hides a gradient", r"detach\(\)")
def hides_a_gradient(x):
    m = latent()
    with torch.no_grad():  # <-
        scale = m.exp()
    observe(x, m, scale)


class WronglyDifferentiated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 2 * slope * x.exp()


@refused("DISAGREES with Pyro", "WronglyDifferentiated is not the derivative")
def has_a_wrong_gradient(x):
    m = latent()
    observe(x, m, WronglyDifferentiated.apply(m))  # <-


# ---- what JAX or the table of rules does not have -------------------------------------------------


@torch.library.custom_op("ppl_lvm_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@torch.library.custom_op("ppl_lvm_tests::thrice", mutates_args=())
def thrice(x: torch.Tensor) -> torch.Tensor:
    return 3 * x


torch.library.register_autograd("ppl_lvm_tests::twice", lambda ctx, slope: 2 * slope)
torch.library.register_autograd("ppl_lvm_tests::thrice", lambda ctx, slope: 3 * slope)


@refused("no rule for", r"ppl_lvm_tests\.twice", r"ppl_lvm_tests\.thrice", r"lvm\.register_rule\(op\)")
def uses_operators_without_a_rule(x):
    m = latent()
    observe(x, twice(m) + thrice(m))  # <-


@refused(r"JAX has no counterpart of torch\.bfloat16", "float64 or float32")
def computes_in_bfloat16(x):
    m = latent()
    half = m.to(torch.bfloat16)  # <-
    observe(x, m + half.double())


@refused(r"no rule for aten\._to_sparse")
def multiplies_by_a_sparse_matrix(x):
    m = latent()
    diagonal = torch.eye(4).mul(m).to_sparse()  # <-
    observe(x, torch.sparse.mm(diagonal, x[:, None])[:, 0])


def line_of(function: Callable[..., None]) -> int:
    """Where the mark is, in a model or in the distribution that it uses."""
    for owner in (function, TruncatedInPython):
        lines, first = inspect.getsourcelines(owner)
        marked = [first + i for i, text in enumerate(lines) if MARK in text]
        if marked:
            return marked[0]
    raise LookupError(f"{function.__name__} has no marked line")


@pytest.mark.parametrize("name", CASES)
def test_a_bad_model_is_refused_with_its_line(name: str) -> None:
    function, words = CASES[name]
    with pytest.raises(ValueError, match=name) as caught:
        lvm.translate(function, X)
    message = str(caught.value)
    assert f"{FILE}:{line_of(function)}" in message
    assert "backend='pyro'" in message
    for pattern in words:
        assert re.search(pattern, message), (pattern, message)
    assert len(message) < 1200


def test_there_are_enough_bad_models() -> None:
    assert len(CASES) >= 18


# ---- what is refused by other means ---------------------------------------------------------------


def test_all_reasons_come_at_once() -> None:
    def several_faults(x):
        m = latent()
        if m > 0:
            m = m + torch.randn(())
        observe(x, twice(m))

    with pytest.raises(ValueError, match="several_faults cannot be translated to JAX") as caught:
        lvm.translate(several_faults, X)
    for words in ("is taken out of the graph", "draws random numbers", "no rule for ppl_lvm_tests.twice"):
        assert words in str(caught.value)


def test_numpy_functions_fail_on_pyro_too_and_are_named() -> None:
    """np.exp on a tensor that requires a gradient: neither backend can, so Pyro is no way out."""

    def uses_np_exp(x):
        m = latent()
        observe(x, m, np.exp(m))  # <-

    with pytest.raises(ValueError, match=r"uses_np_exp.*torch's function of the same name") as caught:
        lvm.translate(uses_np_exp, X)
    assert f"{FILE}:{line_of(uses_np_exp)}" in str(caught.value)
    assert "backend='pyro'" not in str(caught.value)


def test_state_between_calls_is_found() -> None:
    calls = [0]

    def counts_its_calls(x):
        calls[0] += 1
        observe(x, latent() * calls[0])

    with pytest.raises(ValueError, match=r"counts_its_calls: .*DISAGREES.*keeps state between calls"):
        lvm.translate(counts_its_calls, X)


@pytest.mark.parametrize("size", [1.0, 1e-7])
def test_random_numbers_from_elsewhere_are_found(size: float) -> None:
    """However small: the room for rounding is not given to a program that never repeats itself."""
    rng = np.random.default_rng(0)

    def draws_by_numpy(x):
        observe(x, latent() + size * rng.standard_normal())

    with pytest.raises(ValueError, match=r"draws_by_numpy: .*random numbers outside of torch"):
        lvm.translate(draws_by_numpy, X)


def test_a_plate_that_subsamples_itself_is_refused() -> None:
    def subsamples(x):
        m = latent()
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            pyro.sample("y", dist.Normal(m, 1.0), obs=x[rows])

    with pytest.raises(ValueError, match=r"plate 'data' around site 'y'.*subsample_size.*batch_size"):
        lvm.translate(subsamples, X)


def test_infinitely_many_values_cannot_be_summed_out() -> None:
    def counts(x):
        k = pyro.sample("k", dist.Poisson(3.0))
        observe(x, k + latent())

    with pytest.raises(ValueError, match=r"\['k'\] have infinite support; truncate them"):
        lvm.fit(counts, X, lvm.NUTS(backend="numpyro"))


def test_a_density_that_is_finite_nowhere_is_refused() -> None:
    def impossible(x):
        m = latent()
        pyro.factor("never", torch.where(m > 1e9, 0.0, -torch.inf))
        observe(x, m)

    with pytest.raises(ValueError, match=r"impossible: .*finite at none.*check supports and scales"):
        lvm.translate(impossible, X)


def test_complex_data_are_refused() -> None:
    def plain(x):
        observe(x, latent())

    with pytest.raises(TypeError, match=r"x: expected numbers, got dtype complex128; convert it first"):
        lvm.translate(plain, X + 1j)


def test_a_guide_function_needs_a_twin() -> None:
    def plain(x):
        observe(x, latent())

    def guide(x):
        pyro.sample("m", dist.Normal(0.0, 1.0))

    engine = lvm.SVI(backend="numpyro", guide=guide)
    with pytest.raises(ValueError, match=r"guide function.*plain.*named family.*backend='pyro'"):
        lvm.fit(plain, X, engine)


def test_a_large_graph_is_told_with_the_alternative(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit is brought down, for a graph over it takes half a minute (see test_translate_posteriordb)."""
    from ppl_lvm.backends.translate import _density

    def unrolled(x):
        m = latent()
        for _ in range(30):
            m = torch.sin(m)
        observe(x, m)

    monkeypatch.setattr(_density, "MANY_OPS", 40)
    with caplog.at_level(logging.WARNING, "ppl_lvm"):
        translation = lvm.translate(unrolled, X)
    assert translation.num_ops > 40
    (record,) = [r for r in caplog.records if "operators" in r.message]
    assert re.search(rf"unrolled: .*{translation.num_ops} operators.*DiscreteHMM", record.message)


def test_a_global_that_changed_is_translated_again() -> None:
    """Silently and right: the log density is that of the normal with the new scale."""
    scale = {"y": 1.0}

    def reads_a_global(x):
        observe(x, latent(), scale["y"])

    def expected(m: float) -> float:
        terms = -0.5 * ((X - m) / scale["y"]) ** 2 - math.log(scale["y"] * math.sqrt(2 * math.pi))
        return -0.5 * m**2 - 0.5 * math.log(2 * math.pi) + terms.sum()

    for value in (1.0, 3.0):
        scale["y"] = value
        translation = lvm.translate(reads_a_global, X)
        assert translation.check.passed
        np.testing.assert_allclose(translation.log_density({"m": np.array(0.4)}), expected(0.4), rtol=1e-12)


# ---- what engines make of a refusal ---------------------------------------------------------------

TINY = {"num_warmup": 3, "num_samples": 4, "num_chains": 1, "max_tree_depth": 2}


def test_auto_falls_back_to_pyro_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ppl_lvm"):
        fit = lvm.fit(branches, X, lvm.NUTS(backend="auto", **TINY))
    assert fit.backend == "pyro"
    reason = fit.meta["translation"]["refused"]
    assert re.search(rf"branches.*taken out of the graph.*{FILE}:{line_of(branches)}", reason)
    told = [r.message for r in caplog.records if "branches" in r.message]
    assert len(told) == 1
    assert told[0].startswith(reason)
    assert told[0].endswith("it runs on Pyro")


@pytest.mark.parametrize(
    "engine", [lvm.NUTS, lvm.SVI, lvm.ImportanceSampling], ids=lambda engine: engine.__name__
)
@pytest.mark.parametrize("name", ["branches", "hides_a_gradient", "computes_in_bfloat16"])
def test_asked_for_jax_engines_refuse_with_the_reason(engine: Any, name: str) -> None:
    function, words = CASES[name]
    with pytest.raises(ValueError, match=rf"{engine.__name__}: .*{name}") as caught:
        lvm.fit(function, X, engine(backend="numpyro"))
    assert f"{FILE}:{line_of(function)}" in str(caught.value)
    for pattern in words:
        assert re.search(pattern, str(caught.value)), pattern


# ---- what looks alike -----------------------------------------------------------------------------


class RightlyDifferentiated(WronglyDifferentiated):
    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * x.exp()


def branches_on_data(x):
    m = latent()
    observe(x, m if x.sum() > 0 else 2 * m)


def masks_by_data(x):
    m = latent()
    observe(x, m)
    pyro.factor("positive", (m * x[x > 0]).sum())


def holds_a_value_constant(x):
    m = latent()
    observe(x, m, m.data.exp() + m.detach() ** 2)


def has_a_right_gradient(x):
    m = latent()
    observe(x, m, RightlyDifferentiated.apply(m))


def counts_columns_under_no_grad(x):
    with torch.no_grad():
        mean, n = x.mean(), float(len(x))
    observe(x - mean, latent() / n)


def writes_in_place(x):
    loc = torch.zeros(len(x))
    loc[:2] = latent()
    loc[2:] += 3.0
    observe(x, loc)


def fails_at_some_points(x):
    """A matrix that has no Cholesky factor where m <= 0: those points are passed over."""
    m = latent()
    observe(x, torch.linalg.cholesky(m * torch.eye(2)).sum())


@pytest.mark.parametrize(
    "function",
    [
        branches_on_data,
        masks_by_data,
        holds_a_value_constant,
        has_a_right_gradient,
        counts_columns_under_no_grad,
        writes_in_place,
        fails_at_some_points,
    ],
    ids=lambda function: function.__name__,
)
def test_what_looks_alike_is_translated(function: Callable[..., None]) -> None:
    """Value and gradient of Pyro's own log density, by torch's autograd (m is real: there is no Jacobian)."""
    from pyro import poutine

    from ppl_lvm.backends.session import torch_session

    translation = lvm.translate(function, X)
    with torch_session(0, "float64"):
        for value in (0.3, 1.1, 1.7):
            m = torch.tensor(value, requires_grad=True)
            trace = poutine.trace(poutine.condition(function, data={"m": m})).get_trace(torch.from_numpy(X))
            total = trace.log_prob_sum()
            (slope,) = torch.autograd.grad(total, m)
            ours = translation.value_and_gradient({"m": np.array(value)})
            np.testing.assert_allclose(ours[0], total.item(), rtol=1e-10)
            np.testing.assert_allclose(ours[1]["m"], slope.item(), rtol=1e-10)
