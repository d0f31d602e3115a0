"""NUTS on Pyro: chains one after another in this process, each with a seed of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro.infer import MCMC
from pyro.infer.autoguide.initialization import init_to_uniform, init_to_value
from pyro.infer.mcmc import NUTS as PyroNUTS

from ppl_lvm.backends._pyro_density import EnumerateAll
from ppl_lvm.backends._pyro_trace import HoldParams, ImproperOrigin, to_torch
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._start import starting_values
from ppl_lvm.progress import bar

if TYPE_CHECKING:
    from ppl_lvm.engines.nuts import NUTS


def sample(
    engine: NUTS, problem: Problem, run: Run, params: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draws by site and statistics, each (chain, draw, ...); ``warmup_steps`` among them is (chain,)."""
    args = to_torch(problem.arguments)
    model = HoldParams({**problem.model.fixed_params, **params})(problem.model.pyro.model)
    num_starts = engine.num_starts or engine.num_chains
    starts = starting_values(problem, run, num_starts) * (engine.num_chains // num_starts)
    seeds = run.rng(7).integers(0, 2**31 - 1, engine.num_chains)
    total = (engine.num_warmup + engine.num_samples) * engine.num_chains
    chains = []
    with bar(total, "NUTS (Pyro)", run.progress) as tick:
        for start, seed in zip(starts, seeds, strict=True):
            pyro.set_rng_seed(int(seed))
            chains.append(_one_chain(engine, problem, model, args, start, tick))
    values = {k: np.stack([c[0][k] for c in chains]) for k in chains[0][0]}
    stats = {k: np.stack([c[1][k] for c in chains]) for k in chains[0][1]}
    return values, stats


def _one_chain(
    engine: NUTS,
    problem: Problem,
    model: Callable[..., Any],
    args: Any,
    start: dict,
    tick: Callable[..., None],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    values = {k: to_torch(np.asarray(v, dtype=problem.dtype)) for k, v in start.items()}
    kernel = _CountedNUTS(
        EnumerateAll()(ImproperOrigin()(model)),
        init_strategy=init_to_value(values=values, fallback=init_to_uniform),
        max_plate_nesting=problem.max_plate_nesting,
        target_accept_prob=engine.target_accept,
        max_tree_depth=engine.max_tree_depth,
        full_mass=engine.dense_mass,
    )
    recorder = _Recorder(tick)
    mcmc = MCMC(
        kernel,
        num_samples=engine.num_samples,
        warmup_steps=engine.num_warmup,
        hook_fn=recorder,
        disable_progbar=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's notes on its own deprecations, once per chain
        mcmc.run(**args)
    draws = mcmc.get_samples()
    names = [s.name for s in problem.latents(discrete=False)]
    return {k: draws[k].detach().numpy() for k in names}, recorder.arrays()


class _Counted:
    """The potential energy, and how often the kernel has asked for it: once each leapfrog step."""

    def __init__(self, inner: Callable[[Any], Any]) -> None:
        self.inner, self.calls = inner, 0

    def __call__(self, values: Any) -> Any:
        self.calls += 1
        return self.inner(values)


class _CountedNUTS(PyroNUTS):
    """Pyro's kernel keeps no count of its steps."""

    def _initialize_model_properties(self, model_args: Any, model_kwargs: Any) -> None:
        super()._initialize_model_properties(model_args, model_kwargs)
        self.potential_fn: Any = _Counted(self.potential_fn)


class _Recorder:
    """Collects per-draw statistics from the kernel after each transition."""

    def __init__(self, tick: Callable[..., None]) -> None:
        self.tick = tick
        self.rows: list[tuple[float, float, bool, float, int]] = []
        self.previous_mean, self.count = 0.0, 0
        self.warmup_steps = self.seen_calls = 0

    def __call__(self, kernel: Any, samples: Any, stage: str, i: int) -> None:
        self.tick(1)
        steps, self.seen_calls = kernel.potential_fn.calls - self.seen_calls, kernel.potential_fn.calls
        if not stage.lower().startswith("sample"):
            self.warmup_steps += steps
            return
        with torch.no_grad():
            potential = float(kernel.potential_fn.inner(samples))
        mean = float(kernel._mean_accept_prob)
        self.count += 1
        rate = self.count * mean - (self.count - 1) * self.previous_mean
        self.previous_mean = mean
        seen = len(self.rows)
        diverging = kernel._divergences[-1] == seen if kernel._divergences else False
        rate = float(np.clip(rate, 0.0, 1.0))
        self.rows.append((-potential, rate, diverging, float(kernel.step_size), steps))

    def arrays(self) -> dict[str, np.ndarray]:
        lp, rate, diverging, size, steps = zip(*self.rows, strict=True)
        return {
            "lp": np.array(lp),
            "acceptance_rate": np.array(rate),
            "diverging": np.array(diverging, dtype=bool),
            "step_size": np.array(size),
            "n_steps": np.array(steps),
            "warmup_steps": np.array(self.warmup_steps),
        }
