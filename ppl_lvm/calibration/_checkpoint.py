"""Finished simulations on disk, one file each, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ppl_lvm.calibration._simulate import Task
from ppl_lvm.fitting import prepare

FORMAT = 1
_PARTS = ("rank", "pit", "truth")


class Checkpoint:
    """A folder: ``calibration.json`` says what is run, ``simulation-000012.npz`` holds one that is finished.

    A file is written under a temporary name and then renamed: one that has its name is whole.

    Raises
    ------
    ValueError
        If the folder holds something else, or simulations of another model, engine, data set or seed.
    """

    def __init__(self, path: str | Path, task: Task) -> None:
        self.folder = Path(path)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"checkpoint: {self.folder} is a file; give the name of a folder.")
        about, mine = self.folder / "calibration.json", describe(task)
        if about.exists():
            _check_same(json.loads(about.read_text("utf-8")), mine, self.folder)
            return
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise ValueError(
                f"checkpoint: {self.folder} exists and holds something else; give an empty or new folder."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(about, json.dumps(mine, indent=1).encode())

    def path(self, number: int) -> Path:
        return self.folder / f"simulation-{number:06d}.npz"

    def save(self, number: int, record: dict[str, Any]) -> None:
        """Store one simulation; those that failed are not stored, so that the next run tries them again."""
        if record["error"]:
            return
        arrays = {f"{part}/{name}": v for part in _PARTS for name, v in record[part].items()}
        plain = {k: np.asarray(v) for k, v in record.items() if k not in _PARTS}
        target = self.path(number)
        fresh = target.with_name(f".{target.name}-{os.getpid()}")
        with fresh.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays, **plain)
        fresh.replace(target)

    def load(self, number: int) -> dict[str, Any] | None:
        """A finished simulation, or None."""
        target = self.path(number)
        if not target.exists():
            return None
        try:
            with np.load(target, allow_pickle=False) as stored:
                found = {k: stored[k] for k in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"checkpoint: {target} is damaged ({error}); delete it and run again.") from None
        record: dict[str, Any] = {part: {} for part in _PARTS}
        for key, value in found.items():
            part, slash, name = key.partition("/")
            if slash:
                record[part][name] = value
            else:
                record[key] = value.item()
        return record


def describe(task: Task) -> dict[str, Any]:
    """What must be the same for simulations to belong together; the number of them need not be."""
    return {
        "format": FORMAT,
        "model": _model_words(task.model),
        "simulator": _model_words(task.simulator),
        "engine": _plain(task.engine),
        "data": _data_hash(task),
        "seed": task.seed,
        "num_draws": task.num_draws,
        "dtype": task.dtype,
        "init": _plain(task.init),
    }


def _model_words(model: Any) -> str:
    settings = model.to_settings()
    if settings is not None:
        return _plain(settings)
    program = getattr(model.pyro.model, "__wrapped__", model.pyro.model)
    code = getattr(program, "__code__", None)
    body = (
        "" if code is None else hashlib.sha256(code.co_code + repr(code.co_names).encode()).hexdigest()[:16]
    )
    constants = "" if code is None else _plain([c for c in code.co_consts if not hasattr(c, "co_code")])
    return " ".join([model.describe(), body, constants]).strip()


def _plain(value: Any) -> str:
    """repr without addresses in memory, which differ from one process to the next."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _data_hash(task: Task) -> str:
    found = hashlib.sha256()
    problem = prepare(task.model, task.data, dtype=task.dtype)
    for name, value in sorted((problem.model.fingerprint(problem.data) or problem.data.values).items()):
        found.update(name.encode())
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        elif value is None or isinstance(value, (bool, int, float, str)):
            found.update(repr(value).encode())
    return found.hexdigest()[:32]


def _check_same(stored: dict[str, Any], mine: dict[str, Any], folder: Path) -> None:
    differ = [k for k in mine if stored.get(k) != mine[k]]
    if differ:
        k = differ[0]
        raise ValueError(
            f"checkpoint: {folder} holds simulations with another {k} ({stored.get(k)!r}, now {mine[k]!r}); "
            "give a new folder."
        )


def _write(target: Path, content: bytes) -> None:
    fresh = target.with_name(f".{target.name}-{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(target)
