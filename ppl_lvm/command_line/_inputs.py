"""From arguments to data, a model and engines; what cannot be is said in one line."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ppl_lvm.command_line._arguments import Options
from ppl_lvm.command_line._words import BadInput, one_line

# Option -> the models that take it, and its name there.
_MODEL_OPTIONS = {
    "num_components": ("gmm", "mixture"),
    "num_states": ("hmm",),
    "latent_dim": ("ppca", "factor_analysis"),
    "covariance": ("gmm",),
    "emission": ("mixture", "hmm"),
}
_CLASSES = {
    "gmm": "GaussianMixture",
    "mixture": "Mixture",
    "hmm": "HMM",
    "ppca": "PPCA",
    "factor_analysis": "FactorAnalysis",
    "em": "EM",
    "svi": "SVI",
    "is": "ImportanceSampling",
    "nuts": "NUTS",
    "smc": "SMC",
    "ais": "AIS",
}
_NEEDED = {"gmm": "num_components", "mixture": "num_components", "hmm": "num_states"}
_NEEDED |= dict.fromkeys(("ppca", "factor_analysis"), "latent_dim")


def read_data(path: Path, options: Options) -> Any:
    """A DataFrame or an array; with ``--sequence`` a list of frames."""
    found = _read(path)
    columns = getattr(options, "columns", None)
    sequence = getattr(options, "sequence", None)
    if (columns or sequence) and isinstance(found, np.ndarray):
        raise BadInput(f"{path}: an array has no named columns; leave out --columns and --sequence.")
    wanted = [*(columns or ()), *([sequence] if sequence else ())]
    missing = [c for c in wanted if c not in found]
    if missing:
        raise BadInput(f"{path}: no column {missing[0]!r}; there are {', '.join(map(str, found.columns))}.")
    if sequence:
        kept = list(columns) if columns else [c for c in found if c != sequence]
        return [rows[kept] for _, rows in found.groupby(sequence, sort=False)]
    return found[list(columns)] if columns else found


def check_held_out(model: Any, held_out: Any, options: Options) -> None:
    """Held-out rows that the model cannot take are found before anything is fitted."""
    if held_out is None:
        return
    try:
        model.bind(held_out, fitting=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"--held-out {options.held_out}: {one_line(error)}") from None


def _read(path: Path) -> Any:
    import pandas as pd

    if not path.is_file():
        raise BadInput(f"{path}: no such file.")
    kinds = {".csv": ",", ".tsv": "\t"}
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix in kinds:
            return pd.read_csv(path, sep=kinds[path.suffix])
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise BadInput(f"{path}: cannot be read ({one_line(error)}).") from None
    raise BadInput(f"{path}: expected a .csv, .tsv or .npy file.")


def make_model(options: Options) -> Any:
    """The model of the zoo that was asked for."""
    from ppl_lvm import emissions, models

    settings: dict[str, Any] = {}
    for name, takers in _MODEL_OPTIONS.items():
        value = getattr(options, name)
        if value is None:
            continue
        if options.model not in takers:
            raise BadInput(f"--{name.replace('_', '-')}: {options.model} does not take it.")
        settings[name] = value
    if settings.get(_NEEDED[options.model]) is None:
        raise BadInput(f"--model {options.model} needs --{_NEEDED[options.model].replace('_', '-')}.")
    if options.model == "mixture" and "emission" not in settings:
        raise BadInput("--model mixture needs --emission (for Gaussian components, gmm is faster).")
    if "emission" in settings:
        name = "".join(part.title() for part in settings["emission"].split("_"))
        settings["emission"] = getattr(emissions, name)()
    return _made(getattr(models, _CLASSES[options.model]), "model", settings, options)


def make_engine(name: str, options: Options, **settings: Any) -> Any:
    """An engine's settings: its defaults, and what ``--set`` says."""
    from ppl_lvm import engines

    return _made(getattr(engines, _CLASSES[name]), name, settings, options)


def _made(kind: Any, what: str, settings: dict[str, Any], options: Options) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    for owner, field, text in options.set:
        if owner != what:
            continue
        if field not in known:
            raise BadInput(f"--set {owner}.{field}: no such setting; there are {', '.join(sorted(known))}.")
        settings[field] = _literal(text)
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{what}: {one_line(error)}") from None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


__all__ = ["check_held_out", "make_engine", "make_model", "read_data"]
