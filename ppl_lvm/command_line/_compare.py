"""``compare``: one model, several engines; every fit is saved as soon as it is there."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from ppl_lvm.command_line._arguments import Options
from ppl_lvm.command_line._inputs import check_held_out, make_engine, make_model, read_data
from ppl_lvm.command_line._outcome import Outcome, finish
from ppl_lvm.command_line._words import BadInput, complain, one_line, progress


def run_compare(options: Options) -> int:
    """Fit, save, compare, report; returns the exit code."""
    from ppl_lvm.fitting import prepare

    out = options.out
    if out is None or (out.exists() and not out.is_dir()):
        raise BadInput(f"--out: {out} is not a folder.")
    data, model = read_data(options.data, options), make_model(options)
    held_out = None if options.held_out is None else read_data(options.held_out, options)
    engines = {name: make_engine(name, options) for name in _in_order(options.engines)}
    unused = [what for what, _, _ in options.set if what not in ("model", *engines)]
    if unused:
        raise BadInput(f"--set {unused[0]}....: {unused[0]} is not among --engines.")
    _check_reference(options)
    try:
        problem = prepare(model, data)
        reasons = {name: engine.check(problem) for name, engine in engines.items()}
    except (TypeError, ValueError) as error:
        raise BadInput(f"{options.data}: {one_line(error)}") from None
    check_held_out(model, held_out, options)
    refused = [f"{name}: {reason}." for name, reason in reasons.items() if reason]
    if refused:
        raise BadInput(" ".join(refused))
    fits, failed = _fit_all(engines, model, data, options, out / "fits")
    outcome = Outcome(fits, failed, _reference(options, fits), held_out, out / "report.html", out)
    return finish(outcome, strict=options.strict, quiet=options.quiet)


def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """As given, but importance sampling after the guide that proposes for it."""
    return (*(n for n in names if n != "is"), *(n for n in names if n == "is"))


def _check_reference(options: Options) -> None:
    if options.reference not in (None, "none", *options.engines):
        raise BadInput(f"--reference: {options.reference!r} is not among --engines.")
    if options.reference == "em":
        raise BadInput("--reference: em gives a point without a posterior; use nuts.")


def _reference(options: Options, fits: dict[str, Any]) -> str | None:
    if options.reference == "none":
        return None
    wanted = options.reference or "nuts"
    if options.reference and wanted not in fits:
        complain(f"the reference {wanted} failed; comparing without one")
    return wanted if wanted in fits else None


def _fit_all(
    engines: dict[str, Any], model: Any, data: Any, options: Options, folder: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Fits by name, and the reasons of those that failed."""
    import dataclasses

    from ppl_lvm.fitting import fit

    fits: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for i, (name, engine) in enumerate(engines.items(), start=1):
        progress(f"{name}: fitting ({i} of {len(engines)})", quiet=options.quiet)
        if name == "is" and "svi" in fits and engine.proposal == type(engine)().proposal:
            engine = dataclasses.replace(engine, proposal=fits["svi"])
        try:
            found = fit(model, data, engine, seed=options.seed, progress=False if options.quiet else None)
            found.save(folder / name)
        except Exception as error:  # whatever a library raises: the others go on, and the trace is kept
            failed[name] = one_line(error)
            complain(f"{name} failed: {failed[name]}")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.failed.txt").write_text(traceback.format_exc(), "utf-8")
            continue
        (folder / f"{name}.failed.txt").unlink(missing_ok=True)
        fits[name] = found
        progress(f"{name}: {found.meta['wall_seconds']:.1f} s, {found.status}", quiet=options.quiet)
    return fits, failed


__all__ = ["run_compare"]
