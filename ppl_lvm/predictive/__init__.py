"""The predictive workflow: prior and posterior predictive draws, checks, scores, local latents.

Everything here runs on the model's closed forms where it has them, else on its Pyro program.
"""

from ppl_lvm.predictive._capabilities import (
    forecast,
    impute,
    inverse_transform,
    online_filter,
    predict,
    predict_proba,
    sample,
    state_means,
    transform,
)
from ppl_lvm.predictive._checks import PredictiveCheck, check
from ppl_lvm.predictive._derived import with_deterministic, with_latents
from ppl_lvm.predictive._draws import sample_predictive, sample_prior
from ppl_lvm.predictive._inputs import observed_values, problem_at
from ppl_lvm.predictive._latents import latents
from ppl_lvm.predictive._scores import LogPredictive, effective_size, log_predictive, pointwise_terms

__all__ = [
    "LogPredictive",
    "PredictiveCheck",
    "check",
    "effective_size",
    "forecast",
    "impute",
    "inverse_transform",
    "latents",
    "log_predictive",
    "observed_values",
    "online_filter",
    "pointwise_terms",
    "predict",
    "predict_proba",
    "problem_at",
    "sample",
    "sample_predictive",
    "sample_prior",
    "state_means",
    "transform",
    "with_deterministic",
    "with_latents",
]
