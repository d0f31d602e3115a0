"""Write long_runs.json: means, sds and errors of the zoo's targets by long NUTS runs (some minutes).

Run as ``PYTHONPATH=tests python -m panel.make_long_runs [NAME ...]``. Chains are long enough for errors of a
few hundredths of an sd; what was reached is stored with the figures (R-hat and effective sizes).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

import ppl_lvm as lvm
from ppl_lvm import NUTS
from ppl_lvm.diagnostics import entries, moments, quantities
from ppl_lvm.symmetry import reference_of

from .zoo import STORED, TARGETS

ENGINE = NUTS(num_warmup=1000, num_samples=4000, num_chains=8, target_accept=0.9)


def long_run(model: Any, data: np.ndarray) -> dict[str, Any]:
    fit = lvm.fit(model, data, ENGINE, seed=2024)
    draws = quantities(fit)
    figures = moments(fit, draws)
    found: dict[str, Any] = {"engine": repr(ENGINE), "quantities": {}}
    for site, index, label in entries(draws, figures):
        row = {k: float(v[index]) for k, v in figures[site].items()}
        found["quantities"][label] = {
            "mean": row["mean"],
            "sd": row["sd"],
            "mean_error": row["mcse_mean"] / row["sd"],
            "ess": round(min(row["ess_bulk"], row["ess_tail"])),
            "r_hat": round(row["r_hat"], 4),
        }
    base = reference_of(fit)
    if base.labels is not None:
        found |= {"label_mean": base.labels.mean.tolist(), "label_variance": base.labels.variance.tolist()}
    if base.loadings is not None:
        found |= {"loadings": base.loadings.tolist()}
        found |= {"sds": None if base.sds is None else np.asarray(base.sds).tolist()}
    return found


def main(names: list[str]) -> None:
    stored = json.loads(STORED.read_text("utf-8")) if STORED.exists() else {}
    for name in names or TARGETS:
        stored[name] = long_run(*TARGETS[name])
        rows = stored[name]["quantities"].values()
        worst = max(r["mean_error"] for r in rows), max(r["r_hat"] for r in rows)
        sys.stdout.write(
            f"{name}: {len(rows)} quantities, errors up to {worst[0]:.3f} sds, R-hat {worst[1]}\n"
        )
        sys.stdout.flush()
        STORED.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
