"""Operators on each element."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import absolute, jax_dtype

_SAME: dict[str, Any] = {
    "abs": absolute,
    "acos": jnp.arccos,
    "acosh": jnp.arccosh,
    "asin": jnp.arcsin,
    "asinh": jnp.arcsinh,
    "atan": jnp.arctan,
    "atanh": jnp.arctanh,
    "bitwise_and": jnp.bitwise_and,
    "bitwise_not": jnp.bitwise_not,
    "bitwise_or": jnp.bitwise_or,
    "bitwise_xor": jnp.bitwise_xor,
    "ceil": jnp.ceil,
    "_conj": jnp.conj,
    "copysign": lambda x, y: jnp.where(jnp.signbit(y), -1, 1) * absolute(x),
    "cos": jnp.cos,
    "cosh": jnp.cosh,
    "deg2rad": jnp.deg2rad,
    "eq": jnp.equal,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "floor": jnp.floor,
    "fmax": lambda x, y: jnp.where((x >= y) | jnp.isnan(y), x, y),  # ties are the first's
    "fmin": lambda x, y: jnp.where((x <= y) | jnp.isnan(y), x, y),
    "fmod": jnp.fmod,
    "frac": lambda x: x - jnp.trunc(x),
    "ge": jnp.greater_equal,
    "gt": jnp.greater,
    "heaviside": jnp.heaviside,
    "hypot": jnp.hypot,
    "isinf": jnp.isinf,
    "isnan": jnp.isnan,
    "le": jnp.less_equal,
    "log": jnp.log,
    "log10": jnp.log10,
    "log1p": jnp.log1p,
    "log2": jnp.log2,
    "logaddexp": jnp.logaddexp,
    "logaddexp2": jnp.logaddexp2,
    "logical_and": jnp.logical_and,
    "logical_not": jnp.logical_not,
    "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor,
    "lt": jnp.less,
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "mul": jnp.multiply,
    "ne": jnp.not_equal,
    "neg": jnp.negative,
    "nextafter": lambda x, y: jnp.nextafter(lax.stop_gradient(x), lax.stop_gradient(y)),
    "rad2deg": jnp.rad2deg,
    "reciprocal": lambda x: 1.0 / x,
    "remainder": jnp.remainder,
    "rsqrt": lax.rsqrt,
    "sign": jnp.sign,
    "signbit": jnp.signbit,
    "sgn": jnp.sign,
    "sin": jnp.sin,
    "sinc": jnp.sinc,
    "sinh": jnp.sinh,
    "sqrt": jnp.sqrt,
    "tan": jnp.tan,
    "tanh": jnp.tanh,
    "trunc": jnp.trunc,
    "angle": lambda x: jnp.angle(x) if jnp.iscomplexobj(x) else lax.stop_gradient(jnp.angle(x)),
    "bitwise_left_shift": jnp.left_shift,
    "bitwise_right_shift": jnp.right_shift,
}
for _name, _function in _SAME.items():
    rule(f"aten.{_name}")(_function)


@rule("aten.complex")
def complex_of(real: Any, imag: Any) -> Any:
    return lax.complex(*jnp.broadcast_arrays(real, imag))


@rule("aten.add")
def add(x: Any, y: Any, alpha: Any = 1) -> Any:
    return jnp.add(x, y if alpha == 1 else alpha * y)


@rule("aten.sub")
def sub(x: Any, y: Any, alpha: Any = 1) -> Any:
    return jnp.subtract(x, y if alpha == 1 else alpha * y)


@rule("aten.rsub")
def rsub(x: Any, y: Any, alpha: Any = 1) -> Any:
    return sub(y, x, alpha)


@rule("aten.div")
def div(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return jnp.floor_divide(x, y)
    quotient = jnp.true_divide(x, y)
    return jnp.trunc(quotient) if rounding_mode == "trunc" else quotient


@rule("aten.floor_divide")
def floor_divide(x: Any, y: Any) -> Any:
    return jnp.floor_divide(x, y)


@rule("aten.pow")
def power(x: Any, y: Any) -> Any:
    if isinstance(y, (int, float)) and float(y).is_integer() and abs(y) <= 16:
        return lax.integer_pow(jnp.asarray(x), int(y))  # derivatives at 0 are right, and it is cheaper
    kind = jnp.result_type(x, y)
    if not jnp.issubdtype(kind, jnp.floating):
        return jnp.power(x, y)
    return _power(jnp.asarray(x, kind), jnp.asarray(y, kind))


@jax.custom_jvp
def _power(x: Any, y: Any) -> Any:
    """The derivatives are 0 where y = 0, and where x = 0 with respect to y."""
    return jnp.power(x, y)


@_power.defjvp
def _power_slope(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    (x, y), (dx, dy) = primals, tangents
    out = jnp.power(x, y)
    along_x = jnp.where(y == 0, 0.0, y * jnp.power(x, jnp.where(y == 0, 1.0, y - 1)))
    flat = (x == 0) & (y >= 0)
    along_y = jnp.where(flat, 0.0, out * jnp.log(jnp.where(flat, 1.0, x)))
    return out, along_x * dx + along_y * dy


@rule("aten.atan2")
def atan2(x: Any, y: Any) -> Any:
    """The derivative at the origin is 0."""
    origin = (x == 0) & (y == 0)
    return jnp.where(origin, lax.stop_gradient(jnp.arctan2(x, y)), jnp.arctan2(x, jnp.where(origin, 1.0, y)))


@rule("aten.ldexp")
def ldexp(x: Any, exponent: Any) -> Any:
    return x * jnp.exp2(exponent)


@rule("aten.addcmul")
def addcmul(x: Any, a: Any, b: Any, value: Any = 1) -> Any:
    return x + value * a * b


@rule("aten.addcdiv")
def addcdiv(x: Any, a: Any, b: Any, value: Any = 1) -> Any:
    return x + value * a / b


@rule("aten.lerp")
def lerp(x: Any, end: Any, weight: Any) -> Any:
    return x + weight * (end - x)


@rule("aten.round")
def round_to(x: Any, decimals: int = 0) -> Any:
    return jnp.round(x, decimals)


@rule("aten.clamp")
def clamp(x: Any, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Any:
    """Torch's derivative at a bound is 1 (inside or on it), which ``jnp.clip`` would halve."""
    low, high = low if low is not None else min, high if high is not None else max
    if low is not None:
        x = jnp.where(x < low, low, x)
    return x if high is None else jnp.where(x > high, high, x)


