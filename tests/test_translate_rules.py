"""Every rule of the automatic twin against torch itself: values, and derivatives where torch has them.

The operators and their inputs are in translation_op_cases.py; ``slow`` adds float32.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from translation_op_cases import GROUPS
from translation_ops import Op, compare, op

import ppl_lvm as lvm
from ppl_lvm.backends.session import jax_session
from ppl_lvm.backends.translate import rules

LIMITS = {"float64": 1e-9, "float32": 1e-4}


def too_far(found: Any, ops: list[Op], dtype: str) -> dict[str, float]:
    wide = {o.name: o.wide for o in ops}
    every = {**found.value, **found.gradient}
    return {n: d for n, d in every.items() if d > LIMITS[dtype] * wide[n.rsplit(" ", 1)[0]]}


@pytest.fixture(scope="module")
def recorded() -> set[str]:
    """The operators that the groups below have recorded."""
    return set()


@pytest.mark.parametrize("group", GROUPS)
def test_rules_agree_with_torch(group: str, recorded: set[str]) -> None:
    """In float64 to 1e-9: where the derivative jumps, at ties and at the ends of domains, too."""
    ops = GROUPS[group]
    assert len({o.name for o in ops}) == len(ops)
    found = compare(ops)
    recorded |= found.recorded
    assert not too_far(found, ops, "float64")
    assert len(found.gradient) > len(ops) / 2  # derivatives were compared


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_rules_agree_with_torch_in_float32(group: str) -> None:
    found = compare(GROUPS[group], "float32")
    assert not too_far(found, GROUPS[group], "float32")


def test_every_rule_was_compared(recorded: set[str]) -> None:
    """No rule of the table without an operator above that reaches it (run with the tests above)."""
    if not recorded:
        pytest.skip("needs the comparisons above")
    packets = {n.rsplit(".", 1)[0] if n.count(".") > 1 else n for n in recorded}
    own = {n for kind, names in rules.supported().items() if kind != "decomposed" for n in names}
    assert not own - recorded - packets


def test_every_rewriting_was_compared() -> None:
    """The operators that torch rewrites leave no node of their own; each must occur in a call above."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: set[str] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.add(str(func.name()).replace("::", ".").split(".out")[0])
            return func(*args, **(kwargs or {}))

    with Watch(), torch.no_grad():
        for o in GROUPS["decomposed"]:
            o.call(*(torch.as_tensor(np.array(i, order="C")) for i in o.inputs))
    packets = {".".join(n.split(".")[:2]) for n in seen}
    assert not set(rules.supported()["decomposed"]) - packets


def test_where_we_are_better_than_torch() -> None:
    """The log of a sum of zeros has derivative 0 here; torch has NaN there."""
    nothing = jnp.full((2, 3), -jnp.inf)
    slope = jax.grad(lambda x: jnp.sum(jnp.where(True, rules.find_rule("aten.logsumexp.default")(x, 1), 0.0)))
    assert not np.asarray(slope(nothing)).any()


def test_polygamma_says_nan_where_it_does_not_hold() -> None:
    with jax_session("float64"):
        found = np.asarray(rules.find_rule("aten.polygamma.default")(1, jnp.array([-8.9, -7.5, 2.0])))
    assert np.isnan(found[0])
    expected = torch.polygamma(1, torch.tensor([-7.5, 2.0], dtype=torch.float64)).numpy()
    np.testing.assert_allclose(found[1:], expected, rtol=1e-8)


def test_the_page_of_what_is_supported_is_up_to_date() -> None:
    """docs/translation-support.md is what docs/translation_support.py writes from the rules and the cases."""
    script = Path(__file__).resolve().parents[1] / "docs" / "translation_support.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# ---- a user's own operators -----------------------------------------------------------------------


@torch.library.custom_op("ppl_lvm_tests::cube", mutates_args=())
def cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


@cube.register_fake
def _cube_fake(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def _cube_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _cube_backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    (x,) = ctx.saved_tensors
    return 3 * x**2 * grad


cube.register_autograd(_cube_backward, setup_context=_cube_setup)


def cubic(y: torch.Tensor) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(torch.ops.ppl_lvm_tests.cube(a), 0.5).expand(y.shape).to_event(1), obs=y)


Y = np.array([0.3, 1.2])


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``register_rule`` with what it registers forgotten afterwards."""
    monkeypatch.setattr(rules, "_USERS", {})
    return lvm.register_rule


def test_an_operator_without_a_rule_is_named_with_the_way_out(users: Any) -> None:
    with pytest.raises(lvm.TranslationError) as raised:
        lvm.translate(cubic, Y)
    message = str(raised.value)
    assert "ppl_lvm_tests.cube" in message
    assert "register_rule" in message
    assert "test_translate_rules.py" in message  # the line of the model


@pytest.mark.parametrize("how", ["name", "packet", "overload"])
def test_a_users_rule_is_used(users: Any, how: str) -> None:
    op_by = {
        "name": "ppl_lvm_tests::cube",
        "packet": torch.ops.ppl_lvm_tests.cube,
        "overload": torch.ops.ppl_lvm_tests.cube.default,
    }
    assert users(op_by[how])(lambda x: x**3) is not None
    made = lvm.translate(cubic, Y)
    a = 0.7
    residual = (Y - a**3) / 0.5
    value = -0.5 * a**2 - 0.5 * (residual**2).sum() - 2 * np.log(0.5) - 1.5 * np.log(2 * np.pi)
    found, slope = made.value_and_gradient({"a": a})
    assert found == pytest.approx(value, rel=1e-12)
    assert slope["a"] == pytest.approx(-a + (residual / 0.5 * 3 * a**2).sum(), rel=1e-12)


def test_a_users_wrong_rule_is_caught(users: Any) -> None:
    users("ppl_lvm_tests.cube")(lambda x: x**3 + 1e-3)
    with pytest.raises(lvm.TranslationError, match="DISAGREES"):
        lvm.translate(cubic, Y)
    users("ppl_lvm_tests.cube")(lambda x: x**3)  # a corrected one takes its place at once
    assert lvm.translate(cubic, Y).check.passed


def test_a_users_rule_comes_before_ours_and_an_overloads_before_all(users: Any) -> None:
    calls: list[str] = []

    def noted(name: str) -> Any:
        return lambda x, *rest, **options: (calls.append(name), jnp.exp(x))[1]

    def exponential(y: torch.Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(a.exp(), 1.0).expand(y.shape).to_event(1), obs=y)

    users(torch.ops.aten.exp)(noted("every overload"))
    lvm.translate(exponential, Y)
    assert set(calls) == {"every overload"}
    calls.clear()
    users(torch.ops.aten.exp.default)(noted("this overload"))
    lvm.translate(exponential, Y)
    assert set(calls) == {"this overload"}


def test_a_users_rule_comes_before_torchs_rewriting(users: Any) -> None:
    celu = op("celu", torch.nn.functional.celu, np.array([-1.0, 0.5]))
    users("aten.celu")(lambda x, alpha=1.0: jax.nn.celu(x, alpha))
    found = compare([celu])
    assert found.recorded == {"aten.celu.default"}
    assert max(found.gradient.values()) < 1e-12


@pytest.mark.parametrize("wrong", [3, np.exp, None])
def test_register_rule_takes_operators_only(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"op: .*torch\.ops\.mylib\.op.*custom_op"):
        lvm.register_rule(wrong)


def test_register_rule_takes_functions_only() -> None:
    with pytest.raises(TypeError, match=r"mylib\.op.*function of jax arrays"):
        lvm.register_rule("mylib::op")(3)
