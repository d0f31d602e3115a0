"""Run the panel and score its verdicts: ``PYTHONPATH=tests python -m panel.score --out DIR``.

Every run of a case is kept in DIR/<case>.json, so that an interrupted panel goes on where it was, and a later
call with more ``--seeds`` adds those; the score of all that is there is printed as JSON. ``--cases a,b`` is
for those whose names contain one of the words, ``--unseen`` for the cases that were written after the limits.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ppl_lvm as lvm
from ppl_lvm.comparison import MAX_BIAS, MAX_LOG_RATIO
from ppl_lvm.diagnostics import khat

from . import CASES, FROZEN_ON, SCORED_ON, UNSEEN, Case
from .viabel import bounds

TRUSTING = ("means_and_spreads", "means_only")
_ORDER = ("do_not_trust", "inconclusive", "means_only", "means_and_spreads")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One run: its errors in true sds and sd ratios by quantity, and the verdicts with and without
    reference."""

    case: str
    seed: int
    expected: str
    errors: dict[str, float]
    ratios: dict[str, float]
    alone: dict[str, str]
    against: dict[str, str]
    words: dict[str, str]
    khat: float | None
    viabel: dict[str, Any] | None
    seconds: float

    @property
    def bad(self) -> bool:
        return self.expected == "do_not_trust" or any(abs(e) > MAX_BIAS for e in self.errors.values())

    @property
    def right(self) -> str:
        if self.bad:
            return "do_not_trust"
        if self.expected == "short":
            return "short"
        narrow = not self.ratios or any(abs(math.log(r)) > MAX_LOG_RATIO for r in self.ratios.values())
        return "means_only" if narrow else "means_and_spreads"

    def level(self, way: str) -> str:
        """The verdict on the run, by its worst known quantity."""
        found = getattr(self, way)
        return next(level for level in _ORDER if level in found.values())


def run_case(case: Case, seed: int) -> Outcome:
    began = time.perf_counter()
    fit = case.fit(seed)
    truth = case.target.truth()
    alone = lvm.compare({"fit": fit}, spot_check=lvm.SpotCheck(seed=seed))
    reference = case.target.settled(case.target.reference(seed))
    against = lvm.compare({"fit": fit, "reference": reference}, reference="reference")
    rows = against.table.loc["fit"]
    known = [q for q in truth if q in rows.index]
    missing = sorted(set(truth) - set(known))
    if missing:
        raise ValueError(f"{case.name}: no rows for {missing[:5]}; the table has {list(rows.index)[:5]}")
    errors = {q: (float(rows.loc[q, "mean"]) - truth[q][0]) / truth[q][1] for q in known}
    ratios = {} if fit.is_point else {q: float(rows.loc[q, "sd"]) / truth[q][1] for q in known}
    each = {way: found.quantity_verdicts["fit"] for way, found in (("alone", alone), ("against", against))}
    value = khat(fit)
    return Outcome(
        case.name,
        seed,
        case.expected,
        errors,
        ratios,
        {q: _level(each["alone"], alone.verdicts["fit"], q) for q in known},
        {q: _level(each["against"], against.verdicts["fit"], q) for q in known},
        {
            "alone": str(alone.verdicts["fit"]),
            "against": str(against.verdicts["fit"]),
            "spot": alone.spot_checks["fit"].finding.sentence,
        },
        value,
        bounds(fit),
        time.perf_counter() - began,
    )


def _level(verdicts: Mapping[str, lvm.Verdict], fit: lvm.Verdict, quantity: str) -> str:
    """A quantity that does not vary in a fit's draws has no verdict of its own: it has that of a fit that is
    not to be trusted, and cannot be told else."""
    if quantity in verdicts:
        return verdicts[quantity].level
    return fit.level if fit.level == "do_not_trust" else "inconclusive"


# ---- score ---------------------------------------------------------------------------------------


def score(outcomes: Sequence[Outcome], way: str) -> dict[str, Any]:
    """Of runs: sensitivity, specificity and the share of inconclusive verdicts; trusted runs that are bad.

    Sensitivity is the share of bad runs with ``do_not_trust``, specificity that of good runs with
    ``means_and_spreads`` or ``means_only``; an inconclusive verdict counts against both. Short runs count in
    neither, but must not be trusted where their error exceeds half an sd.
    """
    bad = [o for o in outcomes if o.bad]
    good = [o for o in outcomes if not o.bad and o.expected != "short"]
    flagged = sum(o.level(way) == "do_not_trust" for o in bad)
    trusted = sum(o.level(way) in TRUSTING for o in good)
    unsure = sum(o.level(way) == "inconclusive" for o in [*bad, *good])
    wrong = [o for o in outcomes if _trusted_wrongly(o, way)]
    exact = sum(o.level(way) == o.right for o in good)
    return {
        "bad_runs": len(bad),
        "good_runs": len(good),
        "sensitivity": _share(flagged, len(bad)),
        "specificity": _share(trusted, len(good)),
        "false_alarms": _share(sum(o.level(way) == "do_not_trust" for o in good), len(good)),
        "inconclusive": _share(unsure, len(bad) + len(good)),
        "exact_level_of_good": _share(exact, len(good)),
        "trusted_though_wrong": sorted({f"{o.case}, seed {o.seed}" for o in wrong}),
    }


def _trusted_wrongly(outcome: Outcome, way: str) -> bool:
    found = getattr(outcome, way)
    return any(found[q] in TRUSTING and abs(e) > MAX_BIAS for q, e in outcome.errors.items()) or (
        outcome.level(way) in TRUSTING and any(abs(e) > MAX_BIAS for e in outcome.errors.values())
    )


