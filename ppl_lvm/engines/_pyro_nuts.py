"""NUTS on Pyro: chains one after another in this process, each with a seed of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import init_to_uniform, init_to_value
from pyro.infer.mcmc import NUTS as PyroNUTS

from ppl_lvm.backends._pyro_density import EnumerateAll
from ppl_lvm.backends._pyro_trace import HoldParams, ImproperOrigin, to_torch
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._nuts_run import Arrays, Drawn, blocks, relative
from ppl_lvm.engines._pyro_nuts_state import begin_with_metric, kernel_state, restore_kernel
from ppl_lvm.engines._start import draws_of, starting_values, thinned

if TYPE_CHECKING:
    from ppl_lvm.engines.nuts import NUTS


def sample(engine: NUTS, problem: Problem, run: Run, params: dict[str, np.ndarray]) -> Drawn:
    """Draws by site and statistics, each (chain, draw, ...)."""
    args = to_torch(problem.arguments)
    model = HoldParams({**problem.model.fixed_params, **params})(problem.model.pyro.model)
    num_starts = engine.num_starts or engine.num_chains
    starts = starting_values(problem, run, num_starts) * (engine.num_chains // num_starts)
    seeds = run.rng(7).integers(0, 2**31 - 1, engine.num_chains)
    total = (engine.num_warmup + engine.num_samples) * engine.num_chains
    chains, done = [], []
    known = thinned(draws_of(problem, run.init))
    with blocks(engine, problem, run, params, total, "NUTS (Pyro)") as plan:
        places = [plan.checkpoint(f"chain_{i}") for i in range(engine.num_chains)]
        for start, seed, place in zip(starts, seeds, places, strict=True):
            if plan.stop.requested:
                done.append(0)
                continue
            pyro.set_rng_seed(int(seed))
            with warnings.catch_warnings(), poutine.block():
                warnings.simplefilter("ignore")  # torch's notes on its own deprecations, once per chain
                chains.append(_Chain(engine, problem, model, args, start, known))
                done.append(plan.drive(chains[-1], place))
        kept, length, stopped = plan.longest(done)
    found = [chains[i].draws(length) for i in kept]
    stats = [chains[i].stats(length) for i in kept]
    names = [s.name for s in problem.latents(discrete=False)]
    return Drawn(
        {k: np.stack([f[k] for f in found]) for k in names},
        {k: np.stack([s[k] for s in stats]) for k in stats[0]},
        np.array([chains[i].warmup_steps for i in kept]),
        stopped,
    )


class _Chain:
    """Pyro's kernel, driven step by step.

    Its whole state is what :meth:`arrays` lists: point, density and gradient there, the adapter's step size,
    averages, window and mass matrix, counters, and torch's generator, which all of Pyro's draws come from.
    """

    def __init__(
        self,
        engine: NUTS,
        problem: Problem,
        model: Callable[..., Any],
        args: Any,
        start: dict[str, Any],
        known: dict[str, np.ndarray],
    ) -> None:
        values = {k: to_torch(np.asarray(v, dtype=problem.dtype)) for k, v in start.items()}
        self.kernel = _CountedNUTS(
            EnumerateAll()(ImproperOrigin()(model)),
            init_strategy=init_to_value(values=values, fallback=init_to_uniform),
            max_plate_nesting=problem.max_plate_nesting,
            target_accept_prob=engine.target_accept,
            max_tree_depth=engine.max_tree_depth,
            full_mass=engine.dense_mass,
        )
        self.kernel.setup(engine.num_warmup, **args)
        if known:
            begin_with_metric(self.kernel, known)
        self.num_warmup = engine.num_warmup
        self.points: list[torch.Tensor] = []
        self.rows: list[tuple[float, float, bool, float, int]] = []
        self.warmup_steps = self.seen_calls = 0
        self.previous_mean = 0.0

    def advance(self, first: int, last: int) -> None:
        kernel = self.kernel
        for i in range(first, last):
            point = kernel.sample(kernel.initial_params)  # it goes on from its own last point
            steps, self.seen_calls = kernel.potential_fn.calls - self.seen_calls, kernel.potential_fn.calls
            if i < self.num_warmup:
                self.warmup_steps += steps
            else:
                self._record(point, steps)

    def _record(self, point: dict[str, torch.Tensor], steps: int) -> None:
        kernel, seen = self.kernel, len(self.rows)
        with torch.no_grad():
            potential = float(kernel.potential_fn.inner(point))
        mean = float(kernel._mean_accept_prob)
        rate = float(np.clip((seen + 1) * mean - seen * self.previous_mean, 0.0, 1.0))
        self.previous_mean = mean
        diverging = bool(kernel._divergences) and kernel._divergences[-1] == seen
        self.points.append(torch.cat([point[k].detach().reshape(-1) for k in sorted(point)]))
        self.rows.append((-potential, rate, diverging, float(kernel.step_size), steps))

    def draws(self, count: int) -> dict[str, np.ndarray]:
        """The first draws (count, *shape) by site, constrained."""
        flat, out, at = torch.stack(self.points[:count]), {}, 0
        for name in sorted(self.kernel.initial_params):
            shape = self.kernel.initial_params[name].shape
            value = flat[:, at : at + shape.numel()].reshape(count, *shape)
            at += shape.numel()
            if name in self.kernel.transforms:
                value = self.kernel.transforms[name].inv(value)
            out[name] = value.detach().numpy()
        return out

    def stats(self, count: int) -> dict[str, np.ndarray]:
        columns = zip(*self.rows[:count], strict=True)
        return {k: np.array(v, dtype=t) for (k, t), v in zip(_STATS.items(), columns, strict=True)}

    def arrays(self, kept: int) -> tuple[Arrays, dict[str, Any]]:
        arrays, record = kernel_state(self.kernel)
        if self.points[:kept]:
            arrays |= {"kept/points": torch.stack(self.points[:kept]).numpy()}
            arrays |= {f"kept/{k}": v for k, v in self.stats(kept).items()}
        own = {"warmup_steps": self.warmup_steps, "seen": self.seen_calls, "mean": self.previous_mean}
        return arrays, {**record, "own": own}

    def restore(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> float:
        restore_kernel(self.kernel, arrays, record)
        self.points = list(torch.from_numpy(arrays["kept/points"])) if "kept/points" in arrays else []
        columns = [arrays[f"kept/{k}"].tolist() for k in _STATS] if self.points else []
        self.rows = list(zip(*columns, strict=True))
        own = record["own"]
        self.warmup_steps, self.seen_calls = int(own["warmup_steps"]), int(own["seen"])
        self.previous_mean = float(own["mean"])
        kernel = self.kernel
        with torch.no_grad():
            fresh = kernel.potential_fn.inner(kernel._z_last)
        return relative(float(fresh), arrays["state/potential"])


_STATS = {
    "lp": float,
    "acceptance_rate": float,
    "diverging": bool,
    "step_size": float,
    "n_steps": int,
}


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
