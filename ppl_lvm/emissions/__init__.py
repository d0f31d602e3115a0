"""Distributions of observations given a state: shared by mixtures and hidden Markov models."""

from ppl_lvm.emissions._base import Emission, as_emission
from ppl_lvm.emissions.bernoulli import Bernoulli
from ppl_lvm.emissions.categorical import Categorical
from ppl_lvm.emissions.gaussian import Gaussian
from ppl_lvm.emissions.negative_binomial import NegativeBinomial
from ppl_lvm.emissions.poisson import Poisson
from ppl_lvm.emissions.product import Product
from ppl_lvm.emissions.student_t import StudentT

__all__ = [
    "Bernoulli",
    "Categorical",
    "Emission",
    "Gaussian",
    "NegativeBinomial",
    "Poisson",
    "Product",
    "StudentT",
    "as_emission",
]
