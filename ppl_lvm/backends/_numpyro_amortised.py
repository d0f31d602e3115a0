"""Per-datum terms of an amortised NumPyro model and guide; all functions are pure."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from ppl_lvm.backends._numpyro import _with_statics, cached, split_arguments, statics_of
from ppl_lvm.backends.amortised import Terms
from ppl_lvm.backends.density import Param, Tree
from ppl_lvm.core import Problem


class AmortisedPrograms:
    """A NumPyro model and guide whose latents all lie in the data plate.

    ``params`` are those of both programs that may be optimised, by name; values passed to the functions are
    constrained, and cover what is held fixed as well.
    """

    def __init__(self, problem: Problem) -> None:
        twin = problem.model.numpyro
        if twin is None or twin.guide is None:
            raise ValueError(f"{problem.model.describe()} has no NumPyro guide; use backend='pyro'.")
        data, statics = split_arguments(problem.arguments)
        self.model = _with_statics(twin.model, dict(statics))
        self.guide = _with_statics(twin.guide, dict(statics))
        self.plate = problem.data_plate
        self.latents = [s.name for s in problem.latents()]
        self.batched = problem.batched
        self.key = ("amortised", problem.model.cache_key, statics, problem.dtype)
        few = {k: v[:2] if k in problem.batched else v for k, v in data.items()}
        guide, model = self._run({}, jax.random.key(0), few)
        statements = {n: s for t in (model, guide) for n, s in t.items() if s["type"] == "param"}
        self.params = {n: _param(s) for n, s in statements.items()}
        self.model_params = frozenset(n for n, s in model.items() if s["type"] == "param")

    def _run(self, params: Tree, key: Any, data: Tree, values: Tree | None = None) -> tuple[dict, dict]:
        """Traces of the guide and of the model at its draw (or at given values)."""
        given = {**params, **(values or {})}
        seeded = handlers.seed(handlers.substitute(self.guide, data=given), key)
        guide = handlers.trace(seeded).get_trace(**data)
        drawn = {n: guide[n]["value"] for n in self.latents}
        seeded = handlers.seed(handlers.substitute(self.model, data={**params, **drawn}), key)
        return guide, handlers.trace(seeded).get_trace(**data)

    def terms(self, params: Tree, key: Any, data: Tree, num: int, values: Tree | None = None) -> Terms:
        """:class:`Terms` of ``num`` draws of the guide for each datum, or of ``values`` (num, b, ...)."""

        def one(key: Any, values: Tree | None) -> tuple[Any, Any, Any, Any]:
            guide, model = self._run(params, key, data, values)
            seen = [n for n, s in model.items() if s["type"] == "sample" and s["is_observed"]]
            log_lik = self._sum(model, seen)
            log_prior, log_q = self._sum(model, self.latents), self._sum(guide, self.latents)
            return log_lik, log_prior, log_q, self._kl(guide, model)

        axes = (0, None if values is None else 0)
        closed = self.closed_kl(params, data)
        if num == 1 and values is None:  # an axis of length one costs a training step some percents
            log_lik, log_prior, log_q, kl = one(jax.random.split(key, 1)[0], None)
            return Terms(log_lik[None], log_prior[None], log_q[None], kl)
        out = jax.vmap(one, in_axes=axes, out_axes=(0, 0, 0, None))(jax.random.split(key, num), values)
        return Terms(*out[:3], out[3] if closed else None)

    def closed_kl(self, params: Tree, data: Tree) -> bool:
        """Whether KL(q || prior) has a closed form, decided by the distributions' kinds."""
        found = []

        def probe(params: Tree, data: Tree) -> Any:
            guide, model = self._run(params, jax.random.key(0), data)
            found.append(all(_closed(guide[n]["fn"], model[n]["fn"]) for n in self.latents))
            return jnp.zeros(())

        jax.eval_shape(probe, params, data)
        return found[0]

    def _kl(self, guide: dict, model: dict) -> Any:
        if not all(_closed(guide[n]["fn"], model[n]["fn"]) for n in self.latents):
            return None
        parts = [_kl_of(guide[n]["fn"], model[n]["fn"]) for n in self.latents]
        return jnp.concatenate(parts, -1)

    def _sum(self, trace: dict, names: list[str]) -> Any:
        total: Any = 0.0
        for name in names:
            site = trace[name]
            term = (
                site["fn"].log_prob(site["value"], site["intermediates"])
                if site["intermediates"]
                else site["fn"].log_prob(site["value"])
            )
            frame = next(f for f in site["cond_indep_stack"] if f.name == self.plate)
            term = jnp.broadcast_to(term, site["fn"].batch_shape)
            term = jnp.moveaxis(term, frame.dim, -1)
            total = total + term.reshape((-1, term.shape[-1])).sum(0)
        return total

    def draw(self, params: Tree, key: Any, data: Tree, num: int) -> dict[str, Any]:
        """Draws of the guide, (num, b, ...) by site."""

        def one(key: Any) -> dict[str, Any]:
            guide, _ = self._guide(params, key, data)
            return {n: guide[n]["value"] for n in self.latents}

        return jax.vmap(one)(jax.random.split(key, num))

    def _guide(self, params: Tree, key: Any, data: Tree) -> tuple[dict, None]:
        seeded = handlers.seed(handlers.substitute(self.guide, data=params), key)
        return handlers.trace(seeded).get_trace(**data), None

    def prior(self, params: Tree, key: Any, data: Tree) -> dict[str, Any]:
        """A draw of the model's latents for each datum, (b, ...) by site."""
        seeded = handlers.seed(handlers.substitute(self.model, data=params), key)
        trace = handlers.trace(seeded).get_trace(**data)
        return {n: trace[n]["value"] for n in self.latents}

    def moments(self, params: Tree, key: Any, data: Tree, num: int = 200) -> dict[str, tuple[Any, Any]]:
        """Mean and sd of q by site, (b, ...): in closed form, or from ``num`` draws."""
        guide, _ = self._guide(params, key, data)
        try:
            return {n: (guide[n]["fn"].mean, jnp.sqrt(guide[n]["fn"].variance)) for n in self.latents}
        except NotImplementedError:
            drawn = self.draw(params, key, data, num)
            return {n: (v.mean(0), v.std(0, ddof=1)) for n, v in drawn.items()}

    def gaussian(self, params: Tree, key: Any, data: Tree) -> tuple[Any, Any] | None:
        """Means (b, d) and Cholesky factors (b, d, d) of q, sites side by side; None: q is not normal."""
        guide, _ = self._guide(params, key, data)
        parts = [_normal_of(guide[n]["fn"]) for n in self.latents]
        if any(p is None for p in parts):
            return None
        locs, roots = zip(*parts, strict=True)
        blocks = jax.vmap(lambda *each: jax.scipy.linalg.block_diag(*each))(*roots)
        return jnp.concatenate(locs, -1), blocks

    def observed(self, params: Tree, key: Any, data: Tree, values: Tree) -> dict[str, tuple[Any, Any]]:
        """Mean of each observed site at latents (b, ...), and a draw; of categories, the probabilities."""
        seeded = handlers.seed(handlers.substitute(self.model, data={**params, **values}), key)
        hidden = handlers.trace(seeded).get_trace(**data)
        out = {}
        for name, site in hidden.items():
            if site["type"] == "sample" and site["is_observed"]:
                base = getattr(site["fn"], "base_dist", site["fn"])
                mean = base.probs if hasattr(base, "probs") and _categorical(base) else site["fn"].mean
                out[name] = (mean, site["fn"].sample(jax.random.fold_in(key, 1)))
        return out


