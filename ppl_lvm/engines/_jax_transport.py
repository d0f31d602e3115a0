"""NUTS in the space that a trained flow starts from (neural transport, Hoffman et al. 2019).

A flow T with standard normal noise u has been fitted so that T(u) is about the posterior. The posterior in
terms of u, log p(T(u)) + log |det dT/du|, is then about standard normal, whatever its shape in its own
coordinates. Chains move in u, and T maps their draws back: the posterior is exact, however well the flow
fits.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._jax_flows import flow_parts
from ppl_lvm.backends._numpyro import cached
from ppl_lvm.backends.density import Density, Tree
from ppl_lvm.core import Problem, Run
from ppl_lvm.families import Flow, family_of

_TRIES = 100


def transported(
    problem: Problem, run: Run, density: Density, data: Any, held: Any, num: int
) -> tuple[Density, Any, Any]:
    """The density of the noise, its params (the model's and the flow's), and ``num`` starts (num, size).

    Raises
    ------
    ValueError
        If ``init`` is not the fit of a flow to this model, or no start has a finite density.
    """
    flow, own = _flow_of(problem, run.init, density)

    def to_model(z: Tree, params: Any) -> tuple[Tree, Any]:
        flat, log_det = flow.forward(params["flow"], z["noise"])
        return density.unflatten(flat), log_det

    def log_joint(z: Tree, data: Tree, params: Any) -> tuple[Any, None]:
        own_z, log_det = to_model(z, params)
        return density.total(own_z, data, params["model"]) + log_det, None

    def constrain(z: Tree, data: Tree, params: Any) -> Tree:
        return density.constrain(to_model(z, params)[0], data, params["model"])

    def unconstrain(values: Tree, data: Tree, params: Any) -> Tree:
        flat = density.flatten(density.unconstrain(values, data, params["model"]))
        return {"noise": flow.inverse(params["flow"], flat)[0]}

    pulled = dataclasses.replace(
        density,
        key=("transport", density.key, run.init.engine.guide),
        log_joint=log_joint,
        constrain=constrain,
        unconstrain=unconstrain,
        shapes={"noise": (density.size,)},
        local=(),
    )
    both = {"model": held, "flow": own}
    return pulled, both, _starts(problem, run, pulled, data, both, num)


def _flow_of(problem: Problem, init: Any, density: Density) -> tuple[Any, dict[str, Any]]:
    """The flow's maps and its trained parameters."""
    guide = getattr(getattr(init, "engine", None), "guide", None)
    family = family_of(guide) if isinstance(guide, (str, Flow)) else None
    if not isinstance(family, Flow) or getattr(init, "backend", "") != "numpyro":
        raise ValueError(
            "NUTS: transport=True needs init= the fit of a flow on JAX, such as "
            "lvm.fit(model, data, SVI(guide='flow', backend='numpyro'))."
        )
    point = jnp.zeros(density.size, problem.dtype)
    flow = flow_parts(density.size, family, point, 1.0)
    own = {k: jnp.asarray(v, problem.dtype) for k, v in init.params.items() if k not in density.params}
    if {k: np.shape(v) for k, v in own.items()} != _shapes(flow):
        raise ValueError(
            "init: the flow is of another model or size; fit it to this model and data (an SVI fit of an "
            "earlier version is fitted again)."
        )
    return flow, own


def _shapes(flow: Any) -> dict[str, tuple[int, ...]]:
    import jax

    return {k: v.shape for k, v in jax.eval_shape(flow.init, jax.random.key(0)).items()}


def _starts(problem: Problem, run: Run, density: Density, data: Any, params: Any, num: int) -> Any:
    """Standard normal points of a finite density: draws of the flow."""
    slope_at = cached(("slope", density.key), density.compile_slope)
    rng, found = run.rng(2500), []
    for _ in range(_TRIES * num):
        point = jnp.asarray(rng.standard_normal(density.size), problem.dtype)
        if np.isfinite(float(slope_at(point, data, params)[0])):
            found.append(point)
        if len(found) == num:
            return jnp.stack(found)
    raise ValueError(
        f"NUTS: the density of {problem.model.describe()} is not finite at draws of the flow given as init; "
        "train it for longer, or sample without transport."
    )
