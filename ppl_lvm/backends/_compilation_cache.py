"""JAX's cache of compiled programs on disk, switched on while a run lasts and put back as it was.

A model compiled in one process is not compiled again in the next. Where a user has chosen a folder
(``JAX_COMPILATION_CACHE_DIR`` or ``jax.config``) nothing is touched. ``PPL_LVM_CACHE`` names another folder
than the default in the user's cache folder; ``PPL_LVM_CACHE=off`` leaves programs in memory only.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import sys
import threading
from pathlib import Path
from typing import Any

_LOG = logging.getLogger("ppl_lvm")
_MOST_BYTES = 2 * 1024**3  # beyond this the programs that were used longest ago go


class CompilationCache:
    """Shared by all sessions in flight: the first switches it on, the last puts the options back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._before: dict[str, Any] | None = None

    def enter(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._before = _switch_on()

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._before is not None:
                _set(self._before)
                self._before = None


COMPILED = CompilationCache()


def _switch_on() -> dict[str, Any] | None:
    """Set the options; what they were, or None where nothing was changed."""
    import jax

    config: Any = jax.config
    folder = cache_folder() if config.jax_compilation_cache_dir is None else None
    if folder is None:
        return None
    options: dict[str, Any] = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_persistent_cache_enable_xla_caches": "none",
    }
    before = {name: getattr(config, name) for name in options}
    _set(options)
    return before


def _set(options: dict[str, Any]) -> None:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # it keeps the folder that it was first used with


@functools.cache
def cache_folder() -> str | None:
    """The folder for this JAX and kind of processor, made if need be; None where it cannot be written."""
    chosen = os.environ.get("PPL_LVM_CACHE", "")
    if chosen.lower() in ("off", "0", "none"):
        return None
    folder = (Path(chosen) if chosen else _user_cache() / "ppl_lvm") / "jax" / _kind()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
        _prune(folder)
    except OSError as error:
        _LOG.info("compiled programs are kept in memory only, for %s cannot be written: %s", folder, error)
        return None
    return str(folder)


def _prune(folder: Path) -> None:
    """Once a process, by the time of last use. (JAX's own bound fails where a process died while writing.)"""
    files = [(f, f.stat()) for f in folder.iterdir() if f.is_file()]
    excess = sum(s.st_size for _, s in files) - _MOST_BYTES
    for file, status in sorted(files, key=lambda pair: max(pair[1].st_atime, pair[1].st_mtime)):
        if excess <= 0:
            return
        file.unlink(missing_ok=True)
        excess -= status.st_size


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _kind() -> str:
    """JAX's version and the processor's features: programs compiled for others may not run here."""
    import jax

    features = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass
    text = f"{platform.machine()} {platform.processor()} {features}"
    return f"{jax.__version__}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
