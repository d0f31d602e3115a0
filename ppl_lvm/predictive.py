"""The predictive workflow: prior and posterior predictive draws, checks, scores, local latents.

Everything here runs on the model's closed forms where it has them, else on its Pyro program.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppl_lvm.backends._few_rows import without_rows
from ppl_lvm.core import Problem, as_model
from ppl_lvm.data import is_dataframe
from ppl_lvm.diagnostics import moments, quantities
from ppl_lvm.families import family_of, is_amortized
from ppl_lvm.fitting import prepare
from ppl_lvm.result import Fit, chain_dataset, flat_draws

if TYPE_CHECKING:
    import xarray as xr


# ---- prior ---------------------------------------------------------------------------------------


def sample_prior(model: Any, data: Any, *, num_draws: int = 500, seed: int = 0) -> xr.DataTree:
    """Draws of the prior and of the data that it predicts, in the shapes of ``data``.

    Returns a DataTree with groups ``prior`` and ``prior_predictive``, dims (chain, draw, ...).

    Raises
    ------
    ValueError
        If a prior is improper, so that it cannot be drawn from.
    """
    import xarray as xr

    from ppl_lvm.backends._pyro_predict import forward
    from ppl_lvm.backends.session import torch_session

    _check_draws(num_draws)
    problem = prepare(model, data)
    with torch_session(seed, problem.dtype):
        latent, observed = forward(problem, None, num_draws)
    if hasattr(problem.model.exact, "replicate"):
        observed = _replicated(problem, latent, seed)
    groups = {
        "prior": chain_dataset(problem, {k: v[None] for k, v in latent.items()}, kind="independent"),
        "prior_predictive": chain_dataset(
            problem, {k: v[None] for k, v in observed.items()}, kind="independent"
        ),
    }
    return xr.DataTree.from_dict(groups)


# ---- posterior predictive ------------------------------------------------------------------------


def sample_predictive(fit: Fit, data: Any = None, *, num_draws: int = 500, seed: int = 0) -> xr.Dataset:
    """Replicated observations, dims (chain, draw, ...), one for each of ``num_draws`` draws.

    Sites in the posterior take its draws; local sites that are not in it, or that belong to other
    rows when ``data`` are new, are drawn anew from the model given the globals. A point predicts at its
    parameters.
    """
    from ppl_lvm.backends._pyro_predict import forward
    from ppl_lvm.backends.session import torch_session

    _check_draws(num_draws)
    problem = problem_at(fit, data)
    values = _draws_for(fit, problem, num_draws, seed, same_rows=data is None)
    if hasattr(problem.model.exact, "replicate"):
        observed = _replicated(problem, values, seed)
    else:
        with torch_session(seed, problem.dtype):
            _, observed = forward(problem, values, num_draws, params=_params(fit))
    return chain_dataset(problem, {k: v[None] for k, v in observed.items()}, kind="independent")


def _replicated(problem: Problem, values: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """New data in the shape of the observed by the model's closed form, one set for each draw (s, ...)."""
    exact: Any = problem.model.exact
    return {k: np.asarray(v) for k, v in exact.replicate(values, problem.arguments, _rng(seed, 7)).items()}


def _rng(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream])


@dataclass(frozen=True)
class PredictiveCheck:
    """A posterior predictive check (Gelman, Meng and Stern 1996).

    ``observed`` is T(x), ``replicated`` (s,) are T(x_rep); ``p_value`` is P(T(x_rep) >= T(x)), ties
    counted half, with its Monte Carlo standard error.
    """

    name: str
    observed: float
    replicated: np.ndarray
    p_value: float
    std_error: float

    def __str__(self) -> str:
        return (
            f"{self.name}: observed {self.observed:.4g}, replicated "
            f"{self.replicated.mean():.4g} +- {self.replicated.std(ddof=1):.3g} (sd), "
            f"p = {self.p_value:.3f} +- {self.std_error:.3f}"
        )

    def plot(self) -> Any:
        """Histogram of the replicated statistic with the observed one marked; a Figure."""
        from ppl_lvm.plots import plot_check

        return plot_check(self)


