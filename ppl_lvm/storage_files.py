"""The files of a saved fit: netCDF trees, safetensors and JSON, read without running anything in them.

Every file's size and digest stand in ``fit.json``, which has a digest of its own: what was cut or altered is
refused before a parser sees it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

Mark = dict[str, Any]


def mark_of(path: Path) -> Mark:
    """Size and BLAKE2b digest of a file."""
    content = path.read_bytes()
    return {"bytes": len(content), "blake2b": hashlib.blake2b(content, digest_size=16).hexdigest()}


def text_of(record: Mapping[str, Any]) -> str:
    """The one way in which a record is written."""
    return json.dumps(record, indent=1)


def digest_of(record: Mapping[str, Any]) -> str:
    """A digest of a record's content, without that of its entry ``digest``."""
    rest = {k: v for k, v in record.items() if k != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def check_marks(folder: Path, marks: Mapping[str, Mark]) -> None:
    """Every file of a fit that is there is the one that was saved.

    Raises
    ------
    ValueError
        Naming a file that was altered, or that the fit was not saved with.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".nc", ".safetensors"):
            continue
        if path.name not in marks:
            raise ValueError(f"{path}: of another fit; remove it, or save the fit again.")
        size = path.stat().st_size
        wanted = marks[path.name]
        if size != wanted["bytes"] or mark_of(path) != wanted:
            raise ValueError(
                f"{path}: damaged or of another fit ({size} bytes; {wanted['bytes']} were saved); save "
                "the fit again."
            )


def write_tree(path: Path, groups: dict[str, Any]) -> None:
    import xarray as xr

    xr.DataTree.from_dict({k: _plain(v) for k, v in groups.items()}).to_netcdf(path, engine="h5netcdf")


def _plain(dataset: xr.Dataset) -> xr.Dataset:
    """netCDF has no booleans: they travel as int8 and come back by their attribute."""
    out = dataset.copy()
    for name, var in dataset.data_vars.items():
        if var.dtype == bool:
            out[name] = var.astype("int8").assign_attrs(dtype_was="bool")
    for name, coord in dataset.coords.items():
        if coord.dtype == object:
            out = out.assign_coords({name: coord.astype(str)})
    return out


def read_tree(path: Path) -> dict[str, Any]:
    import xarray as xr

    if not path.exists():
        raise ValueError(f"{path}: missing; save the fit again.")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            groups = {name: node.to_dataset().load() for name, node in tree.children.items()}
    except Exception as error:  # h5py raises many kinds on damaged files
        raise ValueError(
            f"{path}: damaged or not netCDF ({type(error).__name__}); save the fit again."
        ) from None
    for name, dataset in groups.items():
        for key, var in dataset.data_vars.items():
            if var.attrs.get("dtype_was") == "bool":
                groups[name] = groups[name].assign({key: var.astype(bool).drop_attrs()})
    return groups


def write_params(path: Path, params: Any) -> None:
    from safetensors.numpy import save as to_bytes

    write_bytes(path, to_bytes({k: np.array(v, order="C") for k, v in params.items()}))


def read_params(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.exists():
        raise ValueError(f"{path}: missing; save the fit again.")
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged or not safetensors ({error}); save the fit again.") from None


def write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
