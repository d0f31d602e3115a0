"""What a trained amortised model (a VAE) answers: encodings, reconstructions, samples, scores.

Everything runs in blocks: at most ``block`` data times particles are worked on at once, whatever the numbers
of data and particles. The encoder's q(z | x) is an approximation; means and draws of z are of q.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.backends.amortised import BLOCK, Arrays, Evaluator, amortised, evaluator
from ppl_lvm.conditioning import condition
from ppl_lvm.core import Evidence, Problem, Status
from ppl_lvm.fitting import prepare
from ppl_lvm.result import Fit, chain_dataset

if TYPE_CHECKING:
    import xarray as xr


def is_amortised(fit: Fit) -> bool:
    """Whether a fit is of a model with networks for all its latents, trained by epochs."""
    if fit.draws is not None and not fit.model.trains_by_epochs:
        return False
    if fit.problem is None:
        return fit.model.trains_by_epochs
    return any(amortised(fit.problem, b) for b in ("pyro", "numpyro"))


def at(fit: Fit, data: Any) -> tuple[Problem, Evaluator, Arrays]:
    """The problem at new data (the fit's own if None), the evaluations, and the trained params."""
    from ppl_lvm.predictive import problem_at

    problem = problem_at(fit, data)
    return problem, evaluator(problem), {**fit.params, **fit.model.fixed_params}


def rows_of(problem: Problem) -> Arrays:
    """The program's arguments, all of which run along the data."""
    return {k: np.asarray(v) for k, v in problem.arguments.items()}


def transform(fit: Fit, data: Any, *, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of q(z | x), (n, q) each; several latent sites stand side by side."""
    problem, of, params = at(fit, data)
    found = of.moments(params, rows_of(problem), 0, block)
    flat = [[v[i].reshape(len(v[i]), -1) for v in found.values()] for i in range(2)]
    return np.concatenate(flat[0], 1), np.concatenate(flat[1], 1)


def latents(fit: Fit, data: Any, *, num_draws: int, seed: int, block: int = BLOCK) -> xr.Dataset:
    """Draws of q(z | x), (chain, draw, n, ...)."""
    problem, of, params = at(fit, data)
    drawn = of.draw(params, rows_of(problem), num_draws, seed, block)
    found = chain_dataset(problem, {k: v[None] for k, v in drawn.items()}, kind="independent")
    return found.assign_attrs(of="the encoder's q(z | x)")


def encode(fit: Fit, data: Any, *, num_draws: int = 1000, seed: int = 0, block: int = BLOCK) -> Fit:
    """q(z | x) of the data as a fit of ``lvm.condition(fit.model, fit)``: to be compared with NUTS on that.

    Its evidence is the ELBO of these data. For a single datum ``sample_stats`` holds log p and log q, from
    which k-hat comes; the group ``per_datum`` has k-hat and effective sizes of each datum's own weights.
    """
    _check_count("num_draws", num_draws, least=25)  # k-hat takes its tail from a fifth of them
    held = condition(fit.model, fit)
    if data is None and fit.problem is None:
        raise ValueError("data: this fit was loaded without its data; pass the data to encode.")
    raw = fit.problem.data if data is None and fit.problem is not None else data
    problem = prepare(held, raw, dtype=fit.meta.get("dtype"), fitting=False)
    of, params, rows = evaluator(problem), {**fit.params, **fit.model.fixed_params}, rows_of(problem)
    drawn = of.draw(params, rows, num_draws, seed, block)
    weights, log_q = _weights_at(of, params, rows, drawn, block)
    parts = of.elbo(params, rows, 50, seed + 1, block)
    error = float(np.sqrt((parts["std_error"].astype(float) ** 2).sum()))
    evidence = Evidence(
        "lower_bound", float(parts["bound"].astype(float).sum()), error, tuple(problem.params)
    )
    stats = None
    if weights.shape[1] == 1:
        both = {"log_p": (weights + log_q).T, "log_q": log_q.T}
        stats = chain_dataset(None, both, kind="independent")
    return Fit(
        model=held,
        engine=fit.engine,
        backend=fit.backend,
        problem=problem,
        draws=chain_dataset(problem, {k: v[None] for k, v in drawn.items()}, kind="independent"),
        params=dict(fit.params),
        evidence=evidence,
        sample_stats=stats,
        groups={"per_datum": _per_datum(problem, weights)},
        status=Status(messages=("draws of the encoder's q(z | x)",)),
        meta={**{k: fit.meta[k] for k in ("dtype", "versions", "columns") if k in fit.meta}, "seed": seed,
              "num_data": problem.num_data, "backend": fit.backend, "engine": type(fit.engine).__name__},
    )  # fmt: skip


def _weights_at(
    of: Evaluator, params: Arrays, rows: Arrays, drawn: Arrays, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """log weights and log q (s, n) at draws, in blocks of data."""
    num, n = next(iter(drawn.values())).shape[:2]
    step = max(1, block // num)
    weights, log_q = [], []
    for first in range(0, n, step):
        part = slice(first, first + step)
        found = of.terms_at(
            params, {k: v[part] for k, v in rows.items()}, {k: v[:, part] for k, v in drawn.items()}
        )
        weights.append(found[0].astype(float) + found[1] - found[2])
        log_q.append(found[2].astype(float))
    return np.concatenate(weights, 1), np.concatenate(log_q, 1)


def _per_datum(problem: Problem, weights: np.ndarray) -> xr.Dataset:
    import xarray as xr

    from ppl_lvm.diagnostics import psis

    khat = np.array([psis(w)[1] for w in weights.T])
    share = np.exp(weights - weights.max(0))
    ess = share.sum(0) ** 2 / (share**2).sum(0)
    plate = problem.data_plate or "data"
    return xr.Dataset({"khat": (plate, khat), "ess": (plate, ess)}, {plate: np.arange(len(khat))})


def decode(fit: Fit, z: Any, *, seed: int = 0, draw: bool = False, block: int = BLOCK) -> np.ndarray:
    """Mean of p(x | z) at latents z (m, q), (m, *image); a draw of it with ``draw``.

    Categories: probabilities, (m, *image, C), or drawn categories.
    """
    z = np.asarray(z, dtype=float)
    problem = _blank(fit, 2)
    names = [s.name for s in problem.latents()]
    width = problem.sites[names[0]].shape[1:]
    if len(names) != 1 or z.shape[1:] != width or not len(z):
        raise ValueError(f"z: expected latents of shape (m, {', '.join(map(str, width))}), got {z.shape}.")
    if not np.isfinite(z).all():
        raise ValueError("z: has NaN or infinite values; give finite latents.")
    of, params = evaluator(problem), {**fit.params, **fit.model.fixed_params}
    rows = {k: np.zeros((len(z), *v.shape[1:]), v.dtype) for k, v in rows_of(problem).items()}
    values = {names[0]: z.astype(problem.dtype)}
    found = of.observed(params, rows, values, seed, block)
    return next(iter(found.values()))[1 if draw else 0]


def reconstruct(fit: Fit, data: Any, *, num_draws: int = 0, seed: int = 0, block: int = BLOCK) -> np.ndarray:
    """Mean of p(x | z) at the mean of q(z | x), (n, *image); with ``num_draws``, averaged over draws of q."""
    problem, of, params = at(fit, data)
    rows = rows_of(problem)
    if not num_draws:
        means = {k: v[0] for k, v in of.moments(params, rows, seed, block).items()}
        return next(iter(of.observed(params, rows, means, seed, block).values()))[0]
    drawn = of.draw(params, rows, num_draws, seed, block)
    total: Any = 0.0
    for i in range(num_draws):
        values = {k: v[i] for k, v in drawn.items()}
        total = total + next(iter(of.observed(params, rows, values, seed, block).values()))[0].astype(float)
    return np.asarray(total / num_draws)


def sample(fit: Fit, num: int, seed: int, *, mean: bool = False, block: int = BLOCK) -> np.ndarray:
    """New data: z from the prior, x from p(x | z); with ``mean`` the mean of p(x | z), (num, *image)."""
    problem = _blank(fit, 2)
    of, params = evaluator(problem), {**fit.params, **fit.model.fixed_params}
    rows = {k: np.zeros((num, *v.shape[1:]), v.dtype) for k, v in rows_of(problem).items()}
    values = of.prior(params, rows, seed, block)
    found = of.observed(params, rows, values, seed + 1, block)
    return next(iter(found.values()))[0 if mean else 1]


def simulate(fit: Fit, num: int, seed: int, *, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (z, x) from the joint density: z is an exact draw of the posterior given x."""
    problem = _blank(fit, 2)
    of, params = evaluator(problem), {**fit.params, **fit.model.fixed_params}
    rows = {k: np.zeros((num, *v.shape[1:]), v.dtype) for k, v in rows_of(problem).items()}
    values = of.prior(params, rows, seed, block)
    drawn = next(iter(of.observed(params, rows, values, seed + 1, block).values()))[1]
    return next(iter(values.values())), drawn


def _blank(fit: Fit, num: int) -> Problem:
    """The problem at rows that only give shapes."""
    blank = fit.model.blank_rows(num)
    if blank is None:
        if fit.problem is None:
            raise ValueError(
                "this fit was loaded without its data, from which the shapes come; load it with its data."
            )
        return fit.problem
    return prepare(fit.model, blank, dtype=fit.meta.get("dtype"), fitting=False)


def log_predictive(fit: Fit, data: Any, num_particles: int, *, seed: int = 0, block: int = BLOCK) -> Any:
    """IWAE bounds of log p(x | params) by datum, with standard errors (delta method)."""
    from ppl_lvm.predictive import LogPredictive

    _check_count("num_particles", num_particles)
    problem, of, params = at(fit, data)
    found = of.importance(params, rows_of(problem), num_particles, seed, block)
    error = float(np.sqrt((found.std_error**2).sum()))
    return LogPredictive(found.value, found.std_error, float(found.value.sum()), error, "lower_bound")


def _check_count(name: str, value: Any, *, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}.")


__all__ = [
    "BLOCK",
    "decode",
    "encode",
    "is_amortised",
    "latents",
    "log_predictive",
    "reconstruct",
    "sample",
    "simulate",
    "transform",
]
