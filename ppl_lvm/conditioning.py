"""Models with params or sites held at given values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.core import AbstractModel, Program, Site, as_model
from ppl_lvm.data import Data
from ppl_lvm.result import Fit


def condition(model: Any, given: Fit | Mapping[str, Any]) -> Conditioned:
    """The model with params (from a fit) or latent sites (from a mapping) held fixed.

    ``lvm.condition(model, fit)`` holds the model's ``pyro.param`` statements (network weights) at the
    fit's values, so that the latents' posterior given them can be sampled; for a point (EM) the latent
    sites of the point are held. ``lvm.condition(model, {"mu": 0.0})`` holds sites by name.

    Raises
    ------
    TypeError
        If ``given`` is neither a fit nor a mapping.
    """
    base = as_model(model)
    if isinstance(given, Fit):
        values = {k: np.asarray(v) for k, v in given.params.items()}
        return Conditioned(base, {}, values) if not given.is_point else Conditioned(base, values, {})
    if not isinstance(given, Mapping):
        raise TypeError(f"given: expected a Fit or values by site name, got {type(given).__name__}.")
    values = {str(k): np.asarray(v, dtype=float) for k, v in given.items()}
    bad = [k for k, v in values.items() if not np.isfinite(v).all()]
    if bad:
        raise ValueError(f"given: {bad[0]!r} has NaN or infinite values; give finite ones.")
    return Conditioned(base, values, {})


@dataclass(frozen=True, eq=False)
class Conditioned(AbstractModel):
    """A model with ``sites`` observed at fixed values and ``params`` held; see :func:`condition`."""

    base: AbstractModel
    sites: Mapping[str, np.ndarray]
    params: Mapping[str, np.ndarray]

    @property
    def pyro(self) -> Program:
        program = self.base.pyro
        if not self.sites:
            return program
        return Program(_condition_pyro(program.model, self.sites), program.guide)

    @property
    def numpyro(self) -> Program | None:
        twin = self.base.numpyro
        if twin is None or not self.sites:
            return twin
        return Program(_condition_numpyro(twin.model, self.sites))

    @property
    def data_plate(self) -> str | None:
        return self.base.data_plate

    @property
    def batched(self) -> tuple[str, ...] | None:
        return self.base.batched

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return self.base.dims

    @property
    def fixed_params(self) -> Mapping[str, np.ndarray]:
        return {**self.base.fixed_params, **self.params}

    @property
    def held_sites(self) -> tuple[str, ...]:
        return (*self.base.held_sites, *self.sites)

    @property
    def cache_key(self) -> Any | None:
        if not self.sites:
            return self.base.cache_key
        return (self.base.cache_key, tuple((k, v.tobytes()) for k, v in sorted(self.sites.items())))

    def check_held(self, sites: Mapping[str, Site]) -> None:
        """Raise if a held site is not a latent site of the base model, or of another shape."""
        latent = {n: s for n, s in sites.items() if s.kind == "latent"}
        for name, value in self.sites.items():
            if name not in latent:
                raise ValueError(f"given: no latent site {name!r}; the model has {sorted(latent)}.")
            if value.shape != latent[name].shape:
                raise ValueError(f"given: {name!r} has shape {value.shape}, expected {latent[name].shape}.")

    def describe(self) -> str:
        held = sorted(self.sites) or "the params of a fit"
        return f"{self.base.describe()} given {held if isinstance(held, str) else ', '.join(held)}"

    def bind(self, raw: Any, *, fitting: bool = True) -> Data:
        return self.base.bind(raw, fitting=fitting)

    def resolve(self, data: Any) -> Conditioned:
        return Conditioned(self.base.resolve(data), self.sites, self.params)

    def arguments(self, data: Data) -> dict[str, Any]:
        return self.base.arguments(data)


def _condition_pyro(model: Any, sites: Mapping[str, np.ndarray]) -> Any:
    def program(**kwargs: Any) -> Any:
        from ppl_lvm.backends._pyro_trace import HoldSites

        return HoldSites(sites)(model)(**kwargs)

    return program


def _condition_numpyro(model: Any, sites: Mapping[str, np.ndarray]) -> Any:
    def program(**kwargs: Any) -> Any:
        from ppl_lvm.backends._numpyro import HoldSites

        with HoldSites(sites):
            return model(**kwargs)

    return program
