"""Special functions."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import absolute

_SAME: dict[str, Any] = {
    "lgamma": jsp.gammaln,
    "erf": jsp.erf,
    "erfc": jsp.erfc,
    "erfinv": jsp.erfinv,
    "special_log_ndtr": jsp.log_ndtr,
    "special_ndtri": jsp.ndtri,
    "special_entr": jsp.entr,
    "special_i0e": jsp.i0e,
    "special_i1": jsp.i1,
    "special_i1e": jsp.i1e,
    "igamma": jsp.gammainc,
    "igammac": jsp.gammaincc,
    "special_zeta": jsp.zeta,
    "sigmoid": jax.nn.sigmoid,
}
for _name, _function in _SAME.items():
    rule(f"aten.{_name}")(_function)


@rule("aten.logit")
def logit(x: Any, eps: Any = None) -> Any:
    return jsp.logit(x if eps is None else jnp.clip(x, eps, 1 - eps))


@rule("aten.xlogy")
def xlogy(x: Any, y: Any) -> Any:
    return _xlogy(*_as_floats(x, y))


@jax.custom_jvp
def _xlogy(x: Any, y: Any) -> Any:
    """The derivative with respect to x is 0 at x = 0 where y is 0."""
    return jsp.xlogy(x, y)


@_xlogy.defjvp
def _xlogy_slope(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    (x, y), (dx, dy) = primals, tangents
    none = (x == 0) & (y <= 0)
    log = jnp.where(none, 0.0, jnp.log(jnp.where(none, 1.0, y)))
    return jsp.xlogy(x, y), log * dx + x / y * dy


@rule("aten.special_xlog1py")
def xlog1py(x: Any, y: Any) -> Any:
    return _xlog1py(*_as_floats(x, y))


@jax.custom_jvp
def _xlog1py(x: Any, y: Any) -> Any:
    """The derivative with respect to x is 0 at x = 0 where y is -1."""
    return jsp.xlog1py(x, y)


@_xlog1py.defjvp
def _xlog1py_slope(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    (x, y), (dx, dy) = primals, tangents
    none = (x == 0) & (y <= -1)
    log = jnp.where(none, 0.0, jnp.log1p(jnp.where(none, 0.0, y)))
    return jsp.xlog1py(x, y), log * dx + x / (1 + y) * dy


@rule("aten.i0")
@jax.custom_jvp
def i0(x: Any) -> Any:
    return jsp.i0(x)


@i0.defjvp
def _i0_slope(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    return jsp.i0(primals[0]), jsp.i1(primals[0]) * tangents[0]


@rule("aten.digamma")
@jax.custom_jvp
def digamma(x: Any) -> Any:
    return jsp.digamma(x)


@digamma.defjvp
def _digamma_slope(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    return jsp.digamma(primals[0]), polygamma(1, primals[0]) * tangents[0]


@rule("aten.polygamma")
def polygamma(n: int, x: Any) -> Any:
    """By recurrence from the positive side, where JAX's series holds; not a number below -8."""
    if n == 0:
        return digamma(x)
    below = x < 0
    steps = [(jnp.where(below, x, 1.0) + k) ** -(n + 1.0) for k in range(8)]
    start = jsp.polygamma(n, jnp.where(x < -8, jnp.nan, jnp.where(below, x + 8, x)))
    return start - jnp.where(below, (-1) ** n * math.factorial(n) * sum(steps), 0.0)


@rule("aten.mvlgamma")
def multigammaln(x: Any, p: int) -> Any:
    return jsp.multigammaln(x, p)


@rule("aten.special_erfcx")
def erfcx(x: Any) -> Any:
    """exp(x^2) erfc(x), by the log of the normal distribution function."""
    return 2 * jnp.exp(x * x + jsp.log_ndtr(-jnp.sqrt(2.0) * x))


@rule("aten.log_sigmoid_forward")
def log_sigmoid_forward(x: Any) -> Any:
    return jax.nn.log_sigmoid(x), None


@rule("aten.softplus")
def softplus(x: Any, beta: Any = 1, threshold: Any = 20) -> Any:
    """The identity beyond the threshold, as in torch."""
    scaled = x * beta
    return jnp.where(
        scaled > threshold, x, jax.nn.softplus(jnp.where(scaled > threshold, 0.0, scaled)) / beta
    )


@rule("aten.binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    x: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = 1
) -> Any:
    """Torch's formula; reduction 0: none, 1: mean, 2: sum."""
    log_weight = 1.0 if pos_weight is None else (pos_weight - 1) * target + 1
    loss = (1 - target) * x + log_weight * (jnp.log1p(jnp.exp(-absolute(x))) + jnp.maximum(-x, 0.0))
    return reduced(loss if weight is None else loss * weight, reduction)


@rule("aten.binary_cross_entropy")
def binary_cross_entropy(x: Any, target: Any, weight: Any = None, reduction: int = 1) -> Any:
    loss = _bernoulli_loss(x, target)
    return reduced(loss if weight is None else loss * weight, reduction)


@jax.custom_jvp
def _bernoulli_loss(x: Any, target: Any) -> Any:
    """Logs no lower than -100, and torch's derivative at the ends, which it bounds otherwise."""
    floor = -100.0
    return -(target * jnp.maximum(jnp.log(x), floor) + (1 - target) * jnp.maximum(jnp.log1p(-x), floor))


@_bernoulli_loss.defjvp
def _bernoulli_slope(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    (x, target), (dx, dy) = primals, tangents
    slope = (x - target) / jnp.maximum((1 - x) * x, 1e-12)
    return _bernoulli_loss(x, target), slope * dx + (jnp.log1p(-x) - jnp.log(x)) * dy


def reduced(loss: Any, reduction: int) -> Any:
    """A loss by torch's reduction number: 0 none, 1 mean, 2 sum."""
    if reduction == 1:
        return jnp.mean(loss)
    return jnp.sum(loss) if reduction == 2 else loss


def _as_floats(*args: Any) -> list[Any]:
    """Arguments at their common float dtype: the derivatives of some of JAX's functions fail on integers."""
    common = jnp.result_type(*args)
    floats = common if jnp.issubdtype(common, jnp.inexact) else jnp.result_type(float)
    return [jnp.asarray(a, floats) for a in args]
