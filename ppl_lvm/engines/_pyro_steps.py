"""Steps of Pyro's SVI, with all that they depend on as arrays: params, Adam's state, random generators."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch

from ppl_lvm.backends._pyro_flow import pace
from ppl_lvm.backends._pyro_trace import to_torch
from ppl_lvm.backends.session import generator_states, set_generator_states
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._adam import forgetting
from ppl_lvm.engines._batches import Batches
from ppl_lvm.engines._checkpoint import Arrays
from ppl_lvm.engines._interrupt import Interrupt
from ppl_lvm.engines._pyro_adam import Adam
from ppl_lvm.engines._pyro_ranks import ranks_of
from ppl_lvm.engines._sources import Source
from ppl_lvm.engines._steps import check_same_params

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI

_LOG = logging.getLogger("ppl_lvm")
_MOMENTS = ("first", "second", "square")


class PyroStepper:
    """See :class:`ppl_lvm.engines._steps.Stepper`; lives within one ``torch_session``."""

    def __init__(self, engine: SVI, problem: Problem, run: Run, svi: Any, source: Source | None) -> None:
        self.svi, self.batched, self.source = svi, problem.batched, source
        self.num_restarts, self.ranks, self.seed = 1, ranks_of(engine, problem), run.seed
        self.mean: dict[str, Any] | None = {} if engine.average else None
        self.marked: dict[str, Any] = {}
        self.batches = None
        if engine.batch_size is not None and problem.num_data is not None:
            self.batches = Batches(run.seed, problem.num_data, engine.batch_size)
        shared = dict(problem.arguments)  # rows of batches are read where they are: no copy of all of them
        self.rows = {} if self.batches is None else {k: shared.pop(k) for k in problem.batched}
        self.args = to_torch(shared)

    def steps(self, first: int, count: int, begin: int | None, stop: Interrupt) -> np.ndarray:
        losses: list[float] = []
        for step in range(first, first + count):
            losses.append(self._step(step))
            if self.mean is not None and begin is not None:
                self._average(self.mean, 1.0 / (step - begin + 1))
            if stop.requested or not np.isfinite(losses[-1]):
                break
        return np.array(losses)[None]

    def _average(self, mean: dict[str, Any], weight: float) -> None:
        """The first weight is 1, which begins anew."""
        for name, param in self._free().items():
            value = param.detach()
            before = mean.setdefault(name, value.clone())
            before.add_(value - before, alpha=weight)

    def finish(self, best: int, averaged: bool) -> None:
        del best  # there is one
        if averaged and self.mean:
            self._set(self.mean)

    def place(self) -> np.ndarray:
        free = [p.detach().numpy().ravel() for p in self._free().values()]
        return np.concatenate(free, dtype=float)[None] if free else np.zeros((1, 0))

    def mark(self) -> None:
        self.marked = {name: value.clone() for name, value in self._current().items()}

    def _current(self) -> dict[str, Any]:
        return self.mean or {name: param.detach() for name, param in self._free().items()}

    def gains(self, first: int, count: int) -> np.ndarray:
        own = {name: param.detach().clone() for name, param in self._free().items()}
        now = {name: value.clone() for name, value in self._current().items()}
        out = []
        for step in range(first, first + count):
            whole, noise, losses = self._whole(step), generator_states(), []
            for values in (self.marked, now):
                set_generator_states(noise)
                self._set(values)
                losses.append(self._loss(whole))
            out.append(losses[0] - losses[1])
        self._set(own)
        return np.array(out)[None]

    def _set(self, values: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, param in self._free().items():
                param.copy_(values[name])

    def _loss(self, whole: dict[str, Any]) -> float:
        if self.ranks is None:
            return float(self.svi.evaluate_loss(**whole))
        with self.ranks.noise():
            told = torch.tensor([self.svi.evaluate_loss(**self._own(whole))], dtype=torch.float64)
        self.ranks.average([told])
        return float(told)

    def _step(self, step: int) -> float:
        """The loss; NaN where a param has left what a distribution allows, which torch says by an error."""
        try:
            whole = self._whole(step)
            if self.ranks is None:
                return float(self.svi.step(**whole))
            rows = {k: whole[k].numpy() for k in self.batched}
            self.ranks.check_same(seed=self.seed, step=step, **rows)
            return self.ranks.step(self.svi, self._own(whole))
        except ValueError as error:
            if not (step and str(error).startswith("Expected ")):
                raise  # the program's own
            _LOG.warning("SVI, step %d: %s", step + 1, str(error).split("\n")[0])
            return math.nan

    def _own(self, whole: dict[str, Any]) -> dict[str, Any]:
        """Of the arguments of a step, where several processes share its rows, those of this one."""
        if self.ranks is None:
            return whole
        return {k: self.ranks.share(v) if k in self.batched else v for k, v in whole.items()}

    def _whole(self, step: int) -> dict[str, Any]:
        if self.source is not None:
            return to_torch(self.source.batch(step))
        if self.batches is None:
            return self.args
        rows = self.batches.rows(step, 1)[0]
        return {**self.args, **to_torch({k: v[rows] for k, v in self.rows.items()})}

    def arrays(self) -> Arrays:
        out = {f"free/{n}": p.detach().numpy().copy() for n, p in self._free().items()}
        for name, saved in self.svi.optim.get_state().items():
            for moments in saved["state"].values():  # none where the objective has no gradient for it
                out |= {f"{key}/{name}": moments[key].numpy().copy() for key in _MOMENTS}
                out[f"step/{name}"] = np.asarray(moments["step"])
            out[f"rate/{name}"] = np.asarray(saved["param_groups"][0]["lr"])
        out |= {f"mean/{n}": v.numpy().copy() for n, v in (self.mean or {}).items()}
        out |= {f"marked/{n}": v.numpy().copy() for n, v in self.marked.items()}
        return out | {f"random/{n}": v for n, v in generator_states().items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():  # declares the params
            self.svi.loss(self.svi.model, self.svi.guide, **self._own(self._whole(0)))
        free = self._free()
        check_same_params(arrays, free, "free/")
        with torch.no_grad():
            for name, param in free.items():
                param.copy_(torch.from_numpy(np.array(arrays[f"free/{name}"])))
                if f"rate/{name}" in arrays:
                    self._restore_optimiser(name, param, arrays)
        self.marked = _tensors(arrays, "marked/")
        if self.mean is not None:
            self.mean = _tensors(arrays, "mean/")
        states = {n: v for n, v in arrays.items() if n.startswith("random/")}
        set_generator_states({n.removeprefix("random/"): v for n, v in states.items()})

    def _restore_optimiser(self, name: str, param: Any, arrays: Mapping[str, np.ndarray]) -> None:
        optim = self.svi.optim
        own = optim.optim_objs[param] = optim._get_optim(param)
        optim.grad_clip[param] = optim._get_grad_clip(param)
        if f"step/{name}" in arrays:
            moments = {key: torch.from_numpy(np.array(arrays[f"{key}/{name}"])) for key in _MOMENTS}
            own.state[param] = {"step": int(arrays[f"step/{name}"]), **moments}
        own.param_groups[0]["lr"] = float(arrays[f"rate/{name}"])

    def _free(self) -> dict[str, Any]:
        store = pyro.get_param_store()
        return {n: store._params[n] for n in store.keys()}  # noqa: SIM118  # not a mapping


def _tensors(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    own = {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}
    return {n: torch.from_numpy(np.array(v)) for n, v in own.items()}


def optimiser(engine: SVI, steps: int, guide: Callable[..., Any]) -> Any:
    """The optimiser, its step size decaying over ``steps`` steps."""
    rate, decay = float(engine.learning_rate or 0.0), float(engine.learning_rate_decay or 1.0)

    def settings(name: str) -> dict[str, Any]:
        return {
            "lr": rate * pace(guide, name),
            "lrd": decay ** (1.0 / steps),
            "clip_norm": engine.clip_norm,
            "forgetting": forgetting(engine),
        }

    return pyro.optim.PyroOptim(Adam, settings)
