"""The bridge to arviz-plots: its plots on axes of ours, so that no pyplot figure is ever opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    import xarray as xr


def collection(figure: Figure, axes: Mapping[str, Axes], draws: xr.Dataset, **aes: Any) -> Any:
    """An arviz-plots PlotCollection that draws each variable of ``draws`` on the axes of its name.

    ``aes`` maps aesthetics to (dimensions, values), as ``color=(["chain"], colours)``.
    """
    import xarray as xr
    from arviz_plots import PlotCollection

    names = [str(v) for v in draws.data_vars]
    plots = xr.Dataset({n: ((), _boxed(axes[n])) for n in names})
    zero = xr.Dataset(dict.fromkeys(names, ((), 0)))
    tree = xr.DataTree(
        xr.Dataset({"figure": ((), _boxed(figure))}),
        children={"plot": xr.DataTree(plots), "row_index": xr.DataTree(zero), "col_index": xr.DataTree(zero)},
    )
    dims = {k: v[0] for k, v in aes.items()}
    values = {k: v[1] for k, v in aes.items() if v[1] is not None}
    return PlotCollection(draws, tree, aes=dims, backend="matplotlib", **values)


def _boxed(item: Any) -> np.ndarray:
    """A zero-dimensional object array; np.array() would look inside the item."""
    box = np.empty((), dtype=object)
    box[()] = item
    return box


__all__ = ["collection"]
