"""Several particles of an ELBO on Pyro: in one run of the programs where these broadcast, else one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger

from ppl_lvm.backends._base_noise import noise_shape, value_at
from ppl_lvm.backends._pyro_density import PARTICLES, particle_plate
from ppl_lvm.backends._pyro_weights import choose_weights, weights_together
from ppl_lvm.core import Problem
from ppl_lvm.engines._pyro_ranks import OwnNoise

Program = Callable[..., Any]


def run_together(problem: Problem, guide: Program, args: Mapping[str, Any]) -> bool:
    """Whether particles can share a run: the programs broadcast, and the guide's draws have gradients."""
    with pyro.get_param_store().scope(), torch.no_grad():
        if choose_weights(problem, guide, args) is not weights_together:
            return False
        trace = poutine.trace(guide).get_trace(**args)
    drawn = [s["fn"] for _, s in trace.iter_stochastic_nodes() if type(s["fn"]).__name__ != "_Subsample"]
    return all(getattr(fn, "has_rsample", False) for fn in drawn)


def together(problem: Problem, program: Program, count: int) -> Program:
    """The program for ``count`` particles in one run, whose log densities are means over them."""

    def run(**args: Any) -> Any:
        with particle_plate(problem, count), poutine.scale(scale=1.0 / count):
            return program(**args)

    return run


def drawn_together(problem: Problem, guide: Program, count: int, *, mirrored: bool) -> Program:
    """The same of a guide; ``mirrored``: the second half of its particles are images of the first."""
    noise = Noise(count, problem.data_plate, mirrored=mirrored)
    around: Program = noise(together(problem, guide, count))
    return around


class Noise(Messenger):
    """Around a guide for several particles: draws the noise of its sites where it is normal.

    At sites of the data plate it is drawn particle by particle, and there by the processes that share rows in
    turn, so that rows have the same noise however they are shared.
    """

    def __init__(self, count: int, plate: str | None, *, mirrored: bool) -> None:
        super().__init__()
        self.count, self.plate, self.mirrored = count, plate, mirrored

    def _pyro_sample(self, msg: Any) -> None:
        frames = {frame.name for frame in msg["cond_indep_stack"]}
        wanted = PARTICLES in frames and (self.mirrored or self.plate in frames)
        if msg["is_observed"] or msg["value"] is not None or not wanted:
            return
        shape = noise_shape(msg["fn"])
        if shape is None:
            return
        num, rest = self.count // (2 if self.mirrored else 1), shape[1:]  # no plate is to the left of theirs
        if self.plate in frames:
            own = OwnNoise.active
            noise = torch.stack([torch.randn(*rest) if own is None else own.of(rest) for _ in range(num)])
        else:
            noise = torch.randn(num, *rest)
        msg["value"] = value_at(msg["fn"], torch.cat([noise, -noise]) if self.mirrored else noise)