def quantity_score(outcomes: Sequence[Outcome], way: str) -> dict[str, Any]:
    """The same by quantity: a case's quantities count together as one, so that large models do not rule.

    Runs of methods that give no estimate are left out where the quantity's error is small.
    """
    tallies: dict[str, list[tuple[float, float, float, float, float]]] = {}
    for o in outcomes:
        if o.expected == "short":
            continue
        found = getattr(o, way)
        weight = 1 / len(o.errors)
        for q, error in o.errors.items():
            bad = abs(error) > MAX_BIAS
            if not bad and o.expected == "do_not_trust":
                continue
            level = found[q]
            row = (weight * bad, weight * (bad and level == "do_not_trust"), weight * (not bad))
            row += (weight * (not bad and level in TRUSTING), weight * (level == "inconclusive"))
            tallies.setdefault(o.case, []).append(row)
    total = [sum(r[i] for rows in tallies.values() for r in rows) for i in range(5)]
    return {
        "sensitivity": _share(total[1], total[0]),
        "specificity": _share(total[3], total[2]),
        "inconclusive": _share(total[4], total[0] + total[2]),
    }


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 3) if whole else None


def viabel_score(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Of the runs with weights p / q: do VIABEL's bounds flag the bad ones and pass the good ones?"""
    own = [o for o in outcomes if o.viabel is not None]
    bad = [o for o in own if o.bad]
    good = [o for o in own if not o.bad and o.expected != "short"]
    passed = lambda o: o.viabel["passes"]  # noqa: E731
    return {
        "bad_runs": len(bad),
        "good_runs": len(good),
        "flagged_of_bad": _share(sum(not passed(o) for o in bad), len(bad)),
        "passed_of_good": _share(sum(passed(o) for o in good), len(good)),
    }


def report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    halves = {
        "all": list(outcomes),
        "frozen_on": [o for o in outcomes if o.case in FROZEN_ON],
        "scored_on": [o for o in outcomes if o.case in SCORED_ON],
    }
    return _parts(outcomes, halves)


def report_unseen(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return _parts(outcomes, {"all": outcomes})


def _parts(outcomes: Sequence[Outcome], parts: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    out: dict[str, Any] = {"cases": len({o.case for o in outcomes}), "runs": len(outcomes)}
    for name, part in parts.items():
        out[name] = {
            way: score(part, way) | {"by_quantity": quantity_score(part, way)} for way in ("alone", "against")
        }
        out[name]["viabel"] = viabel_score(part)
    return out


_SHORT = {"means_and_spreads": "both", "means_only": "means", "do_not_trust": "no", "inconclusive": "?"}


def table(outcomes: Sequence[Outcome], cases: Sequence[Case] = CASES) -> str:
    """A row per case, in Markdown: what is right, and the verdicts of its runs counted."""
    rows = [
        "| case | known by | right | without reference | with reference | VIABEL passes |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases:
        own = [o for o in outcomes if o.case == case.name]
        if not own:
            continue
        bounded = [o.viabel["passes"] for o in own if o.viabel is not None]
        cells = [
            case.name if case.name not in FROZEN_ON else f"{case.name} (set with)",
            case.target.known,
            _counted(o.right for o in own),
            _counted(o.level("alone") for o in own),
            _counted(o.level("against") for o in own),
            f"{sum(bounded)} of {len(bounded)}" if bounded else "",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _counted(levels: Iterable[str]) -> str:
    """The commonest first: ``9 both, 1 means``."""
    found = Counter(_SHORT.get(level, level) for level in levels)
    return ", ".join(f"{count} {level}" for level, count in found.most_common())


# ---- files ---------------------------------------------------------------------------------------


def _path(folder: Path, case: str) -> Path:
    return folder / (re.sub(r"[^a-z0-9]+", "_", case.lower()).strip("_") + ".json")


def load(folder: Path, cases: Iterable[Case] = CASES) -> list[Outcome]:
    out = []
    for case in cases:
        path = _path(folder, case.name)
        if path.exists():
            out += [Outcome(**row) for row in json.loads(path.read_text("utf-8"))]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", default="")
    parser.add_argument("--unseen", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop before a case that begins later"
    )
    parser.add_argument("--only-score", action="store_true", help="of what is there; run nothing")
    parser.add_argument("--table", action="store_true", help="print a Markdown table instead of the score")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cases = UNSEEN if args.unseen else CASES
    words = [w for w in args.cases.split(",") if w]
    began = time.perf_counter()
    for case in [] if args.only_score else cases:
        path = _path(args.out, case.name)
        rows = json.loads(path.read_text("utf-8")) if path.exists() else []
        left = [seed for seed in range(args.seeds) if seed not in {row["seed"] for row in rows}]
        if not left or (words and not any(w in case.name for w in words)):
            continue
        if time.perf_counter() - began > 60 * args.minutes:
            break
        rows += [dataclasses.asdict(run_case(case, seed)) for seed in left]
        path.write_text(json.dumps(rows), "utf-8")
        sys.stderr.write(f"{case.name}: {sum(r['seconds'] for r in rows):.0f} s\n")
    found = load(args.out, cases)
    scored = report_unseen(found) if args.unseen else report(found)
    sys.stdout.write((table(found, cases) if args.table else json.dumps(scored, indent=1)) + "\n")


if __name__ == "__main__":
    main()
