"""ppl_lvm: latent-variable models on probabilistic programming.

Write a model, pick an inference engine, and get a posterior in ArviZ form, the log evidence with its
kind, and a verdict on whether the approximation can be trusted. Names load on first use, so that
importing the package is quick and loads neither torch nor jax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module that holds it. The modules comparison, fitting, ... are not called compare or
# fit: importing such a submodule would replace the function of the same name on the package.
_HOME = {
    "Model": "core",
    "Program": "core",
    "AbstractModel": "core",
    "Engine": "core",
    "Evidence": "core",
    "Status": "core",
    "Outcome": "core",
    "Fit": "result",
    "fit": "fitting",
    "engines_for": "fitting",
    "sample_prior": "predictive",
    "condition": "conditioning",
    "model_graph": "structure",
    "ModelGraph": "structure",
    "compare": "comparison",
    "Comparison": "comparison",
    "Verdict": "comparison",
    "spot_check": "dispersed",
    "SpotCheck": "dispersed",
    "SpotResult": "dispersed",
    "calibrate": "calibration",
    "Calibration": "calibration",
    "rank": "ranking",
    "bridge": "evidence",
    "sandwich": "evidence",
    "Sandwich": "evidence",
    "evidence_ladder": "evidence",
    "EvidenceLadder": "evidence",
    "ais_log_likelihood": "gaps",
    "amortisation_gap": "gaps",
    "AmortisationGap": "gaps",
    "bidirectional": "gaps",
    "Bidirectional": "gaps",
    "latent_diagnostics": "gaps",
    "LatentDiagnostics": "gaps",
    "choose_dimension": "dimension",
    "subspace_angles": "rotation",
    "SufficientStatistics": "models._statistics",
    "load": "storage",
    "Stream": "streams",
    "SVI": "engines.svi",
    "ELBO": "engines.svi",
    "Renyi": "engines.svi",
    "Annealing": "engines.svi",
    "Amortized": "families",
    "Flow": "families",
    "LowRank": "families",
    "NUTS": "engines.nuts",
    "ChEES": "engines.chees",
    "ImportanceSampling": "engines.importance",
    "EM": "engines.em",
    "MAP": "engines.optimum",
    "Laplace": "engines.optimum",
    "Pathfinder": "engines.pathfinder",
    "SMC": "engines.smc",
    "AIS": "engines.smc",
    "translate": "translation",
    "Translation": "translation",
    "TranslationError": "backends.translate",
    "register_rule": "backends.translate",
}
_SUBMODULES = ("models", "emissions", "networks", "engines", "plots")

__all__ = ["__version__", *_HOME, *_SUBMODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"ppl_lvm.{_HOME[name]}"), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"ppl_lvm.{name}")
    else:
        raise AttributeError(f"module 'ppl_lvm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from ppl_lvm import emissions, engines, models, networks, plots
    from ppl_lvm.calibration import Calibration, calibrate
    from ppl_lvm.comparison import Comparison, Verdict, compare
    from ppl_lvm.conditioning import condition
    from ppl_lvm.core import AbstractModel, Engine, Evidence, Model, Outcome, Program, Status
    from ppl_lvm.dimension import choose_dimension
    from ppl_lvm.dispersed import SpotCheck, SpotResult, spot_check
    from ppl_lvm.engines.chees import ChEES
    from ppl_lvm.engines.em import EM
    from ppl_lvm.engines.importance import ImportanceSampling
    from ppl_lvm.engines.nuts import NUTS
    from ppl_lvm.engines.optimum import MAP, Laplace
    from ppl_lvm.engines.pathfinder import Pathfinder
    from ppl_lvm.engines.svi import ELBO, SVI, Annealing, Renyi
    from ppl_lvm.evidence import EvidenceLadder, Sandwich, bridge, evidence_ladder, sandwich
    from ppl_lvm.families import Amortized, Flow, LowRank
    from ppl_lvm.fitting import engines_for, fit
    from ppl_lvm.gaps import (
        AmortisationGap,
        Bidirectional,
        LatentDiagnostics,
        ais_log_likelihood,
        amortisation_gap,
        bidirectional,
        latent_diagnostics,
    )
    from ppl_lvm.models._statistics import SufficientStatistics
    from ppl_lvm.predictive import sample_prior
    from ppl_lvm.ranking import rank
    from ppl_lvm.result import Fit
    from ppl_lvm.rotation import subspace_angles
    from ppl_lvm.storage import load
    from ppl_lvm.structure import ModelGraph, model_graph
