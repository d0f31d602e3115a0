"""What every command that has fits ends with: the comparison, its files, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppl_lvm.command_line._words import complain, one_line, progress, result


@dataclass(frozen=True)
class Outcome:
    """Fits by name, reasons of those that failed, and where things go (``tables`` None: no tables)."""

    fits: Mapping[str, Any]
    failed: Mapping[str, str]
    reference: str | None
    held_out: Any
    report: Path
    tables: Path | None


def finish(outcome: Outcome, *, strict: bool, quiet: bool = False) -> int:
    """Compare, write, say; 0, or 1 where something failed, or 3 for a do_not_trust if ``strict``."""
    from ppl_lvm.comparison import compare

    if not outcome.fits:
        complain("no fit is left to compare")
        return 1
    try:
        comparison = compare(outcome.fits, outcome.reference, data=outcome.held_out)
        if outcome.tables is not None:
            _write_tables(comparison, outcome.tables)
        comparison.to_html(outcome.report)
    except (TypeError, ValueError, OSError) as error:
        complain(f"the comparison failed: {one_line(error)}")
        return 1
    result(repr(comparison))
    progress(f"report: {outcome.report}", quiet=quiet)
    if outcome.failed:
        return 1
    distrusted = any(v.level == "do_not_trust" for v in comparison.verdicts.values())
    return 3 if strict and distrusted else 0


def _write_tables(comparison: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    comparison.table.to_csv(folder / "table.csv")
    comparison.overview.to_csv(folder / "overview.csv", index_label="fit")
    comparison.predictive.to_csv(folder / "predictive.csv")
    verdicts = {
        name: {"level": v.level, "quantity": v.quantity, "sentence": v.sentence}
        for name, v in comparison.verdicts.items()
    }
    (folder / "verdicts.json").write_text(json.dumps(verdicts, indent=1) + "\n", "utf-8")


__all__ = ["Outcome", "finish"]