def check(
    fit: Fit, statistic: Callable[[Any], float], *, num_draws: int = 500, seed: int = 0
) -> PredictiveCheck:
    """T(x_rep) against T(x); ``statistic`` takes the observed array (or a mapping, if several sites).

    Raises
    ------
    TypeError, ValueError
        If the statistic is not a function of the data that returns one finite number.
    """
    if not callable(statistic):
        raise TypeError(f"statistic: expected a function of the data, got {type(statistic).__name__}.")
    problem = problem_at(fit, None)
    observed = observed_values(problem)
    drawn = sample_predictive(fit, num_draws=num_draws, seed=seed)
    names = list(observed)
    replicated = {k: _like_observed(drawn[k].values[0], observed[k]) for k in names}

    def apply(values: Mapping[str, np.ndarray]) -> float:
        out = np.asarray(statistic(values[names[0]] if len(names) == 1 else values), dtype=float)
        if out.shape != () or not np.isfinite(out):
            missing = any(np.isnan(v).any() for v in observed.values() if v.dtype.kind == "f")
            hint = " The data have missing entries (NaN): use np.nanmean and the like." if missing else ""
            raise ValueError(f"statistic: expected one finite number, got {out!r}.{hint}")
        return float(out)

    own = apply(observed)
    others = np.array([apply({k: v[i] for k, v in replicated.items()}) for i in range(num_draws)])
    p = float((others > own).mean() + 0.5 * (others == own).mean())
    error = math.sqrt(max(p * (1 - p), 1.0 / num_draws / 4) / num_draws)
    return PredictiveCheck(getattr(statistic, "__name__", "statistic"), own, others, p, error)


