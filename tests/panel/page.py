"""Write a finished panel's scores into docs/comparing.md: ``PYTHONPATH=tests python -m panel.page DIR``.

DIR is what ``python -m panel.score --out DIR`` filled. What stands between the two markers is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import CASES
from .score import Outcome, load, report, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "comparing.md"
BEGIN, END = "<!-- panel: begin -->", "<!-- panel: end -->"
WAYS = (("alone", "without reference"), ("against", "with reference"))
HALVES = (("scored_on", "scored cases"), ("frozen_on", "cases set with"), ("all", "all"))


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _scores(found: dict[str, Any]) -> str:
    rows = [
        "| cases | | runs: bad, good | sensitivity | specificity | inconclusive | trusted though wrong |",
        "|---|---|---|---|---|---|---|",
    ]
    for half, name in HALVES:
        for way, word in WAYS:
            s = found[half][way]
            shares = " | ".join(_share(s[k]) for k in ("sensitivity", "specificity", "inconclusive"))
            runs = f"{s['bad_runs']}, {s['good_runs']}"
            rows.append(f"| {name} | {word} | {runs} | {shares} | {len(s['trusted_though_wrong'])} |")
    return "\n".join(rows)


def _by_quantity(found: dict[str, Any]) -> str:
    parts = [found["scored_on"][way]["by_quantity"] for way, _ in WAYS]
    words = [
        f"{name} {_share(parts[0][name])} and {_share(parts[1][name])}"
        for name in ("sensitivity", "specificity", "inconclusive")
    ]
    which = "By quantity (a case counts as one), on the scored cases, without and with a reference"
    return f"{which}: {', '.join(words)}."


def _counts(outcomes: Sequence[Outcome]) -> str:
    done = {o.case for o in outcomes}
    seeds = len({o.seed for o in outcomes})
    ways = ("closed form", "quadrature", "long run")
    first, second, third = (sum(c.target.known == way for c in CASES if c.name in done) for way in ways)
    return (
        f"{len(done)} cases, {seeds} seeds each. The posterior is known in closed form for {first} of them,\n"
        f"by quadrature for {second}, from long runs for {third}."
    )


def _bounds(found: dict[str, Any]) -> str:
    own = found["all"]["viabel"]
    flagged, passed = _share(own["flagged_of_bad"]), _share(own["passed_of_good"])
    return (
        f"VIABEL's bounds flag {flagged} of the {own['bad_runs']} bad runs of guides, and pass {passed} of "
        f"the {own['good_runs']} good ones."
    )


def _wrong(found: dict[str, Any]) -> str:
    named = [
        f"{word}: {', '.join(found['all'][way]['trusted_though_wrong'])}"
        for way, word in WAYS
        if found["all"][way]["trusted_though_wrong"]
    ]
    return f"Trusted though wrong, {'; '.join(named)}." if named else ""


def page(outcomes: Sequence[Outcome]) -> str:
    found = report(outcomes)
    parts = [
        _counts(outcomes),
        _scores(found),
        _by_quantity(found),
        _wrong(found),
        _bounds(found),
        table(outcomes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def main(folder: str) -> None:
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{page(load(Path(folder)))}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
