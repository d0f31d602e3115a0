"""The normal noise behind a draw of a distribution, in either library: their wrappers have the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_NORMAL = {"Normal", "MultivariateNormal", "LowRankMultivariateNormal"}
_TRANSFORMED = {"TransformedDistribution", "LogNormal", "LogisticNormal"}
_WRAPPERS = {"Independent", "ExpandedDistribution", "MaskedDistribution"}  # others with a base are truncated
# Maps that are inverted at little cost; layers of flows are not, some of them not at all.
_MAPS = {
    f"{name}Transform"
    for name in ("Affine", "CorrCholesky", "Exp", "Ordered", "Sigmoid", "Softplus", "StickBreaking", "Tanh")
}
Solve = Callable[[Any, Any], Any]  # a lower triangular matrix and a vector (*, d) -> the solution


def noise_shape(distribution: Any) -> tuple[int, ...] | None:
    """The shape of the noise behind a draw, batch and event; None if it is other noise."""
    base, _ = _unwrapped(distribution)
    return None if base is None else (*base.batch_shape, *base.event_shape)


def noise_of(distribution: Any, value: Any, solve: Solve) -> Any | None:
    """The standard normal noise that the distribution made ``value`` of; None if it was other noise."""
    base, maps = _unwrapped(distribution)
    if base is None:
        return None
    for transform in reversed(maps):
        value = transform.inv(value)
    if _name(base) == "Normal":
        return (value - base.loc) / base.scale
    return solve(base.scale_tril, value - base.loc)


def value_at(distribution: Any, noise: Any) -> Any:
    """What the distribution makes of noise, for those of which :func:`noise_of` is not None."""
    base, maps = _unwrapped(distribution)
    if _name(base) == "Normal":
        value = base.loc + base.scale * noise
    else:
        value = base.loc + (base.scale_tril @ noise[..., None])[..., 0]
    for transform in maps:
        value = transform(value)
    return value


def _unwrapped(distribution: Any) -> tuple[Any, list[Any]]:
    """The normal at the bottom and the transforms of its draws, or (None, [])."""
    maps: list[Any] = []
    while _name(distribution) in _WRAPPERS | _TRANSFORMED:
        if _name(distribution) in _TRANSFORMED:
            maps = [*distribution.transforms, *maps]
        distribution = distribution.base_dist
    if _name(distribution) not in _NORMAL or not {_name(t) for t in maps} <= _MAPS:
        return None, []
    return distribution, maps


def _name(distribution: Any) -> str:
    return type(distribution).__name__
