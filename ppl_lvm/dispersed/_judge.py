"""What the dispersed chains say of one fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ppl_lvm.diagnostics import Finding, chain_moments, entry_label, khat_limit, psis, quantities
from ppl_lvm.dispersed import MOST_DIVERGENT, SpotResult
from ppl_lvm.dispersed._chains import Spots, at_place
from ppl_lvm.dispersed._places import BARRIER, Cloud, cloud, falls, neighbours
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

_LINES = 3
_SHARES = 500  # draws of the places' shares, for errors
_SMALL = 0.05  # share of the mass below which a place need not have been sampled well
_LEAST_ESS, _MOST_R_HAT = 50.0, 1.1
_COLUMNS = ("mean", "mean_error", "sd", "sd_error", "shift", "shift_error")


class _Share(NamedTuple):
    """Shares of the posterior (k,), draws of them (s, k), the fit's shares (k,), and whether chains were
    there."""

    mass: np.ndarray
    drawn: np.ndarray
    fit: np.ndarray
    log_mass: np.ndarray
    log_mass_error: np.ndarray
    own: bool


def nothing(reason: str) -> SpotResult:
    """A spot check that could not be made."""
    import pandas as pd

    finding = Finding("warning", "spot_check", math.nan, f"no spot check: {reason}")
    table = pd.DataFrame(columns=list(_COLUMNS), dtype=float)
    return SpotResult(finding, 0, 0, 0.0, pd.DataFrame(), table, 0.0, False)


def spot_result(fit: Fit, spots: Spots) -> SpotResult:
    """Shares of places, shifts and estimates for a fit in the common order of labels."""
    share = _shares(fit, spots)
    table = _table(fit, spots, share)
    settled = len({c for p in spots.places for c in p.chains})
    seen = not (share.own and share.mass[-1] > _SMALL)
    finding = _finding(fit, spots, share, table, settled)
    places = _places(spots, share)
    return SpotResult(finding, spots.started, settled, spots.seconds, places, table, spots.divergent, seen)


# ---- shares --------------------------------------------------------------------------------------


def _shares(fit: Fit, spots: Spots) -> _Share:
    log_mass, error = spots.log_mass, spots.log_mass_error
    ours, own = _where(fit, spots)
    if own is not None:
        mass, its_error = _mass_of(own, fit, spots)
        log_mass, error = np.append(log_mass, mass), np.append(error, its_error)
    rng = np.random.default_rng(65)
    noise = rng.standard_normal((_SHARES, len(error))) * error
    return _Share(_softmax(log_mass), _softmax(log_mass + noise), ours, log_mass, error, own is not None)


def _softmax(x: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.exp(x - np.logaddexp.reduce(x, axis=-1, keepdims=True))
    return out


def _where(fit: Fit, spots: Spots) -> tuple[np.ndarray, Cloud | None]:
    """The fit's share of each place; and the cloud of its draws that a barrier parts from all of them, if
    there are more than a few."""
    count = len(spots.places)
    free = None if fit.is_point else spots.free_of(fit)
    if free is None:
        return np.full(count, math.nan), None
    away, level = _away(free, spots)
    nearest = np.argmax([c.log_normal(free) for c in spots.clouds], axis=0)
    if away.mean() <= _SMALL or away.sum() < 8:
        return np.bincount(nearest, minlength=count) / len(free), None
    there = np.bincount(nearest[~away], minlength=count) / len(free)
    return np.append(there, away.mean()), cloud(free[away][None], level[away][None])


def _away(free: np.ndarray, spots: Spots) -> tuple[np.ndarray, np.ndarray]:
    """Which of a fit's points (n, size) lie behind a barrier from the nearest draws of all places."""
    level = spots.log_p(free)
    chains = np.concatenate([c.free.reshape(-1, c.free.shape[-1]) for c in spots.clouds])
    heights = np.concatenate([c.log_p.reshape(-1) for c in spots.clouds])
    rows = np.unique(np.linspace(0, len(chains) - 1, 500).astype(int))
    chains, heights = chains[rows], heights[rows]
    near = neighbours(free, chains, spots.scale)[:, :_LINES]
    lowest = np.full(len(free), np.inf)
    for column in near.T:
        ends = np.minimum(level, heights[column])
        lowest = np.minimum(lowest, falls(free, chains[column], ends, spots.log_p))
    return lowest > BARRIER, level


def _mass_of(own: Cloud, fit: Fit, spots: Spots) -> tuple[float, float]:
    """Log mass of the fit's own place, by importance sampling from a normal like its draws."""
    rng = np.random.default_rng(66)
    size = own.free.shape[-1]
    drawn = own.mean + 1.2 * rng.standard_normal((1024, size)) @ own.root.T
    wide = Cloud(own.free, own.log_p, own.mean, 1.2 * own.root)
    level = spots.log_p(drawn) + spots.inside(drawn)
    elsewhere = np.max([c.log_normal(drawn) for c in spots.clouds], axis=0) > own.log_normal(drawn)
    log_w = np.where(elsewhere, -np.inf, level) - wide.log_normal(drawn)
    if not np.isfinite(log_w).any():
        return -np.inf, 0.0
    value = float(np.logaddexp.reduce(log_w) - math.log(len(log_w)))
    weights, khat = psis(log_w)
    error = math.sqrt(max(float(np.exp(2 * weights).sum()) - 1 / len(log_w), 0.0))
    return value, math.hypot(error, 0.2) if khat < khat_limit(len(log_w)) else 1.0 + 0.1 * size


