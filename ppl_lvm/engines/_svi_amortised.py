"""From trained weights to a Fit: the evidence as a bound with its error, and the history."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.backends.amortised import BLOCK, Evaluator, evaluator
from ppl_lvm.core import Evidence, Problem, Run, Status
from ppl_lvm.engines._epochs import PARTS, Arrays, History, train
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI

_EVALUATIONS = 200_000  # data times particles spent on the evidence


def run_epochs(engine: SVI, problem: Problem, run: Run, backend: str) -> Fit:
    """Train by epochs on one backend."""
    trainer: Any
    if backend == "numpyro":
        from ppl_lvm.backends.session import jax_session
        from ppl_lvm.engines._jax_epochs import JaxTrainer

        with jax_session(problem.dtype):
            trainer = JaxTrainer(engine, problem, run)
            params, status, history = train(engine, problem, run, trainer, "NumPyro")
    else:
        from ppl_lvm.engines._pyro_epochs import TorchTrainer

        trainer = TorchTrainer(engine, problem, run)
        params, status, history = train(engine, problem, run, trainer, "Pyro")
    evidence = _evidence(engine, problem, evaluator(problem, backend), params, run)
    return Fit(
        model=problem.model,
        engine=engine,
        backend=backend,
        problem=problem,
        params=params,
        evidence=evidence,
        groups=_groups(history),
        status=status,
    )


def _evidence(engine: SVI, problem: Problem, of: Evaluator, params: Arrays, run: Run) -> Evidence:
    """The objective's own bound over all data; over a random part of them where all would take long."""
    n, objective = problem.num_data or 0, engine.objective
    given = {**params, **problem.model.fixed_params}
    num = objective.num_particles if hasattr(objective, "alpha") else max(objective.num_particles, 2)
    most = max(_EVALUATIONS // num, 100)
    rows = np.sort(run.rng(35).choice(n, most, replace=False)) if n > most else np.arange(n)
    data = {k: v[rows] if k in problem.batched else v for k, v in problem.arguments.items()}
    if hasattr(objective, "alpha"):
        found = of.importance(given, data, num, run.word(36), BLOCK, objective.alpha)
        each, noise = found.value, found.std_error
    else:
        parts = of.elbo(given, data, num, run.word(36), BLOCK)
        each, noise = parts["bound"], parts["std_error"]
    m = len(rows)
    variance = float((noise**2).sum()) * (n / m) ** 2
    note = ""
    if m < n:
        variance += n**2 * float(each.var(ddof=1)) / m * (1 - m / n)
        note = f"from {m} of {n} data"
    alpha = getattr(objective, "alpha", 0.0)
    kind: Any = "lower_bound" if 0 <= alpha < 1 else "estimate"
    names = tuple(n for n in problem.params)
    return Evidence(kind, float(each.mean()) * n, math.sqrt(variance), names, note)


def _groups(history: History) -> dict[str, Any]:
    """``optimization``: the loss at every step; ``training``: figures by epoch, nats per datum."""
    import xarray as xr

    steps = np.concatenate(history.steps) if history.steps else np.zeros((0, len(PARTS)))
    epochs = np.array([s.mean(0) for s in history.steps if len(s)]).reshape(-1, len(PARTS))
    values = {name: ("epoch", epochs[:, i]) for i, name in enumerate(PARTS)}
    values |= {
        "learning_rate": ("epoch", np.array(history.rates)),
        "beta": ("epoch", np.array(history.betas)),
    }
    if history.validation:
        values["validation_bound"] = ("epoch", np.array(history.validation))
    size = len(epochs)
    values = {k: (dim, v[:size]) for k, (dim, v) in values.items()}
    loss = xr.Dataset({"loss": (("chain", "step"), -steps[None, :, 0])})
    return {"optimization": loss, "training": xr.Dataset(values, {"epoch": np.arange(1, size + 1)})}


def stopped(status: Status) -> bool:
    """Whether the user stopped the run."""
    return status.outcome.name == "INTERRUPTED"
