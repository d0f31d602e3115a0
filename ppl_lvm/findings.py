"""What a fit says of itself: chain diagnostics, importance weights, how its run ended."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.chain_checks import energy_fractions, moved, nested_r_hat
from ppl_lvm.core import Outcome
from ppl_lvm.diagnostics import Finding, entry_label, khat, khat_limit, log_weights, moments, quantities

if TYPE_CHECKING:
    import xarray as xr

    from ppl_lvm.result import Fit

GOOD_R_HAT, FAIR_R_HAT, BAD_R_HAT = 1.01, 1.05, 1.1
LEAST_ESS = 50
_MOVED = 0.1
_FEW, _MANY = 0.002, 0.1  # shares of divergent transitions
_SLOW_ENERGY = 0.3
_CARRIED = 4.0
_GAP = 1.0  # nats
_PARTICLES = 50


def diagnose(fit: Fit) -> list[Finding]:
    """Findings about one fit, the most alarming first."""
    found: list[Finding] = []
    if fit.draws is not None and fit.posterior.attrs.get("draws") == "chain":
        found += _chain_findings(fit)
    found += _weight_findings(fit) + _carried(fit)
    outcome = fit.status.outcome
    if outcome is Outcome.MAX_STEPS:
        found.append(Finding("warning", "status", math.nan, str(fit.status)))
    elif outcome is Outcome.UNRELIABLE and not any(f.check == "khat" for f in found):
        found.append(Finding("error", "khat", fit.status.details.get("khat", math.nan), str(fit.status)))
    elif outcome in (Outcome.DEGENERATE, Outcome.FAILED):
        found.append(Finding("error", "status", math.nan, str(fit.status)))
    return by_alarm(found)


def by_alarm(found: list[Finding]) -> list[Finding]:
    """Findings, the most alarming first."""
    order = {"error": 0, "warning": 1, "ok": 2}
    return sorted(found, key=lambda f: order[f.level])


# ---- chains --------------------------------------------------------------------------------------


def _chain_findings(fit: Fit) -> list[Finding]:
    draws = quantities(fit)
    figures = moments(fit, draws)
    out = [*_frozen(draws), _agreement(fit, draws, figures), _size(fit, figures)]
    return [f for f in [*out, _by_datum(fit), _divergences(fit), _energy(fit)] if f is not None]


def _by_datum(fit: Fit) -> Finding | None:
    """How many data have chains that disagree, and which is the worst, where each has chains of its own."""
    own = fit.groups.get("per_datum")
    if own is None or "r_hat" not in own or fit.posterior.sizes["chain"] < 2:
        return None
    found = own["r_hat"]
    plate = found.dims[0]
    bad = int((found > GOOD_R_HAT).sum())
    at = int(np.argmax(found.values))
    where = found[plate].values[at] if plate in found.coords else at
    sentence = (
        f"{bad} of {found.size} data have R-hat above {GOOD_R_HAT}; the worst is {plate} {where} "
        f"({float(found.max()):.3f})"
    )
    return Finding(_r_hat_level(float(found.max())), "r_hat_per_datum", bad, sentence)


def _frozen(draws: xr.Dataset) -> list[Finding]:
    """A chain that stays where it is has no variance to compare: it is named before anything else."""
    if not draws.data_vars:
        return []
    columns = [v.transpose("chain", "draw", ...).values for v in draws.data_vars.values()]
    share = moved(np.concatenate([c.reshape(*c.shape[:2], -1) for c in columns], axis=2))
    stuck = np.flatnonzero(share < _MOVED)
    if not stuck.size:
        return []
    names = ", ".join(str(i) for i in stuck)
    what = f"chain {names} left its place" if len(stuck) == 1 else f"chains {names} left their places"
    return [
        Finding(
            "error",
            "stuck",
            float(share.min()),
            f"{what} at {share.min():.0%} of the transitions: every proposal is refused there; start "
            "elsewhere (init=), raise target_accept, or reparametrise",
        )
    ]


def _worst(figures: Any, name: str, pick: Any) -> float:
    values = np.concatenate([np.ravel(f[name]) for f in figures.values()]) if figures else np.empty(0)
    values = values[np.isfinite(values)]
    return float(pick(values)) if values.size else math.nan


def pooled_error(r_hat: float, chains: int) -> float:
    """Standard error, in posterior sds, that the spread of chains' means puts on the mean of all of them.

    R-hat^2 - 1 is about the variance between chains' means over that within them (Gelman and Rubin 1992), and
    means of m chains average over m of them.
    """
    return math.sqrt(max(r_hat**2 - 1, 0.0) / chains)


def starts_of(fit: Fit) -> np.ndarray | None:
    """Which starting point (chain,) each chain began at, where several shared one; else None."""
    count = getattr(fit.engine, "num_starts", None)
    chains = fit.posterior.sizes["chain"]
    return None if count is None or count >= chains else np.arange(chains) % count


def _agreement(fit: Fit, draws: xr.Dataset, figures: Any) -> Finding | None:
    chains = fit.posterior.sizes["chain"]
    if chains < 2:
        return None
    start = starts_of(fit)
    if start is not None:
        return _nested(draws, start)
    value = _worst(figures, "r_hat", np.max)
    if not math.isfinite(value):
        return Finding(
            "error", "r_hat", value, f"R-hat cannot be told: nothing varies within the {chains} chains"
        )
    apart = _apart(draws, figures) if value > FAIR_R_HAT else ""
    sentence = f"largest R-hat {value:.3f} over {chains} chains (good: {GOOD_R_HAT} or less){apart}"
    return Finding(_r_hat_level(value), "r_hat", value, sentence)


def _r_hat_level(value: float) -> Any:
    return "ok" if value <= GOOD_R_HAT else "warning" if value <= BAD_R_HAT else "error"


def _nested(draws: xr.Dataset, start: np.ndarray) -> Finding:
    values = [
        np.ravel(nested_r_hat(v.transpose("chain", "draw", ...).values, start))
        for v in draws.data_vars.values()
    ]
    flat = np.concatenate(values)
    value = float(flat[np.isfinite(flat)].max()) if np.isfinite(flat).any() else math.nan
    level: Any = _r_hat_level(value) if math.isfinite(value) else "error"
    sentence = (
        f"largest nested R-hat {value:.3f} over {len(start)} chains from {start.max() + 1} starts (good: "
        f"{GOOD_R_HAT} or less)"
    )
    return Finding(level, "nested_r_hat", value, sentence)


def _apart(draws: xr.Dataset, figures: Any) -> str:
    """The quantity on which chains disagree most, and the chain that lies farthest from the others."""
    site = max(figures, key=lambda s: np.nan_to_num(figures[s]["r_hat"], nan=0.0, posinf=1e9).max())
    found = np.nan_to_num(figures[site]["r_hat"], nan=0.0, posinf=1e9)
    index = tuple(int(i) for i in np.unravel_index(int(found.argmax()), found.shape))
    where: Any = (slice(None), slice(None), *index)
    x = draws[site].transpose("chain", "draw", ...).values[where]
    means, spread = x.mean(1), math.sqrt(float(np.median(x.var(1))) + 1e-300)
    chain = int(np.abs(means - np.median(means)).argmax())
    away = abs(float(means[chain] - np.median(np.delete(means, chain)))) / spread
    text = f"; worst for {entry_label(draws[site], index)}"
    return text + (f", where chain {chain} lies {away:.1f} sds from the others" if away < 1e6 else "")


def _size(fit: Fit, figures: Any) -> Finding:
    sizes = [_worst(figures, name, np.min) for name in ("ess_bulk", "ess_tail")]
    value = min(sizes) if all(math.isfinite(s) for s in sizes) else math.nan
    good = 100 * min(fit.posterior.sizes["chain"], 4)
    if not math.isfinite(value):
        return Finding(
            "error",
            "ess",
            value,
            "the effective sample size cannot be told: nothing varies, or too few draws",
        )
    level: Any = "ok" if value >= good else "warning" if value >= LEAST_ESS else "error"
    return Finding(level, "ess", value, f"smallest effective sample size {value:.0f} (good: {good} or more)")


def _divergences(fit: Fit) -> Finding | None:
    """Few may be chance; where a tenth diverge, the chains cannot follow the density at all."""
    count = int(fit.status.details.get("divergences", 0))
    if not count:
        return None
    own = fit.groups.get("per_datum")
    data = own.sizes[next(iter(own.sizes))] if own is not None else 1  # each with chains of its own
    total = data * fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]
    share = count / total
    level: Any = "ok" if share <= _FEW else "warning" if share <= _MANY else "error"
    advice = "all of them: the step size is too large everywhere" if count >= total else "raise target_accept"
    sentence = f"{count} of {total} transitions diverged, so that a region may be missed: {advice}"
    return Finding(level, "divergences", float(count), sentence)


def _energy(fit: Fit) -> Finding | None:
    stats = fit.sample_stats
    if stats is None or "energy" not in stats or stats.sizes["draw"] < LEAST_ESS:
        return None  # of fewer draws the fraction is mostly noise
    found = energy_fractions(stats["energy"].transpose("chain", "draw").values)
    if not np.isfinite(found).any():
        return None
    value, chain = float(np.nanmin(found)), int(np.nanargmin(found))
    if value >= _SLOW_ENERGY:
        return Finding("ok", "bfmi", value, f"smallest BFMI {value:.2f} (good: {_SLOW_ENERGY} or more)")
    return Finding(
        "warning",
        "bfmi",
        value,
        f"BFMI {value:.2f} in chain {chain} (good: {_SLOW_ENERGY} or more): tails are explored slowly; "
        "reparametrise, or run longer chains",
    )


# ---- weights -------------------------------------------------------------------------------------


def _weight_findings(fit: Fit) -> list[Finding]:
    log_w = log_weights(fit)
    if log_w is None:
        return []
    bad = int((~np.isfinite(log_w)).sum())
    out = []
    if bad == len(log_w):
        return [
            Finding(
                "error", "weights", float(bad), "no log weight is finite: the proposal misses the posterior"
            )
        ]
    if bad:
        out.append(
            Finding(
                "error" if bad > 0.5 * len(log_w) else "warning",
                "weights",
                float(bad),
                f"{bad} of {len(log_w)} log weights are not finite: there the density is zero, or no number",
            )
        )
    value = khat(fit)
    if value is not None:
        out.append(_khat_finding(value, len(log_w)))
    if fit.posterior.attrs.get("draws") == "independent" and not bad:
        out.append(_gap_finding(log_w))
    return out


def _carried(fit: Fit) -> list[Finding]:
    """Weighted draws worth so few that their noise alone, 1 / sqrt(size) sds, is above half an sd."""
    size = fit.status.details.get("ess")
    if fit.draws is None or fit.posterior.attrs.get("draws") != "resampled":
        return []
    if size is None or size > _CARRIED:
        return []
    sentence = (
        f"the weights are worth {size:.1f} draws, whose noise alone is above half an sd; fit a better "
        "proposal"
    )
    return [Finding("error", "weights", float(size), sentence)]


def _khat_finding(value: float, size: int) -> Finding:
    limit = khat_limit(size)
    level: Any = "ok" if value < min(0.5, limit) else "warning" if value < limit else "error"
    return Finding(level, "khat", value, f"PSIS k-hat {value:.2f} of weights p/q (good: below {limit:.2f})")


def ladder_gap(log_w: np.ndarray, particles: int = _PARTICLES) -> tuple[float, float]:
    r"""IWAE of ``particles`` weights less the ELBO, from log weights (s,): nats and standard error.

    Groups of the draws at hand give both, so that they share their noise. The gap is at most
    KL(q || p), the ELBO's distance from the evidence (Burda, Grosse and Salakhutdinov 2016, theorem 1).
    """
    particles = max(2, min(particles, len(log_w) // 10))
    groups = len(log_w) // particles
    if groups < 2:
        return math.nan, math.nan
    grouped = log_w[: groups * particles].reshape(groups, particles)
    each = np.logaddexp.reduce(grouped, axis=1) - math.log(particles) - grouped.mean(1)
    return float(each.mean()), float(each.std(ddof=1) / math.sqrt(groups))


def _gap_finding(log_w: np.ndarray) -> Finding:
    value, error = ladder_gap(log_w)
    level: Any = "warning" if value - 2 * error > _GAP else "ok"
    far = "the guide is far from the posterior" if level == "warning" else f"near: below {_GAP:g}"
    return Finding(
        level, "ladder", value, f"IWAE exceeds the ELBO by {value:.2f} +- {error:.2f} nats ({far})"
    )


__all__ = [
    "BAD_R_HAT",
    "FAIR_R_HAT",
    "GOOD_R_HAT",
    "LEAST_ESS",
    "diagnose",
    "ladder_gap",
    "pooled_error",
    "starts_of",
]