def _places(spots: Spots, share: _Share) -> pd.DataFrame:
    import pandas as pd

    names = [str(k) for k in range(len(spots.places))] + (["fit"] if share.own else [])
    chains = [len(p.chains) for p in spots.places] + ([0] if share.own else [])
    return pd.DataFrame(
        {
            "chains": chains,
            "log_mass": share.log_mass,
            "log_mass_error": share.log_mass_error,
            "share": share.mass,
            "share_error": share.drawn.std(0),
            "fit_share": share.fit,
        },
        index=pd.Index(names, name="place"),
    )


# ---- quantities ----------------------------------------------------------------------------------


def _table(fit: Fit, spots: Spots, share: _Share) -> pd.DataFrame:
    import pandas as pd

    at_places = [chain_moments(at_place(spots.draws, place)) for place in spots.places]
    if share.own:
        at_places.append(_independent(fit, spots))
    rows = {}
    for site, var in spots.draws.data_vars.items():
        known = [f[str(site)] for f in at_places]
        for index in np.ndindex(known[0]["mean"].shape):
            figures = [{k: float(v[index]) for k, v in f.items()} for f in known]
            rows[entry_label(var, index)] = _row(figures, share)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(_COLUMNS))


def _independent(fit: Fit, spots: Spots) -> dict[str, dict[str, np.ndarray]]:
    """Moments of the fit's own draws at its own place; their error is what the fit says of itself."""
    own = quantities(fit)
    out = {}
    for site in spots.draws.data_vars:
        x = own[site].transpose("chain", "draw", ...).values
        flat = x.reshape(-1, *x.shape[2:])
        zero = np.zeros(flat.shape[1:])
        out[str(site)] = {"mean": flat.mean(0), "sd": flat.std(0), "mcse_mean": zero, "mcse_sd": zero}
    return out


def _row(places: Sequence[Mapping[str, float]], share: _Share) -> tuple[float, ...]:
    """The mixture of places: mean and sd with errors, and the shift with its error in those sds."""
    mean = np.array([p["mean"] for p in places])
    sd = np.array([p["sd"] for p in places])
    w, drawn = share.mass, share.drawn
    centre = float(w @ mean)
    spread = math.sqrt(max(float(w @ (sd**2 + (mean - centre) ** 2)), 0.0))
    matters = w > _SMALL
    if any(matters[k] and not _sampled(p) for k, p in enumerate(places)):
        errors = (math.nan, math.nan)
    else:
        noise = np.array([p["mcse_mean"] for p in places])
        sd_noise = np.array([p["mcse_sd"] for p in places])
        noise, sd_noise = np.where(matters, noise, 0.0), np.where(matters, sd_noise, 0.0)
        means = drawn @ mean
        spreads = np.sqrt(np.maximum(drawn @ (sd**2 + mean**2) - means**2, 0.0))
        errors = (
            math.hypot(float(np.sqrt((w**2 * noise**2).sum())), float(means.std())),
            math.hypot(float(np.sqrt((w * sd_noise**2).sum())), float(spreads.std())),
        )
    if len(places) == 1:
        shift, shift_error = (0.0, 0.0) if np.isfinite(share.fit).all() else (math.nan, math.nan)
    else:
        unit = max(spread, 1e-300)
        shift = float((w - share.fit) @ mean) / unit
        shift_error = float((drawn @ mean).std()) / unit
    return centre, errors[0], spread, errors[1], shift, shift_error


def _sampled(place: Mapping[str, float]) -> bool:
    """Whether a place's chains know their own Monte Carlo error (constants have none to know)."""
    if place["sd"] <= 1e-12 * (abs(place["mean"]) + 1e-300):
        return True
    if "r_hat" not in place:
        return True  # the fit's own place
    good = place["ess_bulk"] >= _LEAST_ESS and math.isfinite(place["mcse_mean"])
    return good and not place["r_hat"] > _MOST_R_HAT


# ---- words ---------------------------------------------------------------------------------------


def _finding(fit: Fit, spots: Spots, share: _Share, table: pd.DataFrame, settled: int) -> Finding:
    began = f"{settled} of {spots.started} short chains settled"
    if spots.divergent > MOST_DIVERGENT:
        return Finding(
            "warning",
            "spot_check",
            spots.divergent,
            f"{began}, but {spots.divergent:.0%} of their transitions diverged: they may miss a region too",
        )
    if len(share.mass) == 1:
        where = "all at one place" + ("" if fit.is_point else ", where the fit is")
        return Finding("ok", "spot_check", 0.0, f"{began}, {where}")
    return _several(spots, share, table, began)


def _several(spots: Spots, share: _Share, table: pd.DataFrame, began: str) -> Finding:
    """More than one place: the one whose share the fit has most wrong."""
    gap = share.mass - np.nan_to_num(share.fit)
    k = int(np.argmax(gap))
    chains = len(spots.places[k].chains) if k < len(spots.places) else 0
    text = (
        f"{began}, at {len(spots.places)} places; the one where {chains} did holds {share.mass[k]:.0%} +- "
        f"{share.drawn.std(0)[k]:.0%} of the posterior, and the fit gives it "
        f"{np.nan_to_num(share.fit)[k]:.0%}"
    )
    shift = table["shift"].abs().to_numpy()
    error = 2 * table["shift_error"].to_numpy()
    if np.isnan(shift).all():
        return Finding("ok", "spot_check", float(gap[k]), text)
    if (shift - error > 0.5).any():
        return Finding("error", "spot_check", float(gap[k]), text)
    level: Any = "warning" if (shift + error > 0.5).any() else "ok"
    return Finding(level, "spot_check", float(gap[k]), text)


__all__ = ["nothing", "spot_result"]
