"""Optimiser steps of an amortised Pyro model and guide: one torch optimiser over all params."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from torch.distributions import transform_to

from ppl_lvm.backends._pyro_amortised import AmortisedPrograms
from ppl_lvm.backends._pyro_trace import HoldParams, to_torch
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._epochs import Arrays, starting_params
from ppl_lvm.engines._interrupt import Interrupt
from ppl_lvm.engines._pyro_objectives import loss_of, parts_of
from ppl_lvm.engines._pyro_ranks import ranks_of

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI


class TorchTrainer:
    """See :class:`ppl_lvm.engines._epochs.Trainer`; lives within one ``torch_session``."""

    def __init__(self, engine: SVI, problem: Problem, run: Run, guide: Any = None) -> None:
        self.engine, self.fixed, self.batched = engine, problem.model.fixed_params, problem.batched
        self.programs = AmortisedPrograms(problem, guide)
        self.args = to_torch(problem.arguments)
        grey = problem.model.resampled(problem.data)
        self.grey = {k: torch.from_numpy(np.array(v, problem.dtype)) for k, v in grey.items()}
        few = self._rows(np.arange(min(2, problem.num_data or 2)))
        with torch.no_grad(), HoldParams(self.fixed):
            self.programs.traces(few, 1)  # declares the params
        store = pyro.get_param_store()
        self.names = [n for n in store.keys() if n not in self.fixed]  # noqa: SIM118  # not a mapping
        start = starting_params(problem, run, {n: store[n].detach().numpy() for n in self.names})
        with torch.no_grad():
            for name in self.names:
                free = store._params[name]
                value = torch.from_numpy(np.array(start[name])).to(free.dtype)
                free.copy_(transform_to(store._constraints[name]).inv(value))
        self.free = {n: store._params[n] for n in self.names}
        self.ranks, self.seed = ranks_of(engine, problem), run.seed
        self.adam = torch.optim.Adam(list(self.free.values()), lr=0.0, fused=True)

    def _rows(self, rows: np.ndarray) -> dict[str, Any]:
        index = torch.from_numpy(rows)
        return {k: v[index] if k in self.batched else v for k, v in self.args.items()}

    def _batch(self, rows: np.ndarray) -> dict[str, Any]:
        """A batch; of several processes, this one's part of it."""
        own = (lambda v: v) if self.ranks is None else self.ranks.share
        batch = self._rows(own(rows))
        index = torch.from_numpy(rows)
        for name, probability in sorted(self.grey.items()):
            batch[name] = own(torch.bernoulli(probability[index]))
        return batch

    def epoch(
        self, seed: int, order: np.ndarray, rates: np.ndarray, betas: np.ndarray, stop: Interrupt
    ) -> np.ndarray:
        torch.manual_seed(seed)
        out, noise = [], contextlib.nullcontext() if self.ranks is None else self.ranks.noise()
        if self.ranks is not None:
            rows = self._rows(order[0])
            self.ranks.check_same(seed=self.seed, epoch=seed, **{k: rows[k].numpy() for k in self.batched})
        with pyro.validation_enabled(False), HoldParams(self.fixed):
            for rows, rate, beta in zip(order, rates, betas, strict=True):
                if stop.requested:
                    break
                for group in self.adam.param_groups:
                    group["lr"] = float(rate)
                self.adam.zero_grad(set_to_none=True)
                batch = self._batch(rows)
                with noise:
                    loss, parts = loss_of(self.engine.objective, self.programs, batch, float(beta))
                loss.backward()
                if self.ranks is not None:
                    slopes = [p.grad for p in self.free.values() if p.grad is not None]
                    self.ranks.average([*slopes, parts])
                if self.engine.clip_norm is not None:
                    torch.nn.utils.clip_grad_norm_(list(self.free.values()), self.engine.clip_norm)
                self.adam.step()
                out.append(parts)
        return torch.stack(out).numpy() if out else np.zeros((0, 4))

    def validate(self, rows: np.ndarray, seed: int) -> np.ndarray:
        size = int(self.engine.batch_size or len(rows))
        torch.manual_seed(seed)
        objective = self.engine.objective
        with torch.no_grad(), pyro.validation_enabled(False), HoldParams(self.fixed):
            found = [
                parts_of(objective, self.programs.terms(self._rows(part), objective.num_particles))[0]
                for part in np.array_split(rows, -(-len(rows) // size))
            ]
        return torch.cat(found).numpy()

    def arrays(self) -> Arrays:
        out = {f"free/{n}": p.detach().numpy().copy() for n, p in self.free.items()}
        for name, parameter in self.free.items():
            for key, value in self.adam.state[parameter].items():
                out[f"{key}/{name}"] = value.detach().numpy().copy()
        return out

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for name, parameter in self.free.items():
                parameter.copy_(torch.from_numpy(np.array(arrays[f"free/{name}"])))
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    self.adam.state[parameter][key] = torch.from_numpy(np.array(arrays[f"{key}/{name}"]))

    def params(self) -> Arrays:
        store = pyro.get_param_store()
        return {n: store[n].detach().numpy().copy() for n in self.names}
