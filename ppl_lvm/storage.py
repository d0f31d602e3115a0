"""Fits on disk: a folder of netCDF (draws), safetensors (parameters) and JSON (settings).

No pickle anywhere: nothing in the files is executed on loading. A folder holds

- ``fit.json``: format, engine and its settings, model and its settings, status, evidence, meta, and the
  sizes and digests of the other files;
- ``draws.nc``: groups posterior, sample_stats, and the engine's own;
- ``params.safetensors``: guide parameters, network weights, or the point;
- ``data.nc``: the program's array arguments, unless left out.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.core import AbstractModel, Engine, Evidence, Outcome, Status, as_model
from ppl_lvm.result import Fit
from ppl_lvm.storage_files import (
    check_marks,
    digest_of,
    mark_of,
    read_params,
    read_tree,
    text_of,
    write_bytes,
    write_params,
    write_tree,
)

if TYPE_CHECKING:
    import xarray as xr

logger = logging.getLogger("ppl_lvm")
FORMAT = 2
_TYPES: dict[str, Any] = {
    "backend": str,
    "engine": dict,
    "model": dict,
    "evidence": (dict, type(None)),
    "log_likelihood": (int, float, type(None)),
    "num_parameters": (int, type(None)),
    "status": dict,
    "meta": dict,
    "contents": dict,
    "files": dict,
    "digest": str,
}


def save(fit: Fit, path: str | Path, *, data: bool = True) -> Path:
    """Write the fit to the folder ``path`` (made if missing); see the module's page for the files.

    All files are written to a folder beside it, which then takes its place: an interrupted save leaves
    the previous one whole.

    Raises
    ------
    ValueError
        If ``path`` is a file, or a folder that holds something else.
    """
    folder = Path(path)
    if folder.is_file():
        raise ValueError(f"path: {folder} is a file; give the name of a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "fit.json").exists():
        raise ValueError(f"path: {folder} exists and holds something else; give an empty or new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _write(fit, fresh, data=data)
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _swap(fresh: Path, folder: Path) -> None:
    """Put the new folder in the place of the old one, which stays whole until then."""
    fresh.chmod(0o755)  # mkdtemp makes it private
    if not folder.exists():
        fresh.rename(folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        folder.rename(old / "fit")
        fresh.rename(folder)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _write(fit: Fit, folder: Path, *, data: bool) -> None:
    groups: dict[str, Any] = {} if fit.draws is None else {"posterior": fit.draws}
    if fit.sample_stats is not None:
        groups["sample_stats"] = fit.sample_stats
    groups |= dict(fit.groups)
    record = _record(fit)
    record["contents"] = {"groups": sorted(groups), "params": sorted(fit.params)}
    write_tree(folder / "draws.nc", groups)
    write_params(folder / "params.safetensors", fit.params)
    if data and fit.problem is not None:
        write_tree(folder / "data.nc", {"arguments": _data_group(fit)})
    record["files"] = {p.name: mark_of(p) for p in sorted(folder.iterdir())}
    record["digest"] = digest_of(record)
    write_bytes(folder / "fit.json", text_of(record).encode())


def load(path: str | Path, *, model: Any = None) -> Fit:
    """A saved fit. ``model`` is needed for a plain function's fit, which files cannot hold.

    Raises
    ------
    ValueError
        Naming the file, if it is missing, cut, altered, of another program, or of another format.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"path: no folder {folder}; give the folder that fit.save wrote.")
    record = _read_record(folder / "fit.json")
    try:
        check_marks(folder, record["files"])
        fit = _rebuild(record, model, folder)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'fit.json'}: damaged ({error!r}); save the fit again.") from None
    if (folder / "data.nc").exists():
        fit = dataclasses.replace(fit, problem=_problem_of(fit, folder / "data.nc"))
        _check_sites(fit, folder)
    return fit


def _check_sites(fit: Fit, folder: Path) -> None:
    """The model given for a plain function's fit must declare the sites of its draws."""
    if fit.problem is None or fit.draws is None:
        return
    zoo = fit.model.to_settings() is not None  # whose local sites are drawn again rather than kept
    wanted = {s.name for s in fit.problem.latents(discrete=False) if not (zoo and s.local)}
    if not wanted <= set(fit.draws.data_vars):
        raise ValueError(
            f"model: {fit.model.describe()} has the sites {sorted(wanted)}, and the fit in {folder} those of "
            f"another, {sorted(map(str, fit.draws.data_vars))}."
        )


