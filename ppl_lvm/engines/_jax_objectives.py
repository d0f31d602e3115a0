"""Objectives of amortised training in JAX: ELBO with its variants, and Renyi bounds with two gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ppl_lvm.backends._numpyro_amortised import AmortisedPrograms
from ppl_lvm.backends.amortised import Terms

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import ELBO, Renyi

Objective = Callable[..., Any]


def parts_of(objective: ELBO | Renyi, terms: Terms) -> tuple[Any, Any, Any]:
    """Per datum (b,): the bound, the expected log likelihood, and (b, L) the KL terms."""
    log_lik = terms.log_lik.mean(0)
    closed = terms.kl is not None and getattr(objective, "estimator", "auto") in ("auto", "mean_field")
    kl: Any = terms.kl if closed else (terms.log_q - terms.log_prior).mean(0)[:, None]
    power = 1.0 - objective.alpha if hasattr(objective, "alpha") else None
    if power is None:
        return log_lik - kl.sum(-1), log_lik, kl
    weights = power * terms.log_weight
    return (jax.nn.logsumexp(weights, axis=0) - jnp.log(weights.shape[0])) / power, log_lik, kl


def objective_of(objective: ELBO | Renyi, programs: AmortisedPrograms) -> Objective:
    """(free, fixed, key, batch, beta) -> ((loss, PARTS), gradient of the loss by name), nats per datum."""
    if getattr(objective, "gradient", "standard") == "doubly_reparameterised":
        return _doubly_reparameterised(objective, programs)
    return jax.value_and_grad(_loss(objective, programs), has_aux=True)


def _constrained(programs: AmortisedPrograms, free: Any, fixed: Any) -> dict[str, Any]:
    return {**{n: programs.params[n].constrain(v) for n, v in free.items()}, **fixed}


def _loss(objective: ELBO | Renyi, programs: AmortisedPrograms) -> Callable[..., Any]:
    free_bits = getattr(objective, "free_bits", 0.0)
    bound_itself = hasattr(objective, "alpha")

    def loss(free: Any, fixed: Any, key: Any, batch: Any, beta: Any) -> tuple[Any, Any]:
        params = _constrained(programs, free, fixed)
        terms = programs.terms(params, key, batch, objective.num_particles)
        bound, log_lik, kl = parts_of(objective, terms)
        if bound_itself:
            value = bound.mean()
        else:
            each = kl.mean(0)
            value = log_lik.mean() - beta * jnp.maximum(each, free_bits).sum() if free_bits else (
                log_lik.mean() - beta * each.sum()
            )  # fmt: skip
        return -value, jnp.stack([value, bound.mean(), log_lik.mean(), kl.sum(-1).mean()])

    return loss


def _doubly_reparameterised(objective: Any, programs: AmortisedPrograms) -> Callable[..., Any]:
    """The DReG gradient of the IWAE bound (Tucker et al. 2019, equation 8).

    The encoder's gradient flows through the draws alone, each weighted by its squared normalised weight; the
    decoder's is the usual one. One forward and one backward pass.
    """
    num = objective.num_particles

    def gradient(free: Any, fixed: Any, key: Any, batch: Any, beta: Any) -> Any:
        del beta

        def draws(free: Any) -> Any:
            return programs.draw(_constrained(programs, free, fixed), key, batch, num)

        def log_weights(z: Any, free: Any) -> tuple[Any, Any]:
            # the model's params as they are, the guide's as constants: only the model's have a gradient here
            stopped = {
                n: v if n in programs.model_params else jax.lax.stop_gradient(v) for n, v in free.items()
            }
            terms = programs.terms(_constrained(programs, stopped, fixed), key, batch, num, z)
            return terms.log_weight, terms

        z, back = jax.vjp(draws, free)
        weights, pull, terms = jax.vjp(log_weights, z, free, has_aux=True)
        share = jax.nn.softmax(weights, axis=0)  # (K, b)
        size = weights.shape[1]
        slope_z, slope_model = pull(share / size)
        again = {n: g * share.reshape(share.shape + (1,) * (g.ndim - 2)) for n, g in slope_z.items()}
        (slope_guide,) = back(again)
        slope = jax.tree_util.tree_map(lambda a, b: -(a + b), slope_model, slope_guide)
        bound, log_lik, kl = parts_of(objective, terms)
        value = bound.mean()
        return (-value, jnp.stack([value, value, log_lik.mean(), kl.sum(-1).mean()])), slope

    return gradient
