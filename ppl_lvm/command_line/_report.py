"""``report``: the report of fits that were saved before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppl_lvm.command_line._arguments import Options
from ppl_lvm.command_line._inputs import check_held_out, read_data
from ppl_lvm.command_line._outcome import Outcome, finish
from ppl_lvm.command_line._words import BadInput, one_line


def run_report(options: Options) -> int:
    """Load, compare, report; returns the exit code."""
    fits = _load_all(options.folders)
    reference = options.reference or ("nuts" if "nuts" in fits else None)
    if reference not in (None, "none", *fits):
        raise BadInput(f"--reference: no fit {reference!r}; the fits are {', '.join(fits)}.")
    if reference not in (None, "none") and fits[str(reference)].is_point:
        raise BadInput(f"--reference: {reference} is a point without a posterior; use a fit by nuts.")
    held_out = None if options.held_out is None else read_data(options.held_out, options)
    if held_out is not None:
        check_held_out(next(iter(fits.values())).model, held_out, options)
    target = options.out or _default(options.folders[0])
    if target.is_dir():
        raise BadInput(f"--out: {target} is a folder; give the name of a file, such as report.html.")
    outcome = Outcome(fits, {}, None if reference == "none" else reference, held_out, target, None)
    return finish(outcome, strict=options.strict)


def _default(folder: Path) -> Path:
    """Beside the fits, never inside one: a fit's folder is replaced as a whole when it is saved again."""
    home = folder.parent if (folder / "fit.json").exists() else folder
    return home / "report.html"


def _load_all(folders: list[Path]) -> dict[str, Any]:
    from ppl_lvm.storage import load

    found: dict[str, Any] = {}
    for folder in folders:
        for path in _saved(folder):
            name = path.resolve().name
            if name in found:
                name = f"{path.resolve().parent.name}/{name}"
            if name in found:
                raise BadInput(f"{path}: another fit is called {name!r} too; rename the folder.")
            try:
                found[name] = load(path)
            except ValueError as error:
                raise BadInput(one_line(error)) from None
    return found


def _saved(folder: Path) -> list[Path]:
    """The folders of fits in a folder: itself, those in it, or those in its folder ``fits``."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder.")
    if (folder / "fit.json").exists():
        return [folder]
    for home in (folder / "fits", folder):
        found = sorted(p.parent for p in home.glob("*/fit.json") if not p.parent.name.startswith("."))
        if found:
            return found
    raise BadInput(f"{folder}: holds no saved fit; give what fit.save wrote, or compare's --out.")


__all__ = ["run_report"]
