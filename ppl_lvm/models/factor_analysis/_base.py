"""What factor analysis and PPCA share: programs, data, symmetry."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.core import AbstractModel, Array, Program, Rotation, Values
from ppl_lvm.data import Data
from ppl_lvm.models._statistics import Rows
from ppl_lvm.models.factor_analysis._checks import check_anchors, check_count, check_number, per_column
from ppl_lvm.models.factor_analysis._data import FactorData, bind, check_fit, statistics_of
from ppl_lvm.models.factor_analysis._exact import FactorExact
from ppl_lvm.models.factor_analysis._sites import row_order
from ppl_lvm.models.factor_analysis._start import choose_anchors
from ppl_lvm.models.factor_analysis._structure import Structure

_POSITIVE = ("loc_scale", "loadings_scale", "scale_scale", "ard_shape", "ard_rate")
_REAL = ("loc_mean", "scale_loc")


class FactorModel(AbstractModel):
    """A base of frozen dataclasses; they hold the hyperparameters named here."""

    latent_dim: int
    loc_mean: float | tuple[float, ...] | None
    loc_scale: float | tuple[float, ...] | None
    loadings_scale: float | tuple[float, ...] | None
    scale_loc: float | tuple[float, ...] | None
    scale_scale: float
    ard: bool
    ard_shape: float
    ard_rate: float
    collapsed: bool
    anchors: tuple[int, ...] | None

    def _check_shared(self) -> None:
        check_count(self, "latent_dim")
        for name in _POSITIVE:
            check_number(self, name, positive=True)
        for name in _REAL:
            check_number(self, name, positive=False)
        for name in ("ard", "collapsed", "keep_latents"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise TypeError(f"{name}: expected True or False, got {getattr(self, name)!r}.")
        check_anchors(self, self.structure.form == "rotation")

    @property
    @abstractmethod
    def structure(self) -> Structure:
        """The static settings that shape the programs."""

    # ---- programs -------------------------------------------------------------------------------

    @property
    def pyro(self) -> Program:
        from ppl_lvm.models.factor_analysis import _pyro

        program = _pyro.model if self.collapsed else _pyro.explicit
        return Program(functools.partial(program, structure=self.structure))

    @property
    def numpyro(self) -> Program:
        from ppl_lvm.models.factor_analysis import _numpyro

        program = _numpyro.model if self.collapsed else _numpyro.explicit
        return Program(functools.partial(program, structure=self.structure))

    @property
    def exact(self) -> FactorExact:
        return FactorExact(self.structure, self.anchors, self._fixed_scale)

    @property
    def _fixed_scale(self) -> float | None:
        return None

    @property
    def cache_key(self) -> Any:
        return ("factor_analysis", self.structure, self.collapsed)

    @property
    def data_plate(self) -> str:
        return "data"

    @property
    def batched(self) -> tuple[str, ...]:
        return () if self.collapsed else ("x", "seen")

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        columns = ("feature",)
        names = {
            "loc": columns,
            "loadings": ("feature", "factor"),
            "precision": ("factor",),
            "loadings_diag": ("factor",),
            "factor_corr_tril": ("factor", "factor_bis"),
            "factor_corr": ("factor", "factor_bis"),
            "z": ("data", "factor"),
            "obs": columns,
            "communality": columns,
            "singular_values": ("rank",),
            "implied_cov": ("feature", "feature_bis"),
        }
        return names if self.structure.tied else {**names, "scale": columns}

    # ---- symmetry -------------------------------------------------------------------------------

    @property
    def rotation(self) -> Rotation:
        axes: dict[str, tuple[int, ...]] = {"loadings": (1,), "z": (1,)}
        if self.structure.form == "ard":
            return Rotation("signed_permutation", "loadings", axes, {"precision": (0,)}, units="scale")
        if self.structure.form == "mask":
            if self.structure.has_factor_corr:
                axes |= {"factor_corr_tril": (0, 1), "factor_corr": (0, 1)}
            return Rotation("signs", "loadings", axes, units="scale")
        return Rotation("orthogonal", "loadings", axes, units="scale")

    @property
    def internal_sites(self) -> tuple[str, ...]:
        forms = {"ard": (), "mask": ("loadings_free",), "rotation": ("loadings_diag", "loadings_lower")}
        return forms[self.structure.form]

    def invariants(self, values: Values) -> dict[str, Array]:
        """Quantities that no turn of the factors changes: communalities, singular values, covariance."""
        return self.exact.invariants(values)

    # ---- data -----------------------------------------------------------------------------------

    def bind(self, raw: Any, *, fitting: bool = True) -> FactorData:
        """Rows (array, frame, memory map), :class:`SufficientStatistics`, or an iterator of chunks."""
        data = bind(raw)
        if fitting:
            check_fit(data, self.latent_dim, tied=self.structure.tied)
        return data

    def num_data(self, data: Data) -> int:
        return statistics_of(data).num_rows

    def observations(self, data: Data) -> dict[str, Array] | None:
        """The rows (n, d), NaN where missing; None where the data came as statistics."""
        x = data.values.get("x")
        return None if x is None else {"obs": np.asarray(x, np.float64)}

    def resolve(self, data: Any) -> Any:
        """The model with data-dependent prior numbers and anchors filled in.

        Raises
        ------
        ValueError
            If the data do not suit the model, or a number of columns disagrees.
        """
        bound = self.bind(data)
        statistics = statistics_of(bound)
        d = statistics.num_columns
        spread = np.sqrt(statistics.column_variance)
        filled: dict[str, Any] = self._resolve_prior(statistics.column_mean, spread)
        for name in ("loc_mean", "loc_scale"):
            filled[name] = tuple(per_column(name, filled.get(name, getattr(self, name)), d).tolist())
        if self.structure.form == "rotation":
            if self.anchors is None:
                filled["anchors"] = choose_anchors(statistics, self.latent_dim)
            elif max(self.anchors) >= d:
                raise ValueError(f"anchors: expected columns from 0 to {d - 1}, got {self.anchors}.")
        mine: Any = self  # subclasses are dataclasses
        return dataclasses.replace(mine, **filled)

    @abstractmethod
    def _resolve_prior(self, mean: Array, spread: Array) -> dict[str, Any]:
        """Numbers for the fields that are None, from column means and sds (d,); given ones are checked."""

    def fingerprint(self, data: Data) -> dict[str, Array]:
        """The sufficient statistics, however the data came."""
        return statistics_of(data).arrays()

    def arguments(self, data: Data) -> dict[str, Any]:
        """The statistics (or x and seen), the place of each column, the prior's numbers; resolved only."""
        statistics = statistics_of(data)
        d = len(per_column("loc_mean", self.loc_mean, None))
        if statistics.num_columns != d:
            raise ValueError(f"x: expected {d} columns as in the fit, got {statistics.num_columns}.")
        x = data.values.get("x")
        shared = {"place": np.argsort(row_order(self.anchors or (), d)), "prior": self._prior(d)}
        if self.collapsed:
            if x is None and self.keep_latents:
                raise ValueError("keep_latents: draws of z need the rows, and only statistics were given.")
            return {**statistics.arrays(), **shared, "x": Rows(x)}
        if x is None:
            raise ValueError(
                "collapsed: False needs the rows, and only statistics were given; pass an array."
            )
        rows = np.asarray(x, np.float64)
        missing = np.isnan(rows)
        return {"x": np.where(missing, 0.0, rows), "seen": (~missing).astype(float), **shared}

    def _prior(self, d: int) -> dict[str, Array]:
        """The hyperparameters as arrays, in the shapes of the sites."""
        structure, q = self.structure, self.latent_dim
        spread = per_column("loadings_scale", self.loadings_scale, d)
        prior = {
            "loc_mean": per_column("loc_mean", self.loc_mean, d),
            "loc_scale": per_column("loc_scale", self.loc_scale, d),
        }
        if structure.form == "ard":
            prior |= {
                "loadings_scale": spread,
                "ard_shape": np.asarray(self.ard_shape),
                "ard_rate": np.asarray(self.ard_rate),
            }
        elif structure.form == "mask":
            prior["free_scale"] = spread[structure.free()[0]]
        else:
            ordered = spread[row_order(self.anchors or (), d)]
            prior |= {
                "diag_df": np.arange(q, 0, -1, dtype=float),
                "diag_scale": ordered[:q],
                "lower_scale": ordered[structure.lower(d)[0]],
            }
        return prior | self._noise_prior(d)

    def _noise_prior(self, d: int) -> dict[str, Array]:
        if self._fixed_scale is not None:
            return {"scale": np.asarray(self._fixed_scale)}
        loc = per_column("scale_loc", self.scale_loc, d)
        return {
            "scale_loc": loc.mean() if self.structure.tied else loc,
            "scale_scale": np.asarray(self.scale_scale),
        }

    def to_settings(self) -> dict[str, Any]:
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]  # subclasses are
        return {"model": type(self).__name__, "settings": settings}
