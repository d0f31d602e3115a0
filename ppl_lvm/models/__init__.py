"""Models: one folder each. Adding a model is its folder and one line here (docs/add-a-model)."""

from ppl_lvm.models.factor_analysis import FactorAnalysis
from ppl_lvm.models.gaussian_mixture import GaussianMixture
from ppl_lvm.models.hmm import HMM
from ppl_lvm.models.mixture import Mixture
from ppl_lvm.models.ppca import PPCA
from ppl_lvm.models.vae import VAE

__all__ = ["HMM", "PPCA", "VAE", "FactorAnalysis", "GaussianMixture", "Mixture"]
