"""The data of the examples: from a folder where there is one, else from scikit-learn.

The folder is that named by the environment variable PPL_LVM_DATA, else ``shared/data`` beside the checkout.
Its data are not part of the repository. Every example has a variant on real data that scikit-learn bundles.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray


def find(name: str, *, bundled: bool) -> Path | None:
    """The file ``name`` (folder/file) of the data folder; None if there is none or ``bundled`` is wanted.

    Raises
    ------
    FileNotFoundError
        If PPL_LVM_DATA is set and is not a folder.
    """
    if bundled:
        return None
    named = os.environ.get("PPL_LVM_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if named and not folder.is_dir():
        raise FileNotFoundError(f"PPL_LVM_DATA={named!r} is not a folder: correct it or unset it.")
    path = folder / name
    return path if path.is_file() else None


@dataclass(frozen=True)
class Rows:
    """A table ``x`` (a DataFrame), what it is, and where known the class of each row."""

    title: str
    x: Any
    labels: Array | None = None


def unpack_bits(packed: Array, columns: int) -> Array:
    """Rows of bits, packed along their columns, as 0.0 and 1.0."""
    return np.unpackbits(packed, axis=1)[:, :columns].astype(float)


def wine() -> Rows:
    """178 wines from three cultivars, 13 chemical measurements, each standardised."""
    from sklearn.datasets import load_wine

    found = load_wine(as_frame=True)
    x = (found.data - found.data.mean()) / found.data.std()
    short = {"od280/od315_of_diluted_wines": "od280/od315", "nonflavanoid_phenols": "nonflav_phenols"}
    names = np.array([f"cultivar {i}" for i in found.target])
    return Rows("wine: 178 bottles, 13 measurements, standardised", x.rename(columns=short), names)


def digit_images() -> tuple[Array, Array]:
    """1797 handwritten digits as images (n, 8, 8) of counts from 0 to 16, and which digit each is."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images, found.target
