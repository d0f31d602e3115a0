"""Pictures of fits and comparisons; each function returns a matplotlib Figure.

Figures belong to no pyplot session: there is nothing to close, the user's rcParams and backend stay as they
are, and all of it works without a display. ``figure.savefig(path)`` writes one; a notebook shows it by
itself. Where arviz-plots has the picture (densities, traces, ranks), it draws it.
"""

from ppl_lvm.plots._calibration import plot_calibration
from ppl_lvm.plots._comparison import plot_comparison
from ppl_lvm.plots._data import plot_check, plot_clusters
from ppl_lvm.plots._draws import plot_khat, plot_rank, plot_trace
from ppl_lvm.plots._evidence import plot_ladder
from ppl_lvm.plots._factors import plot_dimension, plot_loadings
from ppl_lvm.plots._gaps import plot_gaps, plot_latent_diagnostics
from ppl_lvm.plots._graph import plot_model
from ppl_lvm.plots._latents import plot_latents
from ppl_lvm.plots._marginals import plot_marginals
from ppl_lvm.plots._pairs import plot_pairs
from ppl_lvm.plots._predictive import plot_predictive
from ppl_lvm.plots._runs import plot_evidence, plot_loss
from ppl_lvm.plots._sequences import plot_states
from ppl_lvm.plots._training import plot_training
from ppl_lvm.plots._vae_data import plot_reconstructions, plot_samples
from ppl_lvm.plots._vae_latents import plot_manifold, plot_traversals
from ppl_lvm.plots._vae_lines import plot_arithmetic, plot_interpolation
from ppl_lvm.plots._verdicts import plot_verdicts

__all__ = [
    "plot_arithmetic",
    "plot_calibration",
    "plot_check",
    "plot_clusters",
    "plot_comparison",
    "plot_dimension",
    "plot_evidence",
    "plot_gaps",
    "plot_interpolation",
    "plot_khat",
    "plot_ladder",
    "plot_latent_diagnostics",
    "plot_latents",
    "plot_loadings",
    "plot_loss",
    "plot_manifold",
    "plot_marginals",
    "plot_model",
    "plot_pairs",
    "plot_predictive",
    "plot_rank",
    "plot_reconstructions",
    "plot_samples",
    "plot_states",
    "plot_trace",
    "plot_training",
    "plot_traversals",
    "plot_verdicts",
]
