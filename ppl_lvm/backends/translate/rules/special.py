"""Special functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp

from ppl_lvm.backends.translate.rules import rule

for _name, _function in {
    "lgamma": jsp.gammaln,
    "special_gammaln": jsp.gammaln,
    "digamma": jsp.digamma,
    "special_digamma": jsp.digamma,
    "special_psi": jsp.digamma,
    "erf": jsp.erf,
    "erfc": jsp.erfc,
    "erfinv": jsp.erfinv,
    "special_erf": jsp.erf,
    "special_erfc": jsp.erfc,
    "special_erfinv": jsp.erfinv,
    "special_ndtr": jsp.ndtr,
    "special_log_ndtr": jsp.log_ndtr,
    "special_ndtri": jsp.ndtri,
    "special_entr": jsp.entr,
    "special_i0e": jsp.i0e,
    "special_i1": jsp.i1,
    "special_i1e": jsp.i1e,
    "special_i0": jsp.i0,
    "i0": jsp.i0,
    "special_gammainc": jsp.gammainc,
    "special_gammaincc": jsp.gammaincc,
    "igamma": jsp.gammainc,
    "igammac": jsp.gammaincc,
    "special_expit": jax.nn.sigmoid,
    "special_expm1": jnp.expm1,
    "special_exp2": jnp.exp2,
    "special_zeta": jsp.zeta,
    "sigmoid": jax.nn.sigmoid,
    "logit_base": jsp.logit,
}.items():
    rule(f"aten.{_name}")(_function)


@rule("aten.logit", "aten.special_logit")
def logit(x: Any, eps: Any = None) -> Any:
    return jsp.logit(x if eps is None else jnp.clip(x, eps, 1 - eps))


@rule("aten.xlogy", "aten.special_xlogy")
def xlogy(x: Any, y: Any) -> Any:
    return jsp.xlogy(x, y)


@rule("aten.special_xlog1py")
def xlog1py(x: Any, y: Any) -> Any:
    return jsp.xlog1py(x, y)


@rule("aten.polygamma", "aten.special_polygamma")
def polygamma(n: Any, x: Any) -> Any:
    return jsp.polygamma(n, x)


@rule("aten.mvlgamma", "aten.special_multigammaln")
def multigammaln(x: Any, p: int) -> Any:
    return jsp.multigammaln(x, p)


@rule("aten.special_erfcx")
def erfcx(x: Any) -> Any:
    """exp(x^2) erfc(x), by the log of the normal distribution function."""
    return 2 * jnp.exp(x * x + jsp.log_ndtr(-jnp.sqrt(2.0) * x))


@rule("aten.log_sigmoid_forward")
def log_sigmoid_forward(x: Any) -> Any:
    return jax.nn.log_sigmoid(x), None


@rule("aten.log_sigmoid")
def log_sigmoid(x: Any) -> Any:
    return jax.nn.log_sigmoid(x)


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
    loss = (1 - target) * x + log_weight * (jnp.log1p(jnp.exp(-jnp.abs(x))) + jnp.maximum(-x, 0.0))
    return reduced(loss if weight is None else loss * weight, reduction)


@rule("aten.binary_cross_entropy")
def binary_cross_entropy(x: Any, target: Any, weight: Any = None, reduction: int = 1) -> Any:
    floor = -100.0
    loss = -(target * jnp.maximum(jnp.log(x), floor) + (1 - target) * jnp.maximum(jnp.log1p(-x), floor))
    return reduced(loss if weight is None else loss * weight, reduction)


def reduced(loss: Any, reduction: int) -> Any:
    """A loss by torch's reduction number: 0 none, 1 mean, 2 sum."""
    if reduction == 1:
        return jnp.mean(loss)
    return jnp.sum(loss) if reduction == 2 else loss
