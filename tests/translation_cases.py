"""One-site models over Pyro's distributions: what the automatic twin is tried on, and what it does not take.

Each case is a model whose parameters are latent (a standard normal vector, brought into each parameter's
support by Pyro's own ``biject_to``), with a latent site and three observed values of the distribution.
The table of docs/translation-support.md is generated from this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints as c
from pyro.distributions.transforms import biject_to, transform_to

Params = Mapping[str, tuple[Any, tuple[int, ...]]]  # name -> support, shape
NUM_OBSERVED = 3


@dataclass(frozen=True)
class Case:
    """A distribution made from latent parameters.

    ``latent`` and ``observed`` say which sites the model has; ``data`` takes the place of draws where the
    distribution cannot be sampled. Without ``plate`` one value is observed (some do not expand).
    """

    name: str
    make: Callable[..., Any]
    params: Params = field(default_factory=dict)
    latent: bool = True
    observed: bool = True
    data: Callable[[], torch.Tensor] | None = None
    plate: bool = True
    observe: Callable[[Any], Any] = lambda x: x  # what is observed, given the data
    # Pyro's own potential keeps the supports that it met first, and draws them once.
    dependent_support: bool = False

    def __str__(self) -> str:
        return self.name

    def model(self, x: Any) -> None:
        made = self.make(**{k: _parameter(k, s, shape) for k, (s, shape) in self.params.items()})
        if self.latent:
            pyro.sample("z", made)
        x = self.observe(x)
        if self.observed and not self.plate:
            pyro.sample("x", made, obs=x)
        elif self.observed:
            with pyro.plate("n", NUM_OBSERVED):
                pyro.sample("x", made, obs=x)

    def draw(self) -> np.ndarray:
        """Observed values, (3, ...), drawn at parameters near the middle of their supports; zeros if none."""
        with float64(), pyro.validation_enabled(False), torch.random.fork_rng():
            torch.manual_seed(4)
            if not self.observed:
                return np.zeros(1)
            if self.data is not None:
                return self.data().numpy()
            at = {
                k: _image(torch.full(_free_shape(s, shape), 0.2), s) for k, (s, shape) in self.params.items()
            }
            made = self.make(**at)
            return (made.expand([NUM_OBSERVED]) if self.plate else made).sample().detach().numpy()


class float64:
    """torch's default dtype is float64 inside."""

    def __enter__(self) -> None:
        self.own = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *error: Any) -> None:
        torch.set_default_dtype(self.own)


def _free_shape(support: Any, shape: tuple[int, ...]) -> torch.Size:
    return torch.Size(_transform(support).inverse_shape(torch.Size(shape)))


def _transform(support: Any) -> Any:
    """Pyro's bijection, or for matrices, which have none there, its parametrisation."""
    matrices = (c.lower_cholesky, c.positive_definite, c.softplus_lower_cholesky)
    return transform_to(support) if support in matrices else biject_to(support)


def _image(free: torch.Tensor, support: Any) -> torch.Tensor:
    return _transform(support)(free)


def _parameter(name: str, support: Any, shape: tuple[int, ...]) -> torch.Tensor:
    free = _free_shape(support, shape)
    plain = dist.Normal(torch.zeros(free), torch.ones(free))
    return _image(pyro.sample(f"free_{name}", plain.to_event(len(free)) if free else plain), support)


# ---- distributions whose parameters' supports Pyro declares: shapes suffice -----------------------

