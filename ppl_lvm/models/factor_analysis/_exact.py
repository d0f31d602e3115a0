r"""What factor analysis and PPCA have in closed form. NumPy only.

Given loc, loadings W (d, q), factor correlation R and noise sds, a row is Normal(loc, W R W' + Psi), and
z given a row is normal too (:mod:`._gaussian` has the algebra); missing entries are integrated out.

Sources: Tipping and Bishop (1999), *JRSS B* 61; Rubin and Thayer (1982), *Psychometrika* 47.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.models._statistics import Rows, SufficientStatistics
from ppl_lvm.models.factor_analysis import _gaussian
from ppl_lvm.models.factor_analysis._em import EMResult, Moments, Progress
from ppl_lvm.models.factor_analysis._gaussian import Patterns, Point
from ppl_lvm.models.factor_analysis._invariants import invariants
from ppl_lvm.models.factor_analysis._point import fit_point, initial_values
from ppl_lvm.models.factor_analysis._prior import log_prior
from ppl_lvm.models.factor_analysis._sites import assemble, point_at
from ppl_lvm.models.factor_analysis._structure import Structure
from ppl_lvm.models.factor_analysis._words import NO_DENSITY

Array = np.ndarray
Values = Mapping[str, Any]


@dataclass(frozen=True)
class FactorExact:
    """Closed forms of one structure; ``anchors`` are those of the resolved model, ``fixed`` a given noise sd.

    ``values`` maps sites to arrays with any draw axes in front; where ``loadings`` (and ``z``) are given they
    are used, turned as they may be, else the loadings are put together from the sites that make them up.
    ``data`` are the program's arguments. Densities are in nats.

    Raises
    ------
    ValueError
        Where rows are needed and only statistics were given; where a density is asked for at noise 0.
    """

    structure: Structure
    anchors: tuple[int, ...] | None = None
    fixed: float | None = None

    # ---- densities -------------------------------------------------------------------------------

    def log_prior(self, values: Values, data: Mapping[str, Any]) -> Array:
        """Log density (...) of the global sites in their own space, normalised."""
        return log_prior(values, data["prior"], self.structure)

    def log_likelihood(self, values: Values, data: Mapping[str, Any]) -> Array:
        """Log density (..., n) of each row's observed entries, z integrated out; 0 for an empty row."""
        if self.structure.degenerate:
            raise ValueError(NO_DENSITY)
        draws, points = self._points(values)
        patterns = Patterns(rows_of(data))
        terms = [_gaussian.log_likelihood(point, patterns) for point in points]
        return np.array(terms).reshape(*draws, len(patterns.x))

    def total_log_likelihood(self, values: Values, data: Mapping[str, Any]) -> Array:
        """The sum (...) over all rows, from the statistics alone."""
        if self.structure.degenerate:
            raise ValueError(NO_DENSITY)
        draws, points = self._points(values)
        moments = moments_of(data)
        return np.array([_gaussian.expect(p, *moments).log_likelihood for p in points]).reshape(draws)

    # ---- latents ---------------------------------------------------------------------------------

    def transform(self, values: Values, data: Mapping[str, Any]) -> tuple[Array, Array]:
        """Posterior mean and sd of z, each (n, q), over all draws (sd by the law of total variance)."""
        points, patterns = self._points(values)[1], Patterns(rows_of(data))
        shape = (len(patterns.x), self.structure.latent_dim)
        mean, square, within = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for count, point in enumerate(points, 1):
            solved = _gaussian.solve(point, patterns.seen)
            z = np.concatenate(
                [_gaussian.posterior_mean(point, patterns, solved, b) for b in patterns.blocks()]
            )
            step = _gaussian.turn(point, z) - mean
            mean += step / count  # running moments: no digits are lost where means are large
            square += step * step * ((count - 1) / count)
            within += _gaussian.posterior_variance(point, solved)[patterns.which]
        return mean, np.sqrt((square + within) / len(points))

    def inverse_transform(self, values: Values, z: Any) -> Array:
        """Mean of the data at latents z (n, q), over all draws, (n, d)."""
        z = np.asarray(z, float)
        q = self.structure.latent_dim
        if z.ndim != 2 or z.shape[1] != q:
            raise ValueError(f"z: expected shape (n, {q}), rows by factors, got {z.shape}.")
        loadings = assemble(values, self.structure, self.anchors)
        loc = np.asarray(values["loc"], float)
        d = loc.shape[-1]
        return loc.reshape(-1, d).mean(0) + z @ loadings.reshape(-1, d, q).mean(0).T

    def latents(self, values: Values, data: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Array]:
        """One draw of z given x for each of s draws, (s, n, q)."""
        points, patterns = self._points(values)[1], Patterns(rows_of(data))
        drawn = [_gaussian.turn(p, self._draw_z(p, patterns, rng)) for p in points]
        return {"z": np.array(drawn)}

    def _draw_z(self, point: Point, patterns: Patterns, rng: np.random.Generator) -> Array:
        """Independent factors given x, (n, q)."""
        solved = _gaussian.solve(point, patterns.seen)
        out = np.empty((len(patterns.x), self.structure.latent_dim))
        for rows in patterns.blocks():
            out[rows] = _gaussian.posterior_mean(point, patterns, solved, rows)
            if not point.degenerate:
                noise = rng.standard_normal(out[rows].shape)
                out[rows] += _gaussian.apply(patterns.roots(solved, rows), noise, transpose=True)
        return out

    # ---- data ------------------------------------------------------------------------------------

    def impute(self, values: Values, data: Mapping[str, Any], rng: np.random.Generator) -> Array:
        """The rows with missing entries drawn given the observed ones, (s, n, d)."""
        points, patterns = self._points(values)[1], Patterns(rows_of(data))
        missing = np.isnan(patterns.x)
        out = np.repeat(patterns.x[None], len(points), axis=0)
        for filled, point in zip(out, points, strict=True):
            z = self._draw_z(point, patterns, rng)
            noise = point.scale * rng.standard_normal(filled.shape)
            np.copyto(filled, point.loc + z @ point.loadings.T + noise, where=missing)
        return out

    def replicate(
        self, values: Values, data: Mapping[str, Any], rng: np.random.Generator
    ) -> dict[str, Array]:
        """As many new rows, with new z, for each of s draws: ``obs`` (s, n, d), none missing."""
        return {"obs": self.sample(values, len(rows_of(data)), rng)["obs"]}

    def sample(self, values: Values, num: int, rng: np.random.Generator) -> dict[str, Array]:
        """``num`` new rows for each draw: ``obs`` (..., num, d) and ``z`` (..., num, q)."""
        if num < 0:
            raise ValueError(f"num: expected a number of rows >= 0, got {num}.")
        draws, points = self._points(values)
        d, q = len(points[0].loc), self.structure.latent_dim
        obs, latent = np.empty((len(points), num, d)), np.empty((len(points), num, q))
        for i, point in enumerate(points):
            z = rng.standard_normal((num, q))
            obs[i] = point.loc + z @ point.loadings.T + point.scale * rng.standard_normal((num, d))
            latent[i] = _gaussian.turn(point, z)
        return {"obs": obs.reshape(*draws, num, d), "z": latent.reshape(*draws, num, q)}

    def deterministic(self, values: Values, data: Mapping[str, Any]) -> dict[str, Array]:
        """``loadings`` (..., d, q), and ``factor_corr`` (..., q, q) where factors are correlated."""
        loadings = assemble(
            values, self.structure, self.anchors
        )  # as they are, where they were turned already
        out = {} if self.structure.form == "ard" else {"loadings": loadings}
        if self.structure.has_factor_corr:
            tril = np.asarray(values["factor_corr_tril"], float)
            out["factor_corr"] = tril @ np.swapaxes(tril, -1, -2)
        return out

    def invariants(self, values: Values) -> dict[str, Array]:
        """Quantities that no turn of the factors changes (:mod:`._invariants`)."""
        draws, points = self._points(values)
        return {
            k: v.reshape(*draws, *v.shape[1:]) for k, v in invariants(points, self.structure.tied).items()
        }

    # ---- points ----------------------------------------------------------------------------------

    def sample_size(self, data: Mapping[str, Any]) -> int:
        """What BIC counts: rows with an observed entry."""
        if "count" not in data:
            return int((np.asarray(data["seen"]) > 0).any(1).sum())
        return int(np.asarray(data["count"])[(np.asarray(data["seen"]) > 0).any(1)].sum())

    def num_parameters(self, data: Mapping[str, Any]) -> int:
        """Free parameters for AIC and BIC: turns of the factors do not count, nor do ARD precisions."""
        return self.structure.num_parameters(len(data["place"]))

    def initial_values(self, data: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Array]:
        """A start near maximum likelihood, about two posterior sds away; ``z`` too where it is a site."""
        values = initial_values(self, moments_of(data), data["prior"], rng)
        if isinstance(data["x"], Rows):
            return values
        one = {k: np.asarray(v)[None] for k, v in values.items()}
        return {**values, "z": self.latents(one, data, rng)["z"][0]}

    def em(
        self,
        data: Mapping[str, Any],
        *,
        num_init: int = 1,
        tol: float = 1e-6,
        max_iter: int = 1000,
        rng: np.random.Generator | None = None,
        start: Values | None = None,
        estimate: str = "ml",
        variance_floor: float | None = None,
        progress: Progress | None = None,
    ) -> EMResult:
        """The point of maximum likelihood ("ml") or of the highest posterior density of the sites ("map").

        PPCA of complete data is closed; factor analysis takes Newton steps on the profile likelihood;
        missing entries take EM; masks, correlated factors and "map" take L-BFGS. The objective never falls.
        ``tol`` is nats per datum. ``variance_floor`` (squared units of the data) is the least noise
        variance; None: 1e-6 of the column variances. More starts than one (``num_init``) are tried where
        there can be several maxima: with a mask, and after a Heywood case.
        """
        return fit_point(
            self,
            moments_of(data),
            data["prior"],
            num_init=num_init,
            tol=tol,
            max_iter=max_iter,
            rng=rng if rng is not None else np.random.default_rng(0),
            start=start,
            estimate=estimate,
            variance_floor=variance_floor,
            progress=progress,
        )

    def _points(self, values: Values) -> tuple[tuple[int, ...], list[Point]]:
        return point_at(values, self.structure, self.anchors, self.fixed)


def rows_of(data: Mapping[str, Any]) -> Array:
    """The rows (n, d) of the arguments, NaN where missing.

    Raises
    ------
    ValueError
        If the data were given as statistics, or in chunks.
    """
    x = data["x"]
    if isinstance(x, Rows):
        if x.x is None:
            raise ValueError(
                "x: the data were given as statistics (or in chunks), and this needs the rows; pass them."
            )
        return np.asarray(x.x, np.float64)
    x = np.asarray(x, np.float64)
    return x if "seen" not in data else np.where(np.asarray(data["seen"]) > 0, x, np.nan)


def moments_of(data: Mapping[str, Any]) -> Moments:
    """Count, mean, scatter and seen by pattern, from the arguments of either program."""
    if "count" in data:
        arrays = [np.asarray(data[k], np.float64) for k in ("count", "mean", "scatter", "seen")]
        return arrays[0], arrays[1], arrays[2], arrays[3]
    own = SufficientStatistics.from_rows(rows_of(data))
    return own.count, own.mean, own.scatter, own.seen
