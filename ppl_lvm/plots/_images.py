"""Data as tiles: how a datum is drawn, and its shades by likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize, TwoSlopeNorm

from ppl_lvm.amortised import is_amortised
from ppl_lvm.data import is_dataframe
from ppl_lvm.plots._style import SHADE
from ppl_lvm.predictive import observed_values, problem_at
from ppl_lvm.result import Fit

Shape = tuple[int, ...]
_LINE = "#aab2bb"
"""Between rows of cells whose own shades are pale around zero."""
_UNIT = ("bernoulli", "continuous_bernoulli")
_MEANS = {
    "bernoulli": "probability of a 1",
    "continuous_bernoulli": "mean, 0 to 1",
    "poisson": "mean count",
    "categorical": "most probable category",
}


@dataclass(frozen=True)
class Tiles:
    """How the data of one fit become tiles.

    ``shape`` is that of a datum, ``image`` what a datum is drawn as: (d,), (h, w) or (c, h, w).
    """

    fit: Fit
    shape: Shape
    image: Shape
    likelihood: str
    num_categories: int | None

    @property
    def strips(self) -> bool:
        """Whether data are vectors, drawn as one column of cells each."""
        return len(self.image) == 1

    @property
    def colour(self) -> bool:
        return len(self.image) == 3 and self.image[0] == 3

    def of(self, values: np.ndarray) -> np.ndarray:
        """(m, height, width) numbers, or (m, height, width, 3) for colours, of data or means (m, *shape)."""
        if values.ndim > len(self.shape) + 1:  # probabilities of categories
            values = values.argmax(-1)
        values = np.asarray(values, dtype=float).reshape(len(values), *self.image)
        if self.strips:
            return values[:, :, None]
        if len(self.image) == 2:
            return values
        if self.colour:
            return np.moveaxis(values, 1, -1)
        return np.concatenate([values[:, c] for c in range(self.image[0])], axis=2)

    def rows(self, name: str, data: Any) -> np.ndarray:
        """A datum or several, as (m, *shape)."""
        values = self.seen(data) if is_dataframe(data) else np.asarray(data)
        if values.shape == self.shape:
            values = values[None]
        if values.shape[1:] != self.shape or not len(values):
            shape = ", ".join(map(str, self.shape))
            raise ValueError(
                f"{name}: expected a datum of shape ({shape}) or several, (m, {shape}), got {values.shape}."
            )
        return values

    def seen(self, data: Any) -> np.ndarray:
        """Data (None: the fit's own) as the encoder sees them, (m, *shape)."""
        return next(iter(observed_values(problem_at(self.fit, data)).values()))

    def decoded(self, z: np.ndarray) -> np.ndarray:
        """Means of p(x | z) at z (rows, columns, q), as tiles (rows, columns, height, width[, 3])."""
        found = self.of(self.fit.inverse_transform(z.reshape(-1, z.shape[-1])))
        return found.reshape(*z.shape[:2], *found.shape[1:])

    def note(self) -> str:
        """What the reader has to know of the tiles, as sentences; may be empty."""
        if self.strips:
            return f" A column of cells is a datum, feature 0 on top of {self.image[0]}."
        if self.colour and self.likelihood not in _UNIT:
            return " Colours go from the least to the greatest value shown."
        if len(self.image) == 3 and self.image[0] not in (1, 3):
            return f" The {self.image[0]} channels stand side by side."
        return ""


def tiles_of(name: str, fit: Any, image_shape: Sequence[int] | None) -> Tiles:
    """The tiles of a fit of a model with encoder and decoder.

    Raises
    ------
    TypeError, ValueError
        For something else than such a fit, or an ``image_shape`` that does not hold a datum.
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"{name}: expected a Fit, got {type(fit).__name__}.")
    if not is_amortised(fit):
        raise ValueError(
            f"{name}: {fit.model.describe()} by {type(fit.engine).__name__} has no encoder and decoder; pass "
            "a fit of models.VAE, or of an amortised model trained by epochs."
        )
    shape = _datum_shape(fit)
    image = _image_shape(shape, image_shape)
    likelihood = str(getattr(fit.model, "likelihood", ""))
    return Tiles(fit, shape, image, likelihood, getattr(fit.model, "num_categories", None))


def _datum_shape(fit: Fit) -> Shape:
    own = getattr(fit.model, "image", None)
    if own is not None:
        return tuple(own)
    sites = fit.problem.sites.values() if fit.problem is not None else ()
    return next((s.shape[1:] for s in sites if s.kind == "observed"), ())


def _image_shape(shape: Shape, asked: Sequence[int] | None) -> Shape:
    image = shape if asked is None else tuple(int(v) for v in asked)
    if asked is not None and (len(image) not in (2, 3) or math.prod(image) != math.prod(shape)):
        raise ValueError(
            f"image_shape: expected (height, width) or (channels, height, width) with {math.prod(shape)} "
            f"entries, as a datum of shape {shape} has, got {image}."
        )
    if len(image) not in (1, 2, 3):
        raise ValueError(f"image_shape: a datum of shape {shape} is no image; say how to draw it.")
    return image


# ---- shades --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shades:
    """A colour map with its limits, and the colour bar's label and ticks."""

    cmap: Colormap
    norm: Any
    label: str
    ticks: Any = None


def shades_of(tiles: Tiles, shown: np.ndarray, *, draws: bool = False) -> Shades:
    """One scale for all that is shown: fixed where the likelihood has a range, else from the values."""
    label = "value" if draws else _MEANS.get(tiles.likelihood, "mean")
    if tiles.likelihood == "categorical":
        return _categories(tiles.num_categories or int(shown.max()) + 1, "category" if draws else label)
    low, high = (0.0, 1.0) if tiles.likelihood in _UNIT else (float(shown.min()), float(shown.max()))
    if tiles.likelihood == "poisson":
        low = 0.0
    if high <= low:
        high = low + 1.0
    if tiles.strips and low < 0 < high:
        far = max(-low, high)
        return Shades(_with_gaps(colormaps["RdBu_r"], _LINE), TwoSlopeNorm(0.0, -far, far), label)
    return Shades(_with_gaps(colormaps["gray_r"]), Normalize(low, high), label)


def _categories(count: int, label: str) -> Shades:
    colours = colormaps["viridis"](np.linspace(0, 1, max(count, 2)))
    every = -(-count // 12)
    norm = BoundaryNorm(np.arange(max(count, 2) + 1) - 0.5, max(count, 2))
    return Shades(_with_gaps(ListedColormap(colours)), norm, label, np.arange(0, count, every))


def _with_gaps(cmap: Colormap, colour: str = SHADE) -> Colormap:
    return cmap.with_extremes(bad=colour)


__all__ = ["Shades", "Shape", "Tiles", "shades_of", "tiles_of"]