def _like_observed(replicated: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Replicates miss what the data miss, so that a statistic of both sees the same entries."""
    if observed.dtype.kind != "f" or not np.isnan(observed).any():
        return replicated
    return np.where(np.isnan(observed), np.nan, replicated)


# ---- scores --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogPredictive:
    """Pointwise log predictive densities, nats.

    ``pointwise`` (n,) is the log of the mean density over draws, ``std_error`` (n,) its Monte Carlo
    error by the delta method. ``kind``: "estimate" (draws), "plug_in" (a point's density) or "lower_bound"
    (an IWAE bound of a model with networks).
    ``total_std_error`` accounts for the draws that all rows share.
    """

    pointwise: np.ndarray
    std_error: np.ndarray
    total: float
    total_std_error: float
    kind: Literal["estimate", "plug_in", "lower_bound"]


def log_predictive(fit: Fit, data: Any = None, *, num_particles: int = 5000) -> LogPredictive:
    """log p(x_i | training data) for each row of ``data`` (the training rows if None).

    ``num_particles`` are those of the IWAE bound of an amortised model.
    """
    from scipy.special import logsumexp

    from ppl_lvm import amortised

    if amortised.is_amortised(fit):
        return amortised.log_predictive(fit, data, num_particles)
    problem = problem_at(fit, data)
    terms, _ = pointwise_terms(fit, problem)
    s = len(terms)
    values = logsumexp(terms, axis=0) - math.log(s)
    if fit.is_point:
        zero = np.zeros_like(values)
        return LogPredictive(values, zero, float(values.sum()), 0.0, "plug_in")
    ratio = np.exp(terms - values)  # (s, n), mean 1
    size = effective_size(fit, s)
    error = ratio.std(0, ddof=1) / math.sqrt(size)
    total_error = float((ratio - 1).sum(1).std(ddof=1) / math.sqrt(size))
    return LogPredictive(values, error, float(values.sum()), total_error, "estimate")


def effective_size(fit: Fit, s: int) -> float:
    """Number of independent draws that a fit's s draws are worth (by log density, or the weights)."""
    kind = fit.draws.attrs.get("draws") if fit.draws is not None else None
    if kind == "resampled" and fit.sample_stats is not None and "run" in fit.sample_stats:
        return min(float(s), _runs_worth(fit))
    if kind == "resampled" and fit.sample_stats is not None:
        return 1.0 / float(np.exp(2 * fit.sample_stats["log_weight"].values).sum())
    if kind == "chain" and fit.sample_stats is not None and "lp" in fit.sample_stats:
        from arviz_stats.base import array_stats

        ess = float(array_stats.ess(fit.sample_stats["lp"].values, chain_axis=0, draw_axis=1, method="mean"))
        return min(float(s), max(ess, 1.0)) if math.isfinite(ess) else float(s)
    return float(s)


def _runs_worth(fit: Fit) -> float:
    """The smallest effective size of a quantity, where errors come from between independent runs."""
    found = moments(fit, quantities(fit, invariants=False))
    sizes = np.concatenate([np.ravel(f["ess_bulk"]) for f in found.values()])
    sizes = sizes[np.isfinite(sizes)]
    return max(float(sizes.min()), 1.0) if sizes.size else 1.0


def pointwise_terms(fit: Fit, problem: Problem) -> tuple[np.ndarray, str]:
    """log p(x_i | globals) for each draw and row, (s, n), local latents marginalised; and how.

    "exact" where the model has a closed form or only discrete local latents; else "estimate": the
    local continuous latents are integrated by importance sampling (:mod:`ppl_lvm.marginal`).
    """
    exact = getattr(problem.model.exact, "log_likelihood", None)
    values = _global_values(fit)
    if exact is not None:
        return np.asarray(exact(values, problem.arguments)), "exact"
    if problem.data_plate is None:
        raise ValueError(
            f"{fit.model.describe()} has no plate over data, so there is no density per datum; put the "
            "observed sites in a pyro.plate, or name it in Model(data_plate=...)."
        )
    from ppl_lvm.backends._pyro_marginal import per_datum_terms
    from ppl_lvm.backends.session import torch_session

    if problem is not fit.problem:  # other rows have local latents of their own
        values = {k: v for k, v in values.items() if k in problem.sites and not problem.sites[k].local}
    with torch_session(int(fit.meta.get("seed", 0)), problem.dtype):
        return per_datum_terms(problem, values, _params(fit))


def _global_values(fit: Fit) -> dict[str, np.ndarray]:
    """Values by site, (s, ...); a point is one draw."""
    if fit.is_point:
        return {k: np.asarray(v)[None] for k, v in fit.params.items()}
    return flat_draws(fit.posterior)


# ---- local latents -------------------------------------------------------------------------------


def predict_proba(fit: Fit, data: Any) -> np.ndarray:
    """(n, k), averaged over (relabelled) draws."""
    exact: Any = getattr(fit.model.exact, "predict_proba", None)
    if exact is None:
        raise ValueError(
            f"{fit.model.describe()} has no labels to predict in closed form; fit.latents(data) gives draws "
            "of its discrete sites."
        )
    problem = problem_at(fit, data)
    values = _global_values(fit)
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
    return np.asarray(own(_global_values(fit), problem_at(fit, data).arguments))


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
    mean, sd = exact(_global_values(fit), problem_at(fit, data).arguments)
    return np.asarray(mean), np.asarray(sd)


def inverse_transform(fit: Fit, z: Any) -> np.ndarray:
    """Posterior mean of the data at latents z (n, q), (n, d)."""
    from ppl_lvm import amortised

    if amortised.is_amortised(fit):
        return amortised.decode(fit, z)
    exact = _capability(fit, "inverse_transform", "has no continuous latents to map back from")
    return np.asarray(exact(_global_values(fit), np.asarray(z, dtype=float)))


def impute(fit: Fit, data: Any, *, num_draws: int, seed: int) -> xr.Dataset:
    """The data with missing entries drawn from their posterior predictive, (chain, draw, n, d)."""
    _check_draws(num_draws)
    exact = _capability(fit, "impute", "cannot impute missing entries in closed form")
    problem = problem_at(fit, data)
    values = _draws_for(fit, problem, num_draws, seed, same_rows=data is None)
    filled = np.asarray(exact(values, problem.arguments, _rng(seed, 8)))
    return chain_dataset(problem, {"obs": filled[None]}, kind="independent")


def forecast(fit: Fit, data: Any, *, steps: int, num_draws: int, seed: int) -> xr.Dataset:
    """Draws of the next observations of each sequence, (chain, draw, sequence, step, feature)."""
    _check_draws(num_draws)
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"steps: expected a positive integer, got {steps!r}.")
    exact = _capability(fit, "forecast", "has no order in time to forecast along")
    problem = problem_at(fit, data)
    values = _draws_for(fit, problem, num_draws, seed, same_rows=data is None)
    drawn = exact(values, problem.arguments, int(steps), _rng(seed, 9))
    dims = {k: (problem.data_plate, "step", "feature")[: np.ndim(v) - 1] for k, v in drawn.items()}
    arrays = {k: np.asarray(v)[None] for k, v in drawn.items()}
    return chain_dataset(problem, arrays, kind="independent", event_dims=dims)


def online_filter(fit: Fit) -> Any:
    """The model's filter of one observation at a time, at the fit's draws."""
    exact = _capability(fit, "filter", "has no order in time to filter along")
    found = exact(_global_values(fit))
    found.columns = fit.meta.get("columns")
    return found


def state_means(fit: Fit) -> np.ndarray:
    """Posterior mean of the mean of an observation in each state (component), (k, d)."""
    emission: Any = getattr(fit.model, "emission", None)
    if emission is None:
        raise ValueError(f"{fit.model.describe()} has no emission with a mean by state.")
    mean, _ = emission.moments(_global_values(fit))
    return np.asarray(mean).mean(0)


def _capability(fit: Fit, name: str, why_not: str) -> Any:
    found = getattr(fit.model.exact, name, None)
    if found is None:
        raise ValueError(f"{fit.model.describe()} {why_not}.")
    return found


def sample(fit: Fit, num: int, seed: int, **options: Any) -> np.ndarray:
    """New observations, each from one draw of the globals, (num, ...)."""
    from ppl_lvm import amortised

    _check_draws(num)
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
    values = _global_values(fit)
    rows = rng.integers(0, len(next(iter(values.values()))), num)
    chosen = {k: v[rows] for k, v in values.items()}
    return np.asarray(exact(chosen, 1, rng, **options)["obs"])[:, 0]


def latents(fit: Fit, data: Any, *, num_draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Draws of the local latents given the data and draws of the globals: never from the prior.

    Discrete sites are drawn from their conditional posterior with the continuous ones held at each
    draw (a sum-product pass backwards, as in Pyro's ``infer_discrete``). Continuous ones that the fit has no
    draws of are drawn by its amortised guide, where it has one.
    """
    from ppl_lvm import amortised
    from ppl_lvm.backends._pyro_predict import conditional_discrete
    from ppl_lvm.backends.session import torch_session

    _check_draws(num_draws)
    if amortised.is_amortised(fit):
        return amortised.latents(fit, data, num_draws=num_draws, seed=seed)
    problem = problem_at(fit, data)
    values = _draws_for(fit, problem, num_draws, seed, same_rows=data is None)
    own: Any = getattr(problem.model.exact, "latents", None)
    if own is not None:
        drawn = own(values, problem.arguments, _rng(seed, 10))
        return chain_dataset(problem, {k: np.asarray(v)[None] for k, v in drawn.items()}, kind="independent")
    known = {k: v for k, v in values.items() if k in problem.sites and problem.sites[k].local}
    names = [s.name for s in problem.latents(discrete=True)]
    missing = [s.name for s in problem.latents(discrete=False) if s.name not in values]
    guide = getattr(fit.engine, "guide", None)
    if missing and is_amortized(guide):
        from ppl_lvm.backends._pyro_datum_guides import draws_at

        with torch_session(seed, problem.dtype):
            values = draws_at(problem, family_of(guide), _params(fit), num_draws)
        known = {k: v for k, v in values.items() if problem.sites[k].local}
    elif missing:
        raise ValueError(
            f"latents: sites {missing} belong to the rows of the fit; at new data fit them again, or fit "
            "with guide='amortized'."
        )
    if not names and not known:
        raise ValueError(f"{fit.model.describe()} has no local latents.")
    out = dict(known)
    if names:
        with torch_session(seed, problem.dtype):
            out |= conditional_discrete(problem, values, _params(fit), names)
    return chain_dataset(problem, {k: v[None] for k, v in out.items()}, kind="independent")


def with_deterministic(fit: Fit) -> Fit:
    """The fit with the program's deterministic sites computed at every draw (of the proposal too)."""
    problem = fit.problem
    names = [s.name for s in problem.sites.values() if s.kind == "deterministic"] if problem else []
    if problem is not None and without_rows(problem) is not problem:  # a value per datum and draw is too much
        names = [n for n in names if not problem.sites[n].local]
    if problem is None or not names or (fit.draws is not None and set(names) <= set(fit.draws.data_vars)):
        return fit
    if fit.draws is None:
        one = {k: np.asarray(v)[None] for k, v in fit.params.items()}
        own: Any = getattr(fit.model.exact, "deterministic", None)
        if set(names) <= set(one):
            return fit
        found = own(one, problem.arguments) if own is not None else _deterministic_at(fit, one)
        return dataclasses.replace(
            fit, params={**fit.params, **{k: np.asarray(v)[0] for k, v in found.items()}}
        )
    groups = dict(fit.groups)
    if "proposal" in groups:
        groups["proposal"] = _add_deterministic(fit, groups["proposal"], names)
    return dataclasses.replace(fit, draws=_add_deterministic(fit, fit.draws, names), groups=groups)


def _deterministic_at(fit: Fit, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Deterministic sites (1, ...) at a point of the program's sites."""
    from ppl_lvm.backends._pyro_predict import forward
    from ppl_lvm.backends.session import torch_session

    problem: Any = fit.problem
    sites = {k: v for k, v in values.items() if k in problem.sites and problem.sites[k].kind == "latent"}
    with torch_session(0, problem.dtype):
        found, _ = forward(problem, sites, 1, params=_params(fit))
    return {k: v for k, v in found.items() if problem.sites[k].kind == "deterministic"}


def _add_deterministic(fit: Fit, draws: xr.Dataset, names: list[str]) -> xr.Dataset:
    from ppl_lvm.backends._pyro_predict import forward
    from ppl_lvm.backends.session import torch_session

    problem: Any = without_rows(fit.problem)  # type: ignore[arg-type]  # with draws there is one
    chains, size = draws.sizes["chain"], draws.sizes["draw"]
    own = getattr(fit.model.exact, "deterministic", None)
    if own is not None:
        found = own(flat_draws(draws), problem.arguments)
    else:
        with torch_session(0, problem.dtype):
            found, _ = forward(problem, flat_draws(draws), chains * size, params=_params(fit))
    added = {k: np.asarray(found[k]).reshape(chains, size, *np.shape(found[k])[1:]) for k in names}
    return draws.merge(chain_dataset(problem, added, kind="derived"))


def with_latents(fit: Fit) -> Fit:
    """Zoo models: local latents left out of the posterior, or (``keep_latents``) a draw of each put in."""
    if fit.draws is None or fit.problem is None or fit.model.to_settings() is None:
        return fit
    if not fit.model.keep_latents:
        local = [s.name for s in fit.problem.latents() if s.local and s.name in fit.draws]
        again = hasattr(fit.model.exact, "latents")  # they can be drawn again given the rest
        return dataclasses.replace(fit, draws=fit.draws.drop_vars(local)) if again else fit
    chains, size = fit.draws.sizes["chain"], fit.draws.sizes["draw"]
    drawn = latents(fit, None, num_draws=chains * size, seed=int(fit.meta.get("seed", 0)))
    added = {
        k: (("chain", "draw", *v.dims[2:]), v.values.reshape(chains, size, *v.shape[2:]))
        for k, v in drawn.data_vars.items()
        if k not in fit.draws
    }
    return dataclasses.replace(fit, draws=fit.draws.assign(added))


# ---- helpers -------------------------------------------------------------------------------------


def problem_at(fit: Fit, data: Any) -> Problem:
    """The fit's own problem, or the same model at new data."""
    if data is not None:
        data = _in_order(fit, data)
        return prepare(as_model(fit.model), data, dtype=fit.meta.get("dtype"), fitting=False)
    if fit.problem is None:
        raise ValueError("data: this fit was loaded without its data; pass the data to predict at.")
    return fit.problem


def _in_order(fit: Fit, data: Any) -> Any:
    """Columns of frames, by themselves, in a mapping or in a list, in the order of the fit's, by name."""
    columns = fit.meta.get("columns")
    if columns is None:
        return data
    if isinstance(data, Mapping):
        return {k: _in_order(fit, v) for k, v in data.items()}
    if isinstance(data, (list, tuple)) and any(is_dataframe(v) for v in data):
        return [_in_order(fit, v) for v in data]
    if not is_dataframe(data):
        return data
    names = [str(c) for c in data.columns]
    if names == columns:
        return data
    if sorted(names) != sorted(columns):
        raise ValueError(f"data: expected the columns {columns} of the fit, got {names}.")
    return data.iloc[:, [names.index(c) for c in columns]]


def observed_values(problem: Problem) -> dict[str, np.ndarray]:
    """Observed values by site: the model's own word (NaN where missing), else one run of the program."""
    own = problem.model.observations(problem.data)
    if own is not None:
        return own
    from ppl_lvm.backends._pyro_predict import observed
    from ppl_lvm.backends.session import torch_session

    with torch_session(0, problem.dtype):
        return observed(problem)


def _draws_for(fit: Fit, problem: Problem, num: int, seed: int, *, same_rows: bool) -> dict[str, np.ndarray]:
    """``num`` draws by site, spread evenly over the posterior's (in random order where repeated)."""
    values = _global_values(fit)
    size = len(next(iter(values.values())))
    rng = np.random.default_rng([seed, 6])
    rows = np.arange(size) if num == size else rng.choice(size, num, replace=num > size)
    keep = {
        k: v[rows]
        for k, v in values.items()
        if k in problem.sites
        and (problem.sites[k].kind == "latent" or k in _derived(problem))
        and not problem.sites[k].discrete
        and (same_rows or not problem.sites[k].local)
    }
    return keep


def _derived(problem: Problem) -> set[str]:
    """Deterministic sites that the model's closed forms take in place of what they are computed from."""
    if not hasattr(problem.model.exact, "deterministic"):
        return set()
    return {s.name for s in problem.sites.values() if s.kind == "deterministic"}


def _params(fit: Fit) -> dict[str, np.ndarray]:
    return {**fit.params, **fit.model.fixed_params}  # a point's latent sites are no ``param`` statements


def _check_draws(num: Any) -> None:
    if isinstance(num, bool) or not isinstance(num, (int, np.integer)) or num < 1:
        raise ValueError(f"num_draws: expected a positive integer, got {num!r}.")
