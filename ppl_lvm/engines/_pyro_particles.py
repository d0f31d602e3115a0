"""Several particles of an ELBO on Pyro: in one run of the programs where these broadcast, else one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine

from ppl_lvm.backends._pyro_density import particle_plate
from ppl_lvm.backends._pyro_mirror import Mirror, MirrorTogether
from ppl_lvm.backends._pyro_weights import choose_weights, weights_together
from ppl_lvm.core import Problem

Program = Callable[..., Any]


def run_together(problem: Problem, guide: Program, args: Mapping[str, Any]) -> bool:
    """Whether particles can share a run: the programs broadcast, and the guide's draws have gradients."""
    with pyro.get_param_store().scope(), torch.no_grad():
        if choose_weights(problem, guide, args) is not weights_together:
            return False
        trace = poutine.trace(guide).get_trace(**args)
    drawn = [s["fn"] for _, s in trace.iter_stochastic_nodes() if type(s["fn"]).__name__ != "_Subsample"]
    return all(getattr(fn, "has_rsample", False) for fn in drawn)


def particles(problem: Problem, program: Program, count: int) -> Program:
    """The program for ``count`` particles in one run, whose log densities are means over them."""

    def run(**args: Any) -> Any:
        with particle_plate(problem, count), poutine.scale(scale=1.0 / count):
            return program(**args)

    return run


def mirrored(guide: Program, *, together: bool) -> Program:
    """The guide with draws in pairs: within a run, or every second one the image of the one before."""
    messenger = MirrorTogether() if together else Mirror()
    around: Program = messenger(guide)
    return around
