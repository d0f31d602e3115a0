"""Inference engines: one file each. Adding an engine is its file and one line here."""

from ppl_lvm.engines.chees import ChEES
from ppl_lvm.engines.em import EM
from ppl_lvm.engines.importance import ImportanceSampling
from ppl_lvm.engines.nuts import NUTS
from ppl_lvm.engines.optimum import MAP, Laplace
from ppl_lvm.engines.pathfinder import Pathfinder
from ppl_lvm.engines.smc import AIS, SMC
from ppl_lvm.engines.svi import ELBO, SVI, Annealing, Renyi
from ppl_lvm.families import Amortized, Flow, LowRank

__all__ = [
    "AIS",
    "ELBO",
    "EM",
    "MAP",
    "NUTS",
    "SMC",
    "SVI",
    "Amortized",
    "Annealing",
    "ChEES",
    "Flow",
    "ImportanceSampling",
    "Laplace",
    "LowRank",
    "Pathfinder",
    "Renyi",
]
