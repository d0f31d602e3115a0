"""Checkpoints of a long run: one safetensors file, replaced as a whole, or one for each part that is done.

A file holds arrays only, and as metadata one JSON text; nothing in it is executed on loading. It is written
to a temporary file beside it, flushed to disk and renamed, so that whenever the process ends there is one
whole checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppl_lvm.streams import in_blocks

Arrays = dict[str, np.ndarray]
_LOG = logging.getLogger("ppl_lvm")
_NAME = "checkpoint.safetensors"


class Checkpoint:
    """The checkpoint in a folder, of the run that ``identity`` describes (plain values by name).

    Raises
    ------
    ValueError
        If the folder cannot be written to, or holds the checkpoint of another run.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.path = Path(folder) / _NAME
        self.identity = {k: str(v) for k, v in identity.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            probe = self.path.with_suffix(f".{os.getpid()}.probe")
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            raise ValueError(f"checkpoint: cannot write to {self.path.parent} ({error.strerror}); "
                             "give another folder.") from None  # fmt: skip

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Arrays and record of the last checkpoint; None where there is none yet."""
        self.refuse_others()
        return self._read(self.path, arrays=True) if self.path.exists() else None

    def parts(self) -> dict[str, Arrays]:
        """Arrays of the parts that were saved, by name."""
        found = {}
        for path in self._files():
            arrays, record = self._read(path, arrays=path != self.path)
            if path != self.path:
                found[str(record.get("part"))] = arrays
        return found

    def refuse_others(self) -> None:
        """Raise ``ValueError`` if the folder holds another run's checkpoint, without reading its arrays."""
        for path in self._files():
            self._read(path, arrays=False)

    def _files(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.stem}*{self.path.suffix}"))

    def _read(self, path: Path, *, arrays: bool) -> tuple[Arrays, dict[str, Any]]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                meta = json.loads((file.metadata() or {})["ppl_lvm"])
                found = {k: file.get_tensor(k) for k in (file.keys() if arrays else ())}
            identity, record = dict(meta["identity"]), dict(meta["record"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"checkpoint: {path} is damaged ({type(error).__name__}); remove it to start again."
            ) from None
        changed = sorted(k for k in {*identity, *self.identity} if identity.get(k) != self.identity.get(k))
        if changed:
            shown = "; ".join(f"{k} was {identity.get(k)}, is {self.identity.get(k)}" for k in changed)
            raise ValueError(
                f"checkpoint: {self.path.parent} holds another run ({shown}); give the same settings, or "
                "another folder."
            )
        return found, record

    def save(
        self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any], path: Path | None = None
    ) -> None:
        """Replace the checkpoint (or a part's file); raises ``OSError`` with the previous one left whole."""
        from safetensors.numpy import save as to_bytes

        meta = {"ppl_lvm": json.dumps({"identity": self.identity, "record": dict(record)})}
        # np.ascontiguousarray would make numbers arrays of one entry, and another program of what follows
        content = to_bytes({k: np.array(v, order="C") for k, v in arrays.items()}, metadata=meta)
        path = self.path if path is None else path
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with open(fresh, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise

    def save_or_warn(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any], what: str) -> None:
        """:meth:`save`; where that fails (a full disk), a warning that the previous one is whole and ``what``
        goes on."""
        self._or_warn(arrays, record, self.path, f"the previous one is whole, and {what} goes on")

    def save_part_or_warn(self, name: str, arrays: Mapping[str, np.ndarray], what: str) -> None:
        """A part of the run, once and for all, in a file of its own: what is written grows with their number.

        Where that fails, a warning that ``what`` goes on.
        """
        path = self.path.with_stem(f"{self.path.stem}_{name.replace(' ', '_')}")
        self._or_warn(arrays, {"part": name}, path, f"those before it are whole, and {what} goes on")

    def _or_warn(self, arrays: Mapping[str, np.ndarray], record: Any, path: Path, goes_on: str) -> None:
        try:
            self.save(arrays, record, path)
        except OSError as error:
            _LOG.warning("checkpoint: %s could not be written (%s); %s", path, error.strerror, goes_on)


def digest(values: Mapping[str, Any]) -> str:
    """A fingerprint of arrays and static values by name."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(values.items()):
        found.update(name.encode())
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype} {value.shape}".encode())
            for block in in_blocks(value) if isinstance(value, np.memmap) else (value,):
                found.update(np.ascontiguousarray(block).view(np.uint8).data)
        else:
            found.update(repr(value).encode())
    return found.hexdigest()
