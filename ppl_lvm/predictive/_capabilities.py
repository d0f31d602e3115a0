"""What a model's closed forms answer at the fit's draws: labels, means of latents, forecasts, new rows."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.predictive._draws import sample_predictive
from ppl_lvm.predictive._inputs import check_draws, draws_for, generator, global_values, problem_at
from ppl_lvm.result import Fit, chain_dataset

if TYPE_CHECKING:
    import xarray as xr


def predict_proba(fit: Fit, data: Any) -> np.ndarray:
    """(n, k), averaged over (relabelled) draws."""
    exact: Any = getattr(fit.model.exact, "predict_proba", None)
    if exact is None:
        raise ValueError(
            f"{fit.model.describe()} has no labels to predict in closed form; fit.latents(data) gives draws "
            "of its discrete sites."
        )
    problem = problem_at(fit, data)
    values = global_values(fit)
    total, count = 0.0, len(next(iter(values.values())))
    for first in range(0, count, 100):
        part = {k: v[first : first + 100] for k, v in values.items()}
        total = total + exact(part, problem.arguments).sum(0)
    return np.asarray(total) / count


def predict(fit: Fit, data: Any) -> np.ndarray:
    """Labels from all draws together: the model's own rule (Viterbi), else the most probable label."""
    own = getattr(fit.model.exact, "predict", None)
    if own is None:
        return predict_proba(fit, data).argmax(-1)
    return np.asarray(own(global_values(fit), problem_at(fit, data).arguments))


def transform(fit: Fit, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means and sds of continuous local latents, in closed form, over all draws."""
    from ppl_lvm import amortised

    if amortised.is_amortised(fit):
        return amortised.transform(fit, data)
    exact = _capability(
        fit,
        "transform",
        "has no continuous latents to transform to; predict_proba gives the probabilities of labels, "
        "fit.latents draws of local sites",
    )
    mean, sd = exact(global_values(fit), problem_at(fit, data).arguments)
    return np.asarray(mean), np.asarray(sd)


def inverse_transform(fit: Fit, z: Any) -> np.ndarray:
    """Posterior mean of the data at latents z (n, q), (n, d)."""
    from ppl_lvm import amortised

    if amortised.is_amortised(fit):
        return amortised.decode(fit, z)
    exact = _capability(fit, "inverse_transform", "has no continuous latents to map back from")
    return np.asarray(exact(global_values(fit), np.asarray(z, dtype=float)))


def impute(fit: Fit, data: Any, *, num_draws: int, seed: int) -> xr.Dataset:
    """The data with missing entries drawn from their posterior predictive, (chain, draw, n, d)."""
    check_draws(num_draws)
    exact = _capability(fit, "impute", "cannot impute missing entries in closed form")
    problem = problem_at(fit, data)
    values = draws_for(fit, problem, num_draws, seed, same_rows=data is None)
    filled = np.asarray(exact(values, problem.arguments, generator(seed, 8)))
    return chain_dataset(problem, {"obs": filled[None]}, kind="independent")


def forecast(fit: Fit, data: Any, *, steps: int, num_draws: int, seed: int) -> xr.Dataset:
    """Draws of the next observations of each sequence, (chain, draw, sequence, step, feature)."""
    check_draws(num_draws)
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"steps: expected a positive integer, got {steps!r}.")
    exact = _capability(fit, "forecast", "has no order in time to forecast along")
    problem = problem_at(fit, data)
    values = draws_for(fit, problem, num_draws, seed, same_rows=data is None)
    drawn = exact(values, problem.arguments, int(steps), generator(seed, 9))
    dims = {k: (problem.data_plate, "step", "feature")[: np.ndim(v) - 1] for k, v in drawn.items()}
    arrays = {k: np.asarray(v)[None] for k, v in drawn.items()}
    return chain_dataset(problem, arrays, kind="independent", event_dims=dims)


def online_filter(fit: Fit) -> Any:
    """The model's filter of one observation at a time, at the fit's draws."""
    exact = _capability(fit, "filter", "has no order in time to filter along")
    found = exact(global_values(fit))
    found.columns = fit.meta.get("columns")
    return found


def state_means(fit: Fit) -> np.ndarray:
    """Posterior mean of the mean of an observation in each state (component), (k, d)."""
    emission: Any = getattr(fit.model, "emission", None)
    if emission is None:
        raise ValueError(f"{fit.model.describe()} has no emission with a mean by state.")
    mean, _ = emission.moments(global_values(fit))
    return np.asarray(mean).mean(0)


def _capability(fit: Fit, name: str, why_not: str) -> Any:
    found = getattr(fit.model.exact, name, None)
    if found is None:
        raise ValueError(f"{fit.model.describe()} {why_not}.")
    return found


def sample(fit: Fit, num: int, seed: int, **options: Any) -> np.ndarray:
    """New observations, each from one draw of the globals, (num, ...)."""
    from ppl_lvm import amortised

    check_draws(num)
    if amortised.is_amortised(fit):
        if set(options) - {"mean"}:
            raise TypeError(
                f"sample: unknown options {sorted(set(options) - {'mean'})}; a VAE takes ['mean']."
            )
        return amortised.sample(fit, num, seed, **options)
    exact = getattr(fit.model.exact, "sample", None)
    known = set(inspect.signature(exact).parameters) - {"values", "num", "rng"} if exact else set()
    if set(options) - known:
        raise TypeError(
            f"sample: unknown options {sorted(set(options) - known)}; {fit.model.describe()} takes "
            f"{sorted(known) or 'none'}."
        )
    if exact is None:
        drawn = sample_predictive(fit, num_draws=num, seed=seed)
        return np.asarray(next(iter(drawn.data_vars.values())).values[0])
    rng = np.random.default_rng([seed, 5])
    values = global_values(fit)
    rows = rng.integers(0, len(next(iter(values.values()))), num)
    chosen = {k: v[rows] for k, v in values.items()}
    return np.asarray(exact(chosen, 1, rng, **options)["obs"])[:, 0]
