"""The truth panel: cases (model, data, engine) whose right verdict is known, and their score.

What is right for a run. A fit reports means and sds; the posterior's are known. The run's *error* in a
quantity is (reported mean - true mean) / true sd, whatever it comes from: the family of a guide, an optimum
not reached, chains in the wrong place, or the noise of too few draws. A run is **bad** if the error of some
quantity exceeds half an sd, or if the method is known to give no estimate of the posterior
(``expected="do_not_trust"``), even where luck puts its mean in place. It is **short** if its Monte Carlo
error is too large for any claim (``expected="short"``), and **good** otherwise; of the good ones, those with
every sd between 3/4 and 4/3 of the true one deserve ``means_and_spreads``, the others ``means_only``.

The limits of :mod:`ppl_lvm.verdicts` were set with the cases of even number in ``CASES`` (``FROZEN_ON``) and
are scored on those of odd number (``SCORED_ON``). Those of ``UNSEEN`` came later, and are scored apart.
"""

from __future__ import annotations

from . import gaussians, hierarchies, modes, skewed, unseen, zoo
from .case import Case, Target

CASES: list[Case] = [
    case for family in (gaussians, skewed, modes, hierarchies, zoo) for case in family.cases()
]
FROZEN_ON = [case.name for case in CASES[::2]]
SCORED_ON = [case.name for case in CASES[1::2]]
UNSEEN: list[Case] = unseen.cases()


def case_named(name: str) -> Case:
    return next(case for case in [*CASES, *UNSEEN] if case.name == name)


__all__ = ["CASES", "FROZEN_ON", "SCORED_ON", "UNSEEN", "Case", "Target", "case_named"]
