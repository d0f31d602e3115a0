"""Objectives of amortised training in torch; the formulas are those of ``_jax_objectives``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine

from ppl_lvm.backends._pyro_amortised import AmortisedPrograms
from ppl_lvm.backends.amortised import Terms

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import ELBO, Renyi


def parts_of(objective: ELBO | Renyi, terms: Terms) -> tuple[Any, Any, Any]:
    """Per datum (b,): the bound, the expected log likelihood, and (b, L) the KL terms."""
    log_lik = terms.log_lik.mean(0)
    closed = terms.kl is not None and getattr(objective, "estimator", "auto") in ("auto", "mean_field")
    kl: Any = terms.kl if closed else (terms.log_q - terms.log_prior).mean(0)[:, None]
    power = 1.0 - objective.alpha if hasattr(objective, "alpha") else None
    if power is None:
        return log_lik - kl.sum(-1), log_lik, kl
    weights = power * terms.log_weight
    return (torch.logsumexp(weights, 0) - math.log(len(weights))) / power, log_lik, kl


def loss_of(
    objective: ELBO | Renyi, programs: AmortisedPrograms, args: Any, beta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, nats per datum, and ``PARTS``."""
    if getattr(objective, "gradient", "standard") == "doubly_reparameterised":
        return _doubly_reparameterised(objective, programs, args)
    bound, log_lik, kl = parts_of(objective, programs.terms(args, objective.num_particles))
    if hasattr(objective, "alpha"):
        value = bound.mean()
    else:
        each = kl.mean(0)
        least = getattr(objective, "free_bits", 0.0)
        value = log_lik.mean() - beta * (each.clamp_min(least) if least else each).sum()
    parts = torch.stack([value, bound.mean(), log_lik.mean(), kl.sum(-1).mean()]).detach()
    return -value, parts


def _doubly_reparameterised(
    objective: Any, programs: AmortisedPrograms, args: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The DReG gradient of the IWAE bound (Tucker et al. 2019, equation 8); see ``_jax_objectives``."""
    num = objective.num_particles
    guide, model = programs.traces(args, num)
    with torch.no_grad(), programs._particles(num):  # q with its params as constants, at the same draws
        fixed: Any = poutine.trace(programs.guide).get_trace(**args)
    for name in programs.latents:
        fixed.nodes[name]["value"] = guide.nodes[name]["value"]
    terms = programs.of_traces(fixed, model, num)
    weights = terms.log_weight
    share = torch.softmax(weights.detach(), 0)
    for name in programs.latents:
        z = guide.nodes[name]["value"]
        z.register_hook(lambda g, s=share: g * s.reshape(s.shape + (1,) * (g.dim() - 2)))
    value = (share * weights).sum(0).mean()
    bound, log_lik, kl = parts_of(objective, terms)
    parts = torch.stack([bound.mean(), bound.mean(), log_lik.mean(), kl.sum(-1).mean()]).detach()
    return -value, parts