@rule("aten.clamp_min")
def clamp_min(x: Any, low: Any) -> Any:
    return clamp(x, low)


@rule("aten.clamp_max")
def clamp_max(x: Any, high: Any) -> Any:
    return clamp(x, None, high)


@rule("aten.where")
def where(condition: Any, x: Any, y: Any) -> Any:
    return jnp.where(condition, x, y)


@rule("aten.masked_fill")
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    return jnp.where(mask, value, x)


@rule("aten.nan_to_num")
def nan_to_num(x: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Any:
    return jnp.nan_to_num(x, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)


@rule("aten.detach", "aten.detach_copy")
def detach(x: Any) -> Any:
    return lax.stop_gradient(x)


@rule("aten._to_copy")
def to_copy(x: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> Any:
    return x if dtype is None else jnp.asarray(x).astype(jax_dtype(dtype))


@rule("aten.clone", "aten.alias", "aten.alias_copy")
def same(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x


@rule("aten.copy")
def copy(x: Any, source: Any, non_blocking: bool = False) -> Any:
    return jnp.broadcast_to(jnp.asarray(source).astype(jnp.asarray(x).dtype), jnp.shape(x))


@rule("ppl_lvm.safe_log")
@jax.custom_jvp
def safe_log(x: Any) -> Any:
    """Pyro's: the derivative is that of the log with its argument no smaller than machine epsilon."""
    return jnp.log(x)


@safe_log.defjvp
def _safe_log_slope(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    return jnp.log(x), dx / jnp.maximum(x, jnp.finfo(x.dtype).eps)
