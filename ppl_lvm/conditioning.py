"""Models with params or sites held at given values."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.core import AbstractModel, Array, Program, Rotation, Site, Values, as_model
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
        known = given.problem.sites if given.problem is not None else {}
        weights = known and all(k not in known or known[k].kind == "param" for k in values)
        if not given.is_point or given.model.trains_by_epochs or weights:
            return Conditioned(base, {}, values)
        derived = {name for name, site in known.items() if site.kind == "deterministic"}
        return Conditioned(base, {k: v for k, v in values.items() if k not in derived}, {})
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

    @property
    def only_backend(self) -> str | None:
        return self.base.only_backend

    @property
    def default_dtype(self) -> str | None:
        return self.base.default_dtype

    def blank_rows(self, num: int) -> Any | None:
        return self.base.blank_rows(num)

    def initial_params(
        self, arguments: Mapping[str, Any], rng: np.random.Generator
    ) -> dict[str, Array] | None:
        return self.base.initial_params(arguments, rng)

    def resampled(self, data: Data) -> Mapping[str, Array]:
        return self.base.resampled(data)

    def check_held(self, sites: Mapping[str, Site]) -> None:
        """Raise if a held site is not a latent site of the base model, or of another shape."""
        latent = {n: s for n, s in sites.items() if s.kind == "latent"}
        for name, value in self.sites.items():
            if name not in latent:
                raise ValueError(f"given: no latent site {name!r}; the model has {sorted(latent)}.")
            if latent[name].discrete:
                raise ValueError(
                    f"given: {name!r} is discrete; hold continuous sites, or observe it as data."
                )
            if value.shape != latent[name].shape:
                raise ValueError(f"given: {name!r} has shape {value.shape}, expected {latent[name].shape}.")
            if not _in_support(latent[name].constraint, value):
                raise ValueError(
                    f"given: {name!r} has values outside its support ({latent[name].support}); correct them."
                )

    # ---- what the base model can do, at the held values ----

    @property
    def exact(self) -> Any | None:
        return None if self.base.exact is None else HeldExact(self.base.exact, self.sites)

    @property
    def keep_latents(self) -> bool:
        return self.base.keep_latents

    @property
    def internal_sites(self) -> tuple[str, ...]:
        return self.base.internal_sites

    @property
    def label_axes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Axes of the free sites; None where a held value breaks the symmetry."""
        axes = self.base.label_axes
        if not axes or not all(_symmetric(v, axes[n]) for n, v in self.sites.items() if n in axes):
            return None
        return {n: a for n, a in axes.items() if n not in self.sites} or None

    @property
    def label_note(self) -> str:
        if self.base.label_axes and self.label_axes is None:
            return "of one order of the labels, which the held values do not all tell apart"
        return self.base.label_note

    def label_features(self, values: Values) -> Array:
        return self.base.label_features(_with_held(values, self.sites))

    @property
    def rotation(self) -> Rotation | None:
        found = self.base.rotation
        turned = {*self.internal_sites} | ({*found.axes, *found.permuted} if found is not None else set())
        return None if turned & set(self.sites) else found

    @property
    def invariants(self) -> Any | None:
        own = self.base.invariants
        return None if own is None else lambda values: own(_with_held(values, self.sites))

    def num_data(self, data: Data) -> int | None:
        return self.base.num_data(data)

    def observations(self, data: Data) -> dict[str, Array] | None:
        return self.base.observations(data)

    def fingerprint(self, data: Data) -> dict[str, Array] | None:
        return self.base.fingerprint(data)

    def describe(self) -> str:
        held = sorted(self.sites) or "the params of a fit"
        return f"{self.base.describe()} given {held if isinstance(held, str) else ', '.join(held)}"

    def bind(self, raw: Any, *, fitting: bool = True) -> Data:
        return self.base.bind(raw, fitting=fitting)

    def resolve(self, data: Any) -> Conditioned:
        return Conditioned(self.base.resolve(data), self.sites, self.params)

    def arguments(self, data: Data) -> dict[str, Any]:
        return self.base.arguments(data)


_OF_DATA = ("initial_values", "sample_size")
_OF_ALL_SITES = ("log_prior", "log_joint", "em", "num_parameters")  # another thing once sites are held


@dataclass(frozen=True)
class HeldExact:
    """A model's closed forms with held sites put beside the values that they are given."""

    base: Any
    sites: Mapping[str, np.ndarray]

    def __getattr__(self, name: str) -> Any:
        hidden = name.startswith("__") or (name in _OF_ALL_SITES and self.sites)
        found = None if hidden else getattr(self.base, name, None)
        if found is None:
            raise AttributeError(f"{name} is not known of a model with held sites")
        if name == "initial_values":
            return lambda data, rng: {k: v for k, v in found(data, rng).items() if k not in self.sites}
        if name in _OF_DATA or not callable(found):
            return found

        def at_held(values: Values, *rest: Any, **options: Any) -> Any:
            return found(_with_held(values, self.sites), *rest, **options)

        return functools.wraps(found)(at_held)


def _with_held(values: Values, sites: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values (s, ...) and the held ones, the same at every draw."""
    size = len(next(iter(values.values()))) if values else 1
    held = {k: np.broadcast_to(v, (size, *v.shape)) for k, v in sites.items()}
    return {**values, **held}


def _symmetric(value: np.ndarray, axes: tuple[int, ...]) -> bool:
    """Whether exchanging any two labels leaves the value as it is."""
    size = value.shape[axes[0]]
    for j in range(1, size):
        order = np.arange(size)
        order[[0, j]] = j, 0
        moved = value
        for axis in axes:
            moved = np.take(moved, order, axis=axis)
        if not np.allclose(moved, value, rtol=1e-12, atol=0.0):
            return False
    return True


def _in_support(constraint: Any, value: np.ndarray) -> bool:
    import torch

    return constraint is None or bool(constraint.check(torch.from_numpy(np.array(value))).all())


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