def _rebuild(record: dict[str, Any], model: Any, folder: Path) -> Fit:
    """The fit without its data, from its record and files."""
    owner = _model_of(record, model, folder)
    engine = _engine_of(record["engine"], folder)
    if isinstance(getattr(engine, "guide", None), _NotSaved) and owner.pyro.guide is not None:
        engine = dataclasses.replace(engine, guide=None)  # type: ignore[call-arg]  # only SVI has guides
    contents = record["contents"]
    groups = read_tree(folder / "draws.nc")
    _check_contents(folder / "draws.nc", set(groups), set(contents["groups"]))
    params = read_params(folder / "params.safetensors")
    _check_contents(folder / "params.safetensors", set(params), set(contents["params"]))
    return Fit(
        model=owner,
        engine=engine,
        backend=record["backend"],
        problem=None,
        draws=groups.pop("posterior", None),
        params=params,
        evidence=_evidence_of(record["evidence"]),
        sample_stats=groups.pop("sample_stats", None),
        groups=groups,
        log_likelihood=record["log_likelihood"],
        num_parameters=record["num_parameters"],
        status=Status(
            Outcome[record["status"]["outcome"]],
            record["status"]["details"],
            tuple(record["status"]["messages"]),
        ),
        meta=dict(record["meta"]),
    )