_SCALARS = {
    "AffineBeta": "concentration1 concentration0 loc scale",
    "AsymmetricLaplace": "loc scale asymmetry",
    "Beta": "concentration1 concentration0",
    "Cauchy": "loc scale",
    "Chi2": "df",
    "ContinuousBernoulli": "probs",
    "Exponential": "rate",
    "FisherSnedecor": "df1 df2",
    "Gamma": "concentration rate",
    "Gumbel": "loc scale",
    "HalfCauchy": "scale",
    "HalfNormal": "scale",
    "InverseGamma": "concentration rate",
    "Kumaraswamy": "concentration1 concentration0",
    "Laplace": "loc scale",
    "Logistic": "loc scale",
    "LogNormal": "loc scale",
    "Normal": "loc scale",
    "Pareto": "scale alpha",
    "RelaxedBernoulli": "temperature probs",
    "RelaxedBernoulliStraightThrough": "temperature logits",
    "SkewLogistic": "loc scale asymmetry",
    "SoftAsymmetricLaplace": "loc scale asymmetry softness",
    "SoftLaplace": "loc scale",
    "StudentT": "df loc scale",
    "VonMises": "loc concentration",
    "Weibull": "scale concentration",
}
_DISCRETE = {
    "Bernoulli": "probs",
    "Bernoulli logits": "logits",
    "BetaBinomial": "concentration1 concentration0",
    "Binomial": "probs",
    "ExtendedBetaBinomial": "concentration1 concentration0",
    "ExtendedBinomial": "logits",
    "GammaPoisson": "concentration rate",
    "Geometric": "probs",
    "Geometric logits": "logits",
    "LogNormalNegativeBinomial": "total_count logits multiplicative_noise_scale",
    "NegativeBinomial": "total_count probs",
    "Poisson": "rate",
    "ZeroInflatedNegativeBinomial": "total_count logits gate",
    "ZeroInflatedPoisson": "rate gate_logits",
}
_VECTORS: dict[str, dict[str, tuple[int, ...]]] = {
    "AVFMultivariateNormal": {"loc": (3,), "scale_tril": (3, 3)},
    "Dirichlet": {"concentration": (3,)},
    "LowRankMultivariateNormal": {"loc": (3,), "cov_factor": (3, 2), "cov_diag": (3,)},
    "MixtureOfDiagNormals": {"locs": (2, 3), "coord_scale": (2, 3), "component_logits": (2,)},
    "MixtureOfDiagNormalsSharedCovariance": {"locs": (2, 3), "coord_scale": (3,), "component_logits": (2,)},
    "LogisticNormal": {"loc": (2,), "scale": (2,)},
    "MultivariateNormal": {"loc": (3,), "covariance_matrix": (3, 3)},
    "MultivariateNormal precision": {"loc": (3,), "precision_matrix": (3, 3)},
    "MultivariateNormal scale_tril": {"loc": (3,), "scale_tril": (3, 3)},
    "MultivariateStudentT": {"df": (), "loc": (3,), "scale_tril": (3, 3)},
    "OMTMultivariateNormal": {"loc": (3,), "scale_tril": (3, 3)},
    "RelaxedOneHotCategorical": {"temperature": (), "logits": (3,)},
    "RelaxedOneHotCategoricalStraightThrough": {"temperature": (), "probs": (3,)},
}
_COUNTS: dict[str, dict[str, tuple[int, ...]]] = {
    "Categorical": {"probs": (3,)},
    "Categorical logits": {"logits": (3,)},
    "DirichletMultinomial": {"concentration": (3,)},
    "Multinomial": {"probs": (3,)},
    "OneHotCategorical": {"probs": (3,)},
    "OneHotCategoricalStraightThrough": {"logits": (3,)},
    "OrderedLogistic": {"predictor": (), "cutpoints": (2,)},
}
_FIXED: dict[str, dict[str, Any]] = {
    "AVFMultivariateNormal": {"control_var": torch.full((2, 1, 3), 0.1, dtype=torch.float64)},
    **{
        n: {"total_count": 5}
        for n in ("BetaBinomial", "Binomial", "ExtendedBetaBinomial", "ExtendedBinomial")
    },
    **{n: {"total_count": 5} for n in ("DirichletMultinomial", "Multinomial")},
}
_SUPPORTS: dict[tuple[str, str], Any] = {  # narrower than Pyro declares them
    ("AVFMultivariateNormal", "scale_tril"): c.lower_cholesky,
    ("OMTMultivariateNormal", "scale_tril"): c.lower_cholesky,
    ("ContinuousBernoulli", "probs"): c.interval(0.55, 0.95),
}


_DEPENDENT = ("AffineBeta", "Pareto")
_NOT_EXPANDED = (
    "AVFMultivariateNormal",
    "OMTMultivariateNormal",
    "SoftAsymmetricLaplace",
)
_DATA = {"LogNormalNegativeBinomial": lambda: torch.tensor([0.0, 2.0, 5.0])}


def _declared(name: str, shapes: Mapping[str, tuple[int, ...]], latent: bool = True) -> Case:
    base = name.split()[0]
    family, fixed = getattr(dist, base), _FIXED.get(base, {})
    supports = {"temperature": c.positive, **family.arg_constraints}
    params = {k: (_SUPPORTS.get((base, k), supports[k]), s) for k, s in shapes.items()}
    return Case(
        name,
        lambda **p: family(**p, **fixed),
        params,
        data=_DATA.get(base),
        plate=base not in _NOT_EXPANDED,
        dependent_support=base in _DEPENDENT,
        latent=latent,
    )


def _scalars(names: str) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(names.split(), ())


DECLARED = [
    *(_declared(n, _scalars(p)) for n, p in _SCALARS.items()),
    *(_declared(n, _scalars(p), latent=False) for n, p in _DISCRETE.items()),
    *(_declared(n, s) for n, s in _VECTORS.items()),
    *(_declared(n, s, latent=False) for n, s in _COUNTS.items()),
]

__all__ = ["DECLARED", "NUM_OBSERVED", "Case"]
