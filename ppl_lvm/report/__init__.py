"""The report of a comparison: one HTML page that carries its pictures and script, and loads no file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ppl_lvm.comparison import Comparison
from ppl_lvm.evidence import EvidenceLadder


def write_report(comparison: Comparison, path: str | Path, *, ladder: EvidenceLadder | None = None) -> Path:
    """Write the comparison as one self-contained page; returns its path. Folders on the way are made.

    Verdicts come first, then what was fitted (the model's graph and its story, sites, data), the overview,
    the predictions, every quantity (a table to sort and to filter), the pictures, the evidence, and the
    settings, seeds, versions and times that it takes to do it again. Pictures and tables that a comparison
    cannot have (no chains, no data) are left out, with the reason. ``ladder`` is shown with the evidence.

    Raises
    ------
    TypeError, ValueError
        If ``path`` is a folder, or ``ladder`` is not what :func:`ppl_lvm.evidence_ladder` returned.
    """
    import jinja2

    from ppl_lvm.report._context import page_of

    if ladder is not None and not isinstance(ladder, EvidenceLadder):
        raise TypeError(
            f"ladder: expected what lvm.evidence_ladder returns or None, got {type(ladder).__name__}."
        )
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"path: {target} is a folder; give the name of a file, such as report.html.")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(page_of(comparison, ladder))
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(target, text)
    return target


def _replace(target: Path, text: str) -> None:
    """Write beside the place and rename, so that a reader never meets half a page."""
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".html")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(name, 0o644)  # mkstemp's files are private, a report is to be served and passed on
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


__all__ = ["write_report"]
