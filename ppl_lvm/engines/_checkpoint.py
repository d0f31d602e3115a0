"""Checkpoints of a long run: one safetensors file, replaced as a whole.

The file holds arrays only, and as metadata one JSON text; nothing in it is executed on loading. It is written
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
        return self._read(arrays=True)

    def refuse_others(self) -> None:
        """Raise ``ValueError`` if the folder holds another run's checkpoint, without reading its arrays."""
        self._read(arrays=False)

    def _read(self, *, arrays: bool) -> tuple[Arrays, dict[str, Any]] | None:
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="numpy") as file:
                meta = json.loads((file.metadata() or {})["ppl_lvm"])
                found = {k: file.get_tensor(k) for k in (file.keys() if arrays else ())}
            identity, record = dict(meta["identity"]), dict(meta["record"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"checkpoint: {self.path} is damaged ({type(error).__name__}); remove it to start again."
            ) from None
        changed = sorted(k for k in {*identity, *self.identity} if identity.get(k) != self.identity.get(k))
        if changed:
            shown = "; ".join(f"{k} was {identity.get(k)}, is {self.identity.get(k)}" for k in changed)
            raise ValueError(
                f"checkpoint: {self.path.parent} holds another run ({shown}); give the same settings, or "
                "another folder."
            )
        return found, record

    def save(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
        """Replace the checkpoint; raises ``OSError`` with the previous one left whole."""
        from safetensors.numpy import save as to_bytes

        meta = {"ppl_lvm": json.dumps({"identity": self.identity, "record": dict(record)})}
        # np.ascontiguousarray would make numbers arrays of one entry, and another program of what follows
        content = to_bytes({k: np.array(v, order="C") for k, v in arrays.items()}, metadata=meta)
        fresh = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with open(fresh, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise

    def save_or_warn(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any], what: str) -> None:
        """:meth:`save`; where that fails (a full disk), a warning that the previous one is whole and ``what``
        goes on."""
        try:
            self.save(arrays, record)
        except OSError as error:
            _LOG.warning(
                "checkpoint: %s could not be written (%s); the previous one is whole, and %s goes on",
                self.path,
                error.strerror,
                what,
            )


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
