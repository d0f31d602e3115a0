"""What variational inference maximises: the ELBO and its variants, and Renyi bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ppl_lvm.engines._checks import NUMBER, check_choice, check_count, check_flag, check_number
from ppl_lvm.engines._schedules import Annealing, as_weight


@dataclass(frozen=True)
class ELBO:
    """The evidence lower bound E_q[log p - log q], discrete sites summed out exactly.

    ``estimator`` chooses Pyro's: ``"trace"`` (sampled), ``"mean_field"`` (analytic KL terms where
    known), ``"enum"`` (discrete sites summed out), or ``"auto"``: enum where the model has discrete
    latents, mean_field where guide and model declare the same sites in the same order, else trace.

    ``mirrored`` makes each particle a pair of draws that mirror each other at the guide's centre (antithetic
    variates; for gradients of this kind Wu et al. 2019). In the gradient of the guide's widths the noise of a
    batch of rows is then the same for both and cancels, which with many data is most of it. It is for named
    Gaussian families; None: where these are fitted on minibatches.

    In trainings by epochs (amortised models) the KL term may be changed: ``beta`` multiplies it (a number, or
    an :class:`Annealing`; Higgins et al. 2017), and ``free_bits`` is the least that each latent dimension's
    mean KL counts, nats (Kingma et al. 2016; where there is no KL by dimension, of all together). What is
    then maximised is no bound of the evidence; ``Fit.evidence`` is always the ELBO itself.
    """

    num_particles: int = 1
    estimator: str = "auto"
    beta: float | Annealing = 1.0
    free_bits: float = 0.0
    mirrored: bool | None = None

    def __post_init__(self) -> None:
        check_count("num_particles", self.num_particles)
        check_choice("estimator", self.estimator, ("auto", "trace", "mean_field", "enum"))
        object.__setattr__(self, "beta", as_weight("beta", self.beta))
        check_number("free_bits", self.free_bits, least=0.0)
        if self.mirrored is not None:
            check_flag("mirrored", self.mirrored)

    @property
    def plain(self) -> bool:
        """Whether it is the ELBO itself."""
        return self.beta == 1.0 and self.free_bits == 0.0


@dataclass(frozen=True)
class Renyi:
    """The variational Renyi bound (Li and Turner 2016); alpha = 0 is the IWAE bound (Burda et al. 2016).

    1 / (1 - alpha) log mean_k (p / q)**(1 - alpha) over ``num_particles`` weights with discrete sites
    summed out. A lower bound of the evidence for 0 <= alpha < 1.

    ``gradient="doubly_reparameterised"`` (alpha = 0, trainings by epochs) is that of Tucker et al. (2019):
    the noise in the encoder's part does not drown the signal as the number of particles grows.
    """

    alpha: float = 0.0
    num_particles: int = 10
    gradient: str = "standard"

    def __post_init__(self) -> None:
        check_count("num_particles", self.num_particles, least=2)
        number = isinstance(self.alpha, NUMBER) and not isinstance(self.alpha, bool)
        if not number or not math.isfinite(self.alpha) or self.alpha == 1:
            raise ValueError(
                f"alpha: expected a finite number other than 1 (which is the ELBO), got {self.alpha!r}."
            )
        check_choice("gradient", self.gradient, ("standard", "doubly_reparameterised"))
        if self.gradient != "standard" and self.alpha != 0:
            raise ValueError("gradient: 'doubly_reparameterised' is of the IWAE bound, alpha=0.")

    @property
    def plain(self) -> bool:
        """Whether its gradient is the usual one."""
        return self.gradient == "standard"


__all__ = ["ELBO", "Annealing", "Renyi"]
