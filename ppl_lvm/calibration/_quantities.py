r"""What is ranked: a true value among draws of its posterior, by quantities that no symmetry disturbs.

Ranks are uniform where (true value, draws) are exchangeable given the data. That holds for a function of the
parameters and the data (Modrak et al. 2023), and for any treatment that meets the true value and the draws
alike. Labels and factors are therefore treated together: each of the L + 1 sets of values is given an order
of labels and a turn of factors at random (the posterior is the same for all), their own order is shuffled,
and then the model's rule relabels and turns them as one sample, which cannot know which of them is the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm import relabel, rotation
from ppl_lvm.core import AbstractModel, Problem
from ppl_lvm.result import Fit
from ppl_lvm.symmetry import Reference, settle_values

Array = np.ndarray
Values = Mapping[str, Array]
DENSITIES = ("log_likelihood", "log_prior")


def compared_sites(problem: Problem) -> list[str]:
    """Continuous latent and derived sites that a fit may have draws of, internal ones left out."""
    hidden = problem.model.internal_sites
    return [
        s.name
        for s in problem.sites.values()
        if s.kind in ("latent", "deterministic") and not s.discrete and s.name not in hidden
    ]


def derived(fit: Fit, values: Values, sites: list[str], rng: np.random.Generator) -> dict[str, Array]:
    """Quantities (s, ...) at ``values`` (s, ...), the truth among them: sites, invariants, densities."""
    found = symmetrised(fit.model, values, rng)
    out = {name: found[name] for name in sites if name in found}
    return {**out, **invariants_at(fit.model, values), **_densities(fit, values)}


def invariants_at(model: AbstractModel, values: Values) -> dict[str, Array]:
    """The model's own invariants; none where values of the sites that it takes are missing."""
    if model.invariants is None:
        return {}
    return {k: np.asarray(v) for k, v in model.invariants(dict(values)).items()}


def symmetrised(model: AbstractModel, values: Values, rng: np.random.Generator) -> dict[str, Array]:
    """Values (s, ...) brought to one order of labels and turn of factors, all s treated alike."""
    out = dict(values)
    axes, turned = model.label_axes, model.rotation
    size = len(next(iter(out.values())))
    shuffle = rng.permutation(size)
    if axes and set(axes) <= set(out):
        k = relabel.num_labels(axes, out)
        out = relabel.permute(out, axes, rng.permuted(np.tile(np.arange(k), (size, 1)), axis=1))
        mixed = {name: v[shuffle] for name, v in out.items()}
        mixed, _ = relabel.relabel_values(model, mixed, 0)
        out = _put_back(mixed, shuffle)
    if turned is not None and turned.by in out:
        names = {*turned.axes, *turned.permuted, turned.by, turned.units}
        own = {n: v for n, v in out.items() if n in names}
        own = rotation.turn(own, turned, _random_turns(turned.kind, size, own[turned.by].shape[-1], rng))
        mixed = {name: v[shuffle] for name, v in own.items()}
        sds = rotation.column_sds(mixed, turned)
        mean = rotation.find_reference(mixed[turned.by] / sds[:, None], turned.kind, 0)
        reference = Reference(None, mean * sds[:, None], sds)
        out |= _put_back(settle_values(model, mixed, reference), shuffle)
    return out


def _put_back(mixed: Values, shuffle: Array) -> dict[str, Array]:
    back = np.argsort(shuffle)
    return {name: v[back] for name, v in mixed.items()}


def _random_turns(kind: str, size: int, q: int, rng: np.random.Generator) -> Array:
    """Matrices (s, q, q) drawn uniformly from the group."""
    signs = rng.choice([-1.0, 1.0], (size, 1, q))
    if kind == "orthogonal":
        found, triangle = np.linalg.qr(rng.standard_normal((size, q, q)))
        return found * np.sign(np.diagonal(triangle, axis1=1, axis2=2))[:, None, :]
    out = np.tile(np.eye(q), (size, 1, 1))
    if kind == "signed_permutation":
        order = rng.permuted(np.tile(np.arange(q), (size, 1)), axis=1)
        out = np.take_along_axis(out, order[:, None, :], axis=2)
    return out * signs


def _densities(fit: Fit, values: Values) -> dict[str, Array]:
    """``log_likelihood``, ``log_prior`` (s,) in nats at values (s, ...) of all continuous latent sites.

    Where the model has closed forms, local latents are integrated out; else the likelihood is given them.
    """
    problem = fit.problem
    exact: Any = fit.model.exact
    if problem is None:
        return {}
    if hasattr(exact, "log_likelihood") and hasattr(exact, "log_prior"):
        terms = np.asarray(exact.log_likelihood(values, problem.arguments))
        return {
            "log_likelihood": terms.reshape(len(terms), -1).sum(1),
            "log_prior": np.asarray(exact.log_prior(values, problem.arguments)),
        }
    names = [s.name for s in problem.latents(discrete=False)]
    if not set(names) <= set(values):
        return {}
    from ppl_lvm.backends._pyro_density import log_density
    from ppl_lvm.backends.session import torch_session

    own = {n: np.asarray(values[n], dtype=problem.dtype) for n in names}
    params = {**fit.params, **fit.model.fixed_params}
    held: Any = {k: v for k, v in params.items() if k in problem.params}
    with torch_session(0, problem.dtype):
        joint = log_density(problem, own, held)[0]
        prior = log_density(problem, own, held, prior=True)[0]
    return {"log_likelihood": joint - prior, "log_prior": prior}
