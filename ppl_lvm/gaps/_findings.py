"""From figures of the latents to findings with advice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppl_lvm.diagnostics import Finding

if TYPE_CHECKING:
    import pandas as pd

_COLLAPSED = 0.01  # nats: a dimension whose KL is below this carries nothing
_ALL_COLLAPSED = 0.1
_HOPES = "warm the KL up (lvm.Annealing), use free bits, or a weaker decoder"
_MATTERS = 0.02  # a train/test gap below this share of the bound is let pass


def findings_of(table: pd.DataFrame, summary: pd.DataFrame) -> list[Finding]:
    """Active units, collapse, holes, and the train/test gap."""
    out = [_active(table), *_collapse(table, summary), _holes(summary)]
    if "train_test_gap" in summary.index:
        out.append(_generalisation(summary))
    return out


def _active(table: pd.DataFrame) -> Finding:
    count, size = int(table["active"].sum()), len(table)
    level: Any = "ok" if count == size else "warning" if count else "error"
    text = f"{count} of {size} latent dimensions are active (variance over data of the mean above 0.01)"
    idle = [str(n) for n in table.index[~table["active"]]]
    text += "" if not idle else f"; idle: {', '.join(idle[:8])}{', ...' if len(idle) > 8 else ''}"
    return Finding(level, "active_units", count, text)


def _collapse(table: pd.DataFrame, summary: pd.DataFrame) -> list[Finding]:
    total, error = float(summary.loc["kl", "value"]), float(summary.loc["kl", "error"])
    if total < _ALL_COLLAPSED:
        text = (
            f"posterior collapse: q(z | x) is the prior (KL {total:.3f} +- {error:.3f} nats per datum), so "
        )
        return [Finding("error", "posterior_collapse", total, text + f"the decoder ignores z: {_HOPES}")]
    gone = table.index[table["kl"] + 2 * table["kl_error"] < _COLLAPSED]
    if not len(gone):
        least = float(table["kl"].min())
        return [
            Finding(
                "ok",
                "posterior_collapse",
                least,
                f"no dimension has collapsed (smallest KL {least:.3f} nats)",
            )
        ]
    text = (
        f"{len(gone)} of {len(table)} dimensions have collapsed to the prior (KL below {_COLLAPSED} nats): "
    )
    worst = float(table.loc[gone, "kl"].max())
    return [
        Finding("warning", "posterior_collapse", worst, text + f"a smaller latent_dim would do, or {_HOPES}")
    ]


def _holes(summary: pd.DataFrame) -> Finding:
    accuracy, error = (float(summary.loc["c2st", c]) for c in ("value", "error"))
    away, away_error = (float(summary.loc["aggregate_kl", c]) for c in ("value", "error"))
    told = accuracy - 3 * error > 0.5
    text = (
        f"a classifier tells z of the data from the prior's with accuracy {accuracy:.3f} +- {error:.3f}; "
        f"KL(q(z) || p(z)) {away:.2f} +- {away_error:.2f} nats"
    )
    if told:
        text += ": the aggregate posterior leaves holes in the prior, where samples may look like no datum"
    return Finding("warning" if told else "ok", "aggregate_posterior", accuracy, text)


def _generalisation(summary: pd.DataFrame) -> Finding:
    gap, error = (float(summary.loc["train_test_gap", c]) for c in ("value", "error"))
    scale = abs(float(summary.loc["elbo", "value"]))
    bad = gap > 3 * error and gap > _MATTERS * scale
    text = f"the bound is {gap:.2f} +- {error:.2f} nats per datum higher on training than on held-out data"
    if bad:
        text += ": stop earlier (validation=, patience=), use a smaller network, or more data"
    return Finding("warning" if bad else "ok", "train_test_gap", gap, text)


__all__ = ["findings_of"]