def _check_contents(path: Path, found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        raise ValueError(f"{path}: of another fit: it holds {sorted(found)} instead of {sorted(wanted)}.")


# ---- what is written -----------------------------------------------------------------------------


def _record(fit: Fit) -> dict[str, Any]:
    evidence = dataclasses.asdict(fit.evidence) if fit.evidence is not None else None
    return {
        "format": FORMAT,
        "program": "ppl_lvm",
        "backend": fit.backend,
        "engine": _engine_record(fit.engine),
        "model": fit.model.to_settings() or {"model": None, "describe": fit.model.describe()},
        "evidence": evidence,
        "log_likelihood": fit.log_likelihood,
        "num_parameters": fit.num_parameters,
        "status": {
            "outcome": fit.status.outcome.name,
            "details": dict(fit.status.details),
            "messages": list(fit.status.messages),
        },
        "meta": dict(fit.meta),
    }


def _engine_record(engine: Engine) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for spec in dataclasses.fields(engine):
        value = getattr(engine, spec.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, (type, Fit)):
            settings[spec.name] = {"type": type(value).__name__, **dataclasses.asdict(value)}
        elif value is None or isinstance(value, (bool, int, float, str)):
            settings[spec.name] = value
        else:  # a guide function or a proposal fit: code and other fits are not part of this one
            settings[spec.name] = {"type": "omitted", "was": _short(value)}
    return {"type": type(engine).__name__, "settings": settings}


def _short(value: Any) -> str:
    return (
        f"{type(value.engine).__name__} fit"
        if isinstance(value, Fit)
        else getattr(value, "__name__", repr(value))
    )


def _data_group(fit: Fit) -> xr.Dataset:
    import xarray as xr

    problem = fit.problem
    if problem is None:
        raise ValueError("data: this fit has no data to save.")
    arrays = {
        k: xr.DataArray(np.asarray(v), dims=tuple(f"{k}_{i}" for i in range(np.ndim(v))))
        for k, v in problem.data.values.items()
        if isinstance(v, np.ndarray)
    }
    statics = {k: v for k, v in problem.data.values.items() if not isinstance(v, np.ndarray)}
    labels = {str(k): np.asarray(v).tolist() for k, v in {**problem.data.coords, **problem.coords}.items()}
    dims = {k: list(v) for k, v in problem.dims.items() if k in problem.sites}
    rows = problem.data.row_labels
    return xr.Dataset(
        arrays,
        attrs={
            "statics": json.dumps(statics),
            "labels": json.dumps(labels, default=str),
            "dims": json.dumps(dims),
            "rows": json.dumps(None if rows is None else np.asarray(rows).tolist(), default=str),
        },
    )


# ---- what is read --------------------------------------------------------------------------------


def _read_record(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ValueError(f"{path}: missing; this folder is not a fit saved by ppl_lvm.")
    try:
        content = path.read_text()
        record = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged or not JSON ({error}); save the fit again.") from None
    if not isinstance(record, dict) or record.get("program") != "ppl_lvm":
        raise ValueError(f"{path}: not written by ppl_lvm.")
    if record.get("format") != FORMAT:
        raise ValueError(
            f"{path}: format {record.get('format')}, and this version reads {FORMAT}; use the version that "
            "wrote it, or save the fit again."
        )
    wanted = set(_TYPES)
    if not wanted <= set(record):
        raise ValueError(f"{path}: damaged, {sorted(wanted - set(record))} are missing; save the fit again.")
    for key, kinds in _TYPES.items():
        if not isinstance(record[key], kinds):
            raise ValueError(f"{path}: damaged, {key!r} is {record[key]!r}; save the fit again.")
    if digest_of(record) != record["digest"] or text_of(record) != content:
        raise ValueError(f"{path}: altered since it was saved; save the fit again.")
    return record


def _model_of(record: dict[str, Any], model: Any, folder: Path) -> AbstractModel:
    saved = record["model"]
    if model is not None:
        return as_model(model)
    from ppl_lvm import models

    name = saved.get("model")
    if name is None:
        raise ValueError(
            f"{folder}: a fit of the plain function {saved.get('describe')!r}; pass it as "
            "lvm.load(path, model=function)."
        )
    if name not in models.__all__:
        raise ValueError(f"{folder / 'fit.json'}: unknown model {name!r}; upgrade ppl_lvm.")
    try:
        made: AbstractModel = getattr(models, name)(**{k: _tuples(v) for k, v in saved["settings"].items()})
        return made
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{folder / 'fit.json'}: the model's settings are damaged ({error}).") from None


def _tuples(value: Any) -> Any:
    """JSON has lists where settings have tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _engine_of(saved: dict[str, Any], folder: Path) -> Engine:
    from ppl_lvm import engines

    name = saved.get("type")
    if name not in engines.__all__:
        raise ValueError(f"{folder / 'fit.json'}: unknown engine {name!r}; upgrade ppl_lvm.")
    settings, omitted = {}, {}
    for key, value in saved.get("settings", {}).items():
        if isinstance(value, dict) and value.get("type") == "omitted":
            omitted[key] = str(value.get("was"))
            continue
        if isinstance(value, dict):
            inner = dict(value)
            value = getattr(engines, inner.pop("type"))(**inner)
        settings[key] = value
    try:
        engine: Engine = getattr(engines, name)(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'fit.json'}: the engine's settings are damaged ({error}).") from None
    for key, was in omitted.items():
        object.__setattr__(engine, key, _NotSaved(was))  # says what it was, and refuses to be used
    return engine


@dataclasses.dataclass(frozen=True)
class _NotSaved:
    """Stands for a function or another fit that a setting held: code is not saved."""

    was: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(
            f"guide: the function {self.was!r} was not saved with the fit; load it with "
            "lvm.load(path, model=lvm.Model(function, guide=...))."
        )


def _evidence_of(saved: dict[str, Any] | None) -> Evidence | None:
    if saved is None:
        return None
    try:
        return Evidence(**{**saved, "conditional_on": tuple(saved["conditional_on"])})
    except ValueError as error:
        raise KeyError(f"evidence: {error}") from None


def _problem_of(fit: Fit, path: Path) -> Any:
    from ppl_lvm.data import Data
    from ppl_lvm.fitting import prepare

    groups = read_tree(path)
    _check_contents(path, set(groups), {"arguments"})
    group = groups["arguments"]
    values = {str(k): v.values for k, v in group.data_vars.items()}
    values |= json.loads(group.attrs["statics"])
    labels, rows = json.loads(group.attrs["labels"]), json.loads(group.attrs["rows"])
    bound = Data(values, labels, None if rows is None else np.asarray(rows))
    dims = json.loads(group.attrs["dims"])
    try:
        return prepare(fit.model, bound, dims=dims, coords=labels, dtype=fit.meta.get("dtype"))
    except ValueError as error:
        if not str(error).startswith("dims"):
            raise
        raise ValueError(f"model: not the one of the saved fit, its sites differ ({error}).") from None