def _categorical(fn: Any) -> bool:
    return isinstance(fn, (dist.CategoricalLogits, dist.CategoricalProbs))


def _param(site: dict) -> Param:
    transform = biject_to(site["kwargs"].get("constraint", constraints.real))
    return Param(np.asarray(site["value"]), transform, transform.inv)


def _standard(fn: Any) -> Any:
    """The Normal under an Independent over its last dimension."""
    base = getattr(fn, "base_dist", None)
    while isinstance(base, dist.ExpandedDistribution):
        base = base.base_dist
    plain = fn
    while isinstance(plain, dist.ExpandedDistribution):
        plain = plain.base_dist
    if isinstance(plain, dist.Independent) and plain.reinterpreted_batch_ndims == 1:
        base = plain.base_dist
        while isinstance(base, dist.ExpandedDistribution):
            base = base.base_dist
        return base if isinstance(base, dist.Normal) else None
    return None


def _multivariate(fn: Any) -> Any:
    while isinstance(fn, dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn if isinstance(fn, dist.MultivariateNormal) else None


def _normal_of(q: Any) -> tuple[Any, Any] | None:
    """Mean (b, q) and Cholesky factor (b, q, q) of a normal with batch shape (b,); None for anything else."""
    plain, full = _standard(q), _multivariate(q)
    if plain is not None:
        shape = q.batch_shape + q.event_shape
        scale = jnp.broadcast_to(plain.scale, shape)
        return jnp.broadcast_to(plain.loc, shape), scale[..., None] * jnp.eye(shape[-1], dtype=scale.dtype)
    if full is None:
        return None
    shape = q.batch_shape + q.event_shape
    return jnp.broadcast_to(full.loc, shape), jnp.broadcast_to(full.scale_tril, (*shape, shape[-1]))


def _closed(q: Any, p: Any) -> bool:
    return _standard(p) is not None and (_standard(q) is not None or _multivariate(q) is not None)


def _kl_of(q: Any, p: Any) -> Any:
    """KL(q || p) for a normal prior with independent coordinates: (b, q), or (b, 1) for a full covariance."""
    prior, plain = _standard(p), _standard(q)
    if plain is not None:
        ratio = (plain.scale / prior.scale) ** 2
        shift = ((plain.loc - prior.loc) / prior.scale) ** 2
        return 0.5 * (ratio + shift - 1 - jnp.log(ratio))
    full = _multivariate(q)
    root = full.scale_tril / prior.scale[..., None]
    shift = (full.loc - prior.loc) / prior.scale
    log_det = jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)).sum(-1)
    size = shift.shape[-1]
    return (0.5 * ((root**2).sum((-2, -1)) + (shift**2).sum(-1) - size) - log_det)[..., None]


def programs_of(problem: Problem) -> AmortisedPrograms:
    """The programs of a problem, kept with the compiled functions of the same structure and shapes."""
    statics = statics_of(problem.arguments)
    shapes = tuple(sorted((k, np.shape(v)[1:]) for k, v in problem.arguments.items()))
    key = ("amortised programs", problem.model.cache_key, statics, problem.dtype, shapes)
    return cached(key, lambda: AmortisedPrograms(problem))
