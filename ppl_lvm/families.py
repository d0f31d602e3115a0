"""Guide families by name, and the settings of those that have any. Both backends read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FAMILY_NAMES = (
    "mean_field",
    "full_rank",
    "low_rank",
    "delta",
    "laplace",
    "flow",
    "spline",
    "structured",
    "amortized",
)
POINT_FAMILIES = ("delta",)  # these give a point, and no density


@dataclass(frozen=True)
class LowRank:
    """A Gaussian whose covariance has low rank plus a diagonal; ``"low_rank"`` is ``LowRank()``.

    ``rank`` is the number of columns of the factor; None: the rounded root of the number of unconstrained
    coordinates.
    """

    rank: int | None = None

    def __post_init__(self) -> None:
        if self.rank is not None:
            _check_count("rank", self.rank)

    def rank_for(self, size: int) -> int:
        """The number of columns for ``size`` coordinates, at most ``size``."""
        return min(size, max(1, round(size**0.5)) if self.rank is None else self.rank)


@dataclass(frozen=True)
class Flow:
    """A normalizing flow on unconstrained space: normal noise, bent by layers, then by an affine map.

    The last map has a location and a triangular matrix (a diagonal one beyond ``max_dense`` coordinates), so
    that a flow starts as the full-rank Gaussian and can only gain on it. ``"flow"`` is ``Flow()``,
    ``"spline"`` is ``Flow("spline")``.

    Parameters
    ----------
    kind
        ``"autoregressive"``: inverse autoregressive layers (Kingma et al. 2016, equation 10). Draws cost one
        pass; the density of given points needs one pass a coordinate. On one coordinate it is a Gaussian.
        ``"spline"``: coupling layers of monotone rational-quadratic splines (Durkan et al. 2019); both
        directions cost one pass, and beyond 5 sds of the noise the map is linear.
    num_layers
        Layers; the coordinates' order is reversed between two of them.
    num_hidden
        Width of the two hidden layers of each network; None: the larger of 32 and twice the coordinates.
    num_bins
        Bins of a spline.
    max_dense
        Most coordinates for which the last map is triangular.
    """

    kind: str = "autoregressive"
    num_layers: int = 2
    num_hidden: int | None = None
    num_bins: int = 8
    max_dense: int = 500

    def __post_init__(self) -> None:
        kinds = ("autoregressive", "spline")
        if self.kind not in kinds:
            raise ValueError(f"kind: expected one of {kinds}, got {self.kind!r}.")
        for name in ("num_layers", "num_bins", "max_dense"):
            _check_count(name, getattr(self, name), least=2 if name == "num_bins" else 1)
        if self.num_hidden is not None:
            _check_count("num_hidden", self.num_hidden)

    def width_for(self, size: int) -> int:
        """Width of the hidden layers for ``size`` coordinates; an autoregressive network needs ``size``."""
        width = max(32, 2 * size) if self.num_hidden is None else self.num_hidden
        return max(width, size) if self.kind == "autoregressive" else width


@dataclass(frozen=True)
class Amortized:
    """A Gaussian whose part for each datum's latents is a function of that datum; ``"amortized"`` is
    ``Amortized()``.

    On unconstrained space, with g the sites outside the data plate and u_n those of datum n inside it,

        g = loc + scale * T^-1 eps,    u_n = m(x_n) + s(x_n) * (L(x_n) eps_n + B T^-1 eps),

    where T and L are triangular with unit diagonals: of g the blocks of ``"structured"``, of each u_n a full
    block. An encoder gives m, log s and L of the datum's arguments along the data plate, flattened and
    standardised (missing entries count as their mean): m is a linear map plus a network, the others are a
    constant plus a network. B, one for all data, lets latents follow what is drawn for g. Where the exact
    posterior is Gaussian with means linear in x_n and in g, the guide contains it, with any network.

    Its params do not grow with the data, so that it takes minibatches, and other data later
    (:meth:`ppl_lvm.Fit.latents`). Kingma and Welling (2014) for the idea; Agrawal and Domke (2021) for models
    with both kinds of latents.

    Parameters
    ----------
    num_hidden
        Width of the hidden layers.
    num_layers
        Hidden layers; 0 leaves the network out: means are then linear, and scales the same for all data.
    """

    num_hidden: int = 32
    num_layers: int = 2

    def __post_init__(self) -> None:
        _check_count("num_hidden", self.num_hidden)
        _check_count("num_layers", self.num_layers, least=0)


SPLINE_BOUND = 5.0  # in sds of the noise; outside it a spline is the identity


def family_of(spec: Any) -> Any:
    """A name with settings as its dataclass; anything else as it is (None is the mean-field family)."""
    named = {
        None: "mean_field",
        "low_rank": LowRank(),
        "flow": Flow(),
        "spline": Flow("spline"),
        "amortized": Amortized(),
    }
    return named.get(spec, spec) if spec is None or isinstance(spec, str) else spec


def by_datum(spec: Any) -> bool:
    """Whether a guide treats the sites inside the data plate by datum."""
    return spec == "structured" or is_amortized(spec)


def is_amortized(spec: Any) -> bool:
    """Whether a guide's params are an encoder's, of any data."""
    return spec == "amortized" or isinstance(spec, Amortized)


def _check_count(field: str, value: Any, *, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{field}: expected an integer of at least {least}, got {value!r}.")
