"""What shapes a factor model's programs: sites, sizes, how loadings are put together. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Array = np.ndarray
Mask = tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class Structure:
    """Static settings of a factor model; hashable, so that compiled programs are found again.

    ``tied``: one noise sd for all columns (PPCA). ``fixed_scale``: the noise sd is given, no site;
    ``degenerate``: it is 0 (ordinary PCA), so that there is no density.
    """

    latent_dim: int
    tied: bool = False
    ard: bool = False
    mask: Mask | None = None
    correlated: bool = False
    fixed_scale: bool = False
    degenerate: bool = False

    @property
    def form(self) -> Literal["rotation", "ard", "mask"]:
        """How the loadings are parametrised: lower-trapezoidal, free with ARD columns, or masked."""
        return "ard" if self.ard else "mask" if self.mask is not None else "rotation"

    @property
    def has_factor_corr(self) -> bool:
        return self.correlated and self.latent_dim > 1

    def lower(self, num_columns: int) -> tuple[Array, Array]:
        """Rows (anchors first) and columns of the entries below the diagonal of the (d, q) loadings."""
        return np.tril_indices(num_columns, -1, self.latent_dim)

    def free(self) -> tuple[Array, Array]:
        """Rows and columns that the mask leaves free."""
        rows, columns = np.nonzero(np.asarray(self.mask))
        return rows, columns

    def index(self, num_columns: int) -> Array:
        """Where entry (row, column) of the loadings stands among their free values and one zero, (d, q).

        The free values are ``loadings_diag`` then ``loadings_lower`` (rows with the anchors first), or
        ``loadings_free``; the zero comes last.
        """
        d, q = num_columns, self.latent_dim
        if self.form == "mask":
            rows, columns = self.free()
            table = np.full((d, q), len(rows))
            table[rows, columns] = np.arange(len(rows))
            return table
        rows, columns = self.lower(d)
        table = np.full((d, q), q + len(rows))
        table[np.arange(q), np.arange(q)] = np.arange(q)
        table[rows, columns] = q + np.arange(len(rows))
        return table

    def num_loadings(self, num_columns: int) -> int:
        """Free loadings, less the turns that leave the model the same."""
        d, q = num_columns, self.latent_dim
        return len(self.free()[0]) if self.form == "mask" else d * q - q * (q - 1) // 2

    def num_parameters(self, num_columns: int) -> int:
        """Free parameters of the likelihood: means, loadings, factor correlations and noise."""
        q = self.latent_dim
        noise = 0 if self.fixed_scale else 1 if self.tied else num_columns
        corr = q * (q - 1) // 2 if self.has_factor_corr else 0
        return num_columns + self.num_loadings(num_columns) + corr + noise
