"""How far an encoder is from the truth: log p(x) by annealing, gaps taken apart, diagnostics of the latents.

:func:`ais_log_likelihood` bounds log p(x) of each datum, :func:`bidirectional` says how accurate that is on
simulated data, :func:`amortisation_gap` takes log p(x) - ELBO apart, and :func:`latent_diagnostics` looks at
what the latents carry. Values are in nats per datum, each with its error and its kind.
"""

from ppl_lvm.gaps._ais import Bidirectional, ais_log_likelihood, bidirectional
from ppl_lvm.gaps._amortisation import AmortisationGap, amortisation_gap
from ppl_lvm.gaps._latents import LatentDiagnostics, latent_diagnostics

__all__ = [
    "AmortisationGap",
    "Bidirectional",
    "LatentDiagnostics",
    "ais_log_likelihood",
    "amortisation_gap",
    "bidirectional",
    "latent_diagnostics",
]
