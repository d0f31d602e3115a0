"""The ladder that fits of one model have already paid for."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ppl_lvm.core import Evidence
from ppl_lvm.evidence._iwae import IWAE, iwae_bound, log_weights
from ppl_lvm.evidence._ladder import EvidenceLadder, note_of
from ppl_lvm.result import Fit


def ladder_of(fits: Mapping[str, Fit]) -> EvidenceLadder | None:
    """The ladder that fits of one model have already paid for; None where no fit has an evidence.

    A rung for each fit with an evidence, and for a guide the IWAE bounds of its own draws, which say how much
    of the gap the guide is to blame for. Arguments as for :func:`ppl_lvm.compare`.
    """
    import pandas as pd

    found: dict[str, Evidence] = {}
    seconds: dict[str, float] = {}
    for name, fit in fits.items():
        if fit.evidence is None:
            continue
        found[name] = fit.evidence
        guide = fit.sample_stats is not None and fit.posterior.attrs.get("draws") == "independent"
        for m in IWAE if guide and "log_q" in (fit.sample_stats or ()) else ():
            bound = iwae_bound(log_weights(fit.sample_stats), m, fit.evidence)
            found |= {} if bound is None else {f"{name}, IWAE_{m}": bound}
        new = [n for n in found if n not in seconds]
        seconds |= dict.fromkeys(new, float(fit.meta.get("wall_seconds", math.nan)))
    if not found:
        return None
    rows = {
        n: {
            "nats": e.nats,
            "std_error": e.std_error,
            "kind": e.kind,
            "seconds": seconds[n],
            "note": note_of(e),
        }
        for n, e in found.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")
    return EvidenceLadder(next(iter(fits.values())).model.describe(), table, found, fits)


__all__ = ["ladder_of"]
