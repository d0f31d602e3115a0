r"""Finite mixture of any emission.

Generative story, for n rows of d columns and k components:

.. math::

    \pi &\sim \mathrm{Dirichlet}(\alpha_1, \dots, \alpha_k) \\
    \theta_j &\sim \text{the prior of the emission} \\
    z_i &\sim \mathrm{Categorical}(\pi) \\
    x_i &\sim p(x \mid \theta_{z_i}), \text{ the emission's density of a row}

========== ================ ===================== ==================================
site       symbol           shape                 support
========== ================ ===================== ==================================
weights    :math:`\pi`      (k,)                  simplex
(several)  :math:`\theta`   those of the emission those of the emission
assignment :math:`z`        (n,), summed out      0..k-1
obs        :math:`x`        (n, d), NaN missing   those of the emission
========== ================ ===================== ==================================

With ``emissions.Bernoulli`` or ``emissions.Categorical`` this is latent class analysis, with
``emissions.Gaussian`` it is :class:`GaussianMixture`. Missing entries are integrated out (missing at random).

Sources: McLachlan and Peel, *Finite Mixture Models* (2000); Lazarsfeld and Henry, *Latent Structure
Analysis* (1968).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.core import AbstractModel, Array, Program, Values
from ppl_lvm.data import Data
from ppl_lvm.emissions import Emission, as_emission
from ppl_lvm.emissions._data import bind_rows, column_names, fill_missing
from ppl_lvm.models.mixture._exact import MixtureExact


@dataclass(frozen=True)
class Mixture(AbstractModel):
    """A mixture of ``num_components`` copies of an emission; the module's page has the generative story.

    Parameters
    ----------
    num_components
        k, at least 1.
    emission
        The distribution of a row given its component, such as ``emissions.Poisson()``.
    concentration
        Dirichlet concentration of the weights: a positive number, or one per component (the components
        then differ in the prior, and draws are not relabelled).
    keep_latents
        Whether ``Fit.posterior`` also holds draws of ``assignment``.
    num_columns
        d. None: that of the data; data to predict at must have as many.

    Raises
    ------
    TypeError, ValueError
        Naming the field, for settings outside their range.
    """

    num_components: int
    emission: Emission
    concentration: float | tuple[float, ...] = 2.0
    keep_latents: bool = False
    num_columns: int | None = None

    def __post_init__(self) -> None:
        k = self.num_components
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ValueError(f"num_components: expected a positive integer, got {k!r}.")
        object.__setattr__(self, "emission", as_emission(self.emission))
        try:
            alpha = np.asarray(self.concentration, dtype=float)
        except (TypeError, ValueError):
            raise TypeError(
                f"concentration: expected a number or a sequence of numbers, got {self.concentration!r}."
            ) from None
        if alpha.ndim > 1 or not np.isfinite(alpha).all() or not (alpha > 0).all():
            raise ValueError(f"concentration: expected positive numbers, got {self.concentration!r}.")
        if alpha.ndim == 1 and len(alpha) != k:
            raise ValueError(
                f"concentration: expected one number or {k} (one per component), got {len(alpha)}."
            )
        plain = float(alpha) if alpha.ndim == 0 else tuple(alpha.tolist())
        object.__setattr__(self, "concentration", plain)

    def describe(self) -> str:
        return f"Mixture(num_components={self.num_components}, emission={type(self.emission).__name__})"

    # ---- programs --------------------------------------------------------------------------------

    @property
    def _static(self) -> dict[str, Any]:
        return {"num_components": self.num_components, "emission": self.emission}

    @property
    def pyro(self) -> Program:
        from ppl_lvm.models.mixture import _pyro

        return Program(functools.partial(_pyro.model, **self._static))

    @property
    def numpyro(self) -> Program:
        from ppl_lvm.models.mixture import _numpyro

        return Program(functools.partial(_numpyro.model, **self._static))

    @property
    def exact(self) -> MixtureExact:
        return MixtureExact(self.num_components, self.emission)

    @property
    def cache_key(self) -> Any:
        return ("mixture", self.num_components, self.emission.structure)

    @property
    def data_plate(self) -> str:
        return "data"

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        table = self.emission.sites(self.num_components, self.num_columns or 2)
        names = {n: tuple("component" if d == "state" else d for d in s.dims) for n, s in table.items()}
        return {
            "weights": ("component",),
            **names,
            "obs": ("feature",),
            "mixture_mean": ("feature",),
            "mixture_sd": ("feature",),
            "sorted_weights": ("rank",),
        }

    # ---- symmetry --------------------------------------------------------------------------------

    @property
    def label_axes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Event axes indexed by the component, by site; None where the prior tells components apart."""
        if self.num_components == 1:
            return None
        if isinstance(self.concentration, tuple) and len(set(self.concentration)) > 1:
            return None
        table = self.emission.sites(self.num_components, self.num_columns or 2)
        return {"weights": (0,), **{name: (0,) for name, site in table.items() if site.per_state}}

    @property
    def label_note(self) -> str:
        """Unequal concentrations shift the masses of the k! orders of the components, and remove none."""
        if self.num_components == 1 or self.label_axes is not None:
            return ""
        return f"of one order of the components: up to log {self.num_components}! nats may lie in the others"

    def label_features(self, values: Values) -> Array:
        """Coordinates (..., k, f) by which components are recognised (see :mod:`ppl_lvm.relabel`)."""
        logs = np.log(np.maximum(values["weights"], np.finfo(float).tiny))
        return np.concatenate([logs[..., None], self.emission.features(values)], axis=-1)

    def invariants(self, values: Values) -> dict[str, Array]:
        """Quantities that relabelling leaves alone: sorted weights, and moments of a new row.

        ``mixture_sd``, by the law of total variance, is left out where it can be infinite (``StudentT``).
        """
        weights = np.asarray(values["weights"])
        mean, variance = self.emission.moments(values)
        centre = np.einsum("...k,...kd->...d", weights, mean)
        out = {"mixture_mean": centre}
        if self.emission.finite_variance:
            total = variance + (mean - centre[..., None, :]) ** 2
            out["mixture_sd"] = np.sqrt(np.einsum("...k,...kd->...d", weights, total))
        return {**out, "sorted_weights": -np.sort(-weights, axis=-1)}

    # ---- data ------------------------------------------------------------------------------------

    def bind(self, raw: Any, *, fitting: bool = True) -> Data:
        """A matrix (n, d), NaN where missing, checked against the emission's support."""
        why = f" for {self.num_components} components (fewer rows than components)"
        data = bind_rows(raw, min_rows=self.num_components if fitting else 1, why=why, fitting=fitting)
        x = data.values["x"]
        if self.num_columns is not None and x.shape[1] != self.num_columns:
            raise ValueError(f"x: expected {self.num_columns} features as in the fit, got {x.shape[1]}.")
        names = column_names(data, x.shape[1])
        emission = self.emission.with_columns(names)
        emission.check(x, names)
        if "feature" not in data.coords:
            return data
        return dataclasses.replace(data, coords={**data.coords, **emission.coords(names)})

    def resolve(self, data: Any) -> Mixture:
        """The model with the emission's data-dependent numbers filled in from x (n, d).

        Raises
        ------
        ValueError
            If a rule needs a spread and a column is constant, or a number of columns disagrees.
        """
        bound = self.bind(data)
        x = bound.values["x"]
        named = self.emission.with_columns(column_names(bound, x.shape[1]))
        emission = named.resolve(x, self.num_components)
        emission.prior(self.num_components, x.shape[1])  # numbers by column must be as many as columns
        return dataclasses.replace(self, emission=emission, num_columns=x.shape[1])

    def arguments(self, data: Data) -> dict[str, Any]:
        """x (n, d), missing entries filled, ``seen`` (n, d) where any are missing, the prior's numbers."""
        x, seen = fill_missing(data.values["x"], self.emission.fill)
        k, d = self.num_components, x.shape[1]
        alpha = np.broadcast_to(np.asarray(self.concentration, dtype=float), (k,)).copy()
        prior = {"concentration": alpha, **self.emission.prior(k, d)}
        return {"x": x, "prior": prior} if seen is None else {"x": x, "seen": seen, "prior": prior}

    def observations(self, data: Data) -> dict[str, Array]:
        return {"obs": data.values["x"]}

    def to_settings(self) -> dict[str, Any]:
        names = ("num_components", "concentration", "keep_latents", "num_columns")
        plain = {name: getattr(self, name) for name in names}
        return {"model": "Mixture", "settings": {**plain, "emission": self.emission.to_settings()}}
