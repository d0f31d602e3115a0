"""Write a finished panel's scores into docs/comparing.md: ``PYTHONPATH=tests python -m panel.page DIR``.

DIR is what ``python -m panel.score --out DIR`` filled, with ``--unseen`` too. What stands between the markers
is replaced. ``first_scores.json`` has what both lists scored before anything was changed after a look at the
unseen cases; ``python -m panel.page DIR --first`` wrote it then.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppl_lvm.comparison import MAX_BIAS

from . import CASES, UNSEEN, Case
from .score import TRUSTING, Outcome, load, report, report_unseen, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "comparing.md"
BEGIN, END = "<!-- panel: begin -->", "<!-- panel: end -->"
WAYS = (("alone", "without reference"), ("against", "with reference"))
FIRST = Path(__file__).with_name("first_scores.json")
HALVES = (("scored_on", "scored cases"), ("frozen_on", "cases set with"), ("all", "all"))


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _scores(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    rows = [
        "| cases | | runs: bad, good | sensitivity | specificity | inconclusive | trusted though wrong |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, part in parts:
        for way, word in WAYS:
            s = part[way]
            shares = " | ".join(_share(s[k]) for k in ("sensitivity", "specificity", "inconclusive"))
            runs = f"{s['bad_runs']}, {s['good_runs']}"
            rows.append(f"| {name} | {word} | {runs} | {shares} | {len(s['trusted_though_wrong'])} |")
    return "\n".join(rows)


def _by_quantity(part: Mapping[str, Any], where: str) -> str:
    parts = [part[way]["by_quantity"] for way, _ in WAYS]
    words = [
        f"{name} {_share(parts[0][name])} and {_share(parts[1][name])}"
        for name in ("sensitivity", "specificity", "inconclusive")
    ]
    which = f"By quantity (a case counts as one), {where}, without and with a reference"
    return f"{which}: {', '.join(words)}."


def _counts(outcomes: Sequence[Outcome], cases: Sequence[Case]) -> str:
    done = {o.case for o in outcomes}
    runs = Counter(o.case for o in outcomes).values()
    seeds = str(min(runs)) if min(runs) == max(runs) else f"{min(runs)} to {max(runs)}"
    ways = ("closed form", "quadrature", "long run")
    first, second, third = (sum(c.target.known == way for c in cases if c.name in done) for way in ways)
    return (
        f"{len(done)} cases, {seeds} seeds each. The posterior is known in closed form for {first} of them,\n"
        f"by quadrature for {second}, from long runs for {third}."
    )


def _bounds(part: Mapping[str, Any]) -> str:
    own = part["viabel"]
    flagged, passed = _share(own["flagged_of_bad"]), _share(own["passed_of_good"])
    return (
        f"VIABEL's bounds flag {flagged} of the {own['bad_runs']} bad runs of guides, and pass {passed} of "
        f"the {own['good_runs']} good ones."
    )


def _wrong(part: Mapping[str, Any]) -> str:
    named = [
        f"{word}: {', '.join(part[way]['trusted_though_wrong'])}"
        for way, word in WAYS
        if part[way]["trusted_though_wrong"]
    ]
    return f"Trusted though wrong, {'; '.join(named)}." if named else ""


def _first(cases: str, now: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """What a list scored the first time, unless that is what is shown anyway."""
    kept = json.loads(FIRST.read_text("utf-8"))[cases]
    return [] if kept == now else [("first time", kept)]


def unseen(outcomes: Sequence[Outcome]) -> list[str]:
    """The section on the cases that came after the limits."""
    part = report_unseen(outcomes)["all"]
    first = _first("unseen", part)
    return [
        "#### Unseen cases",
        _counts(outcomes, UNSEEN),
        _scores([*first, ("now" if first else "first time", part)]),
        *(_by_quantity(scored, name) for name, scored in first),
        _by_quantity(part, "now" if first else "first time"),
        _wrong(part),
        _near(outcomes),
        _bounds(part),
        table(outcomes, UNSEEN),
    ]


def _near(outcomes: Sequence[Outcome]) -> str:
    """How many of the misses lie next to the limit, where errors of the figures leave nothing else to say."""
    words = []
    for way, word in WAYS:
        missed = [o for o in outcomes if _missed(o, way)]
        near = [o for o in missed if abs(max(map(abs, o.errors.values())) - MAX_BIAS) <= 0.1]
        words.append(f"{len(near)} of the {len(missed)} {word}")
    return (
        f"Of the runs not called what they are, {', and '.join(words)} have a worst error of 0.4 to 0.6 sds."
    )


def _missed(outcome: Outcome, way: str) -> bool:
    level = outcome.level(way)
    if outcome.bad:
        return level != "do_not_trust"
    return outcome.expected != "short" and level not in TRUSTING


def page(outcomes: Sequence[Outcome], later: Sequence[Outcome] = ()) -> str:
    found = report(outcomes)
    now = [(name, found[half]) for half, name in HALVES]
    parts = [
        _counts(outcomes, CASES),
        _scores([*((f"all, {name}", part) for name, part in _first("first list", found["all"])), *now]),
        _by_quantity(found["scored_on"], "on the scored cases"),
        _wrong(found["all"]),
        _near(outcomes),
        _bounds(found["all"]),
        *(unseen(later) if later else []),
        "#### The cases that limits were set with and scored on",
        table(outcomes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def main(folder: Path) -> None:
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    written = page(load(folder), load(folder, UNSEEN))
    PAGE.write_text(f"{before}{BEGIN}\n\n{written}\n{END}{after}", "utf-8")


def keep_first(folder: Path) -> None:
    kept = {
        "unseen": report_unseen(load(folder, UNSEEN))["all"],
        "first list": report(load(folder))["all"],
    }
    FIRST.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    (keep_first if "--first" in sys.argv else main)(Path(sys.argv[1]))
