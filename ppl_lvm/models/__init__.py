"""Models: one folder each. Adding a model is its folder and one line here (docs/add-a-model)."""

from ppl_lvm.models.gaussian_mixture import GaussianMixture

__all__ = ["GaussianMixture"]
