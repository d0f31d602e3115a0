r"""Same model, different inference: what each fit gets right, with errors, and a verdict.

With a reference, every quantity q (entries of the sites, and the model's invariants, after relabelling
to the reference's labels) of every fit is compared with the reference's:

- ``bias`` = (mean - reference mean) / reference sd, with its Monte Carlo error;
- ``sd_ratio`` = sd / reference sd, with its error;
- ``w1``, the 1-Wasserstein distance in reference sds, beside ``w1_noise``, its expectation for two
  samples of these effective sizes from one distribution;
- ``q05_shift`` and ``q95_shift``, differences of the 5 % and 95 % quantiles in reference sds, with errors;
- ``kl_to`` = KL(fit || reference) and ``kl_from`` = KL(reference || fit), nats over 20 bins, with errors: the
  first is what VI minimises, the second is large where the fit lacks mass (a dropped mode);
- ``ess``, ``r_hat`` and ``khat`` of the fit itself.

``Comparison.joint`` looks at all quantities together (:mod:`ppl_lvm.comparison_joint`).

Every quantity gets a verdict, and a fit that of its worst quantity. Bounds are one bias and one ratio for
all. Errors count 2.6 times (1 %); to condemn, more often by the number of quantities looked at (Bonferroni):

- ``do_not_trust``: a bias above half a reference sd, beyond its error; or chains whose means differ so much
  that the error of their mean alone is above half an sd;
- ``inconclusive``: the errors are too large to exclude such a bias, or cannot be told (R-hat above 1.05, an
  effective size below 50, weights with a poor k-hat); of such fits the bias is held against the reference's
  error alone, so that what is plainly wrong is still called so;
- ``means_only``: every bias is below half an sd, but a spread is off by more than a third, or the errors
  do not exclude it;
- ``means_and_spreads``: every bias below half an sd, every sd ratio between 3/4 and 4/3.

Without a reference, what a fit is held against is its own evidence and short dispersed chains
(:mod:`ppl_lvm.verdicts_alone`, :mod:`ppl_lvm.dispersed`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.comparison_table import comparison_table, overview_table
from ppl_lvm.diagnostics import moments, quantities
from ppl_lvm.dispersed import SpotCheck, SpotChecks, SpotResult
from ppl_lvm.ranking import same_inputs
from ppl_lvm.relabel import describe_labels
from ppl_lvm.result import Fit
from ppl_lvm.rotation import column_sds
from ppl_lvm.symmetry import Reference, reference_of, settle_to
from ppl_lvm.verdicts import MAX_BIAS, MAX_LOG_RATIO, Verdict, judge, reference_trouble
from ppl_lvm.verdicts_alone import judge_alone

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ppl_lvm.evidence import EvidenceLadder


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The result of :func:`compare`.

    Attributes
    ----------
    fits, reference
        The fits, relabelled to common labels, and the reference's name (None without one).
    table
        A row per (fit, quantity); columns as in the module's page.
    verdicts
        One :class:`Verdict` per fit.
    overview
        A row per fit: engine, backend, draws, wall seconds, evaluations of the log density with and without
        gradient (:func:`ppl_lvm.effort.effort_of`), smallest ESS (and per second), k-hat, evidence with its
        kind and error.
    draws
        Aligned draws of every quantity, by fit (points have none).
    held_out
        The data that were passed for :attr:`predictive`; None without.
    quantity_verdicts
        One :class:`Verdict` per fit and quantity; their levels are also in ``table["verdict"]``.
    spot_checks
        What short dispersed chains say of each fit (:class:`SpotResult`), where they were run.
    """

    fits: Mapping[str, Fit]
    reference: str | None
    table: pd.DataFrame
    verdicts: Mapping[str, Verdict]
    overview: pd.DataFrame
    draws: Mapping[str, xr.Dataset]
    points: Mapping[str, Mapping[str, np.ndarray]]
    held_out: Any = None
    quantity_verdicts: Mapping[str, Mapping[str, Verdict]] = field(default_factory=dict)
    spot_checks: Mapping[str, SpotResult] = field(default_factory=dict)

    @functools.cached_property
    def joint(self) -> pd.DataFrame:
        """A row per fit with draws, against the reference: classifier test, sliced Wasserstein distance, MMD,
        correlations lost (:mod:`ppl_lvm.comparison_joint`). Computed when first asked for.

        Raises
        ------
        ValueError
            Without a reference.
        """
        from ppl_lvm.comparison_joint import joint_table

        if self.reference is None:
            raise ValueError("joint: there is nothing to compare with; name a reference in lvm.compare.")
        figures = {n: moments(self.fits[n], d) for n, d in self.draws.items()}
        return joint_table(self.draws, figures, self.reference)

    @functools.cached_property
    def predictive(self) -> pd.DataFrame:
        """A row per fit: leave-one-out or held-out log predictive density, its difference to the reference or
        the best, with errors (:func:`ppl_lvm.comparison_predictive.predictive_table`). Computed when first
        asked for.
        """
        from ppl_lvm.comparison_predictive import predictive_table

        return predictive_table(self.fits, self.reference, self.held_out)

    @functools.cached_property
    def checks(self) -> pd.DataFrame:
        """A row per (fit, statistic): means, sds and extremes of replicated data beside those of the data
        (:func:`ppl_lvm.comparison_checks.checks_table`). Computed when first asked for.
        """
        from ppl_lvm.comparison_checks import checks_table

        return checks_table(self.fits)

    def plot(self, **settings: Any) -> Any:
        """Means and intervals of every fit side by side, a Figure (:func:`ppl_lvm.plots.plot_comparison`)."""
        from ppl_lvm.plots import plot_comparison

        return plot_comparison(self, **settings)

    def to_html(self, path: str | Path, *, ladder: EvidenceLadder | None = None) -> Path:
        """Write the report, one self-contained page; returns its path.

        ``ladder`` is what :func:`ppl_lvm.evidence_ladder` returned for this model and data, to be shown too.
        """
        from ppl_lvm.report import write_report

        return write_report(self, Path(path), ladder=ladder)

    def __repr__(self) -> str:
        against = f" against {self.reference!r}" if self.reference else ""
        model = next(iter(self.fits.values())).model.describe()
        lines = [f"Comparison of {len(self.fits)} fits of {model}{against}"]
        lines += [f"  {name:<12} {verdict}" for name, verdict in self.verdicts.items()]
        return "\n".join([*lines, "", self.overview.to_string(float_format=lambda v: f"{v:.3g}")])

    def _repr_html_(self) -> str:
        from ppl_lvm.notebook import comparison_html

        return comparison_html(self)


def compare(
    fits: Mapping[str, Fit],
    reference: str | None = None,
    *,
    data: Any = None,
    spot_check: bool | SpotCheck | None = None,
) -> Comparison:
    """Compare fits of one model to the same data by different engines (:mod:`ppl_lvm.comparison`).

    Parameters
    ----------
    fits
        By name.
    reference
        The name of the fit that the others are held against; None judges each by what it says of itself.
    spot_check
        Whether short chains from dispersed starts look for modes that the fits missed
        (:func:`ppl_lvm.spot_check`), or the settings to do so with. None: where there is no reference. With
        one, the check is of the reference.
    data
        Held out, for ``Comparison.predictive``; without them it is leave-one-out on the fits' own.

    Raises
    ------
    TypeError, ValueError
        For fits of different models or data, an unknown reference, or one that is a point.
    """
    _check(fits, reference)
    if data is not None:
        next(iter(fits.values())).model.bind(
            data, fitting=False
        )  # raises in words, before anything is computed
    common = _common_reference(fits, reference)
    aligned = {name: settle_to(fit, common) for name, fit in fits.items()}
    draws = {n: quantities(f) for n, f in aligned.items() if not f.is_point}
    points = {n: _point_values(f) for n, f in aligned.items() if f.is_point}
    figures = {n: moments(aligned[n], d) for n, d in draws.items()}
    table = comparison_table(aligned, draws, figures, points, reference)
    checks = _spot_checks(aligned, reference, spot_check, common if draws else None)
    spots = checks.results if checks is not None else {}
    verdicts, each = _verdicts(aligned, table, reference, spots)
    if checks is not None and any(_undecided(aligned[n], verdicts[n], s) for n, s in spots.items()):
        checks.go_on()
        spots = checks.results
        verdicts, each = _verdicts(aligned, table, reference, spots)
    table = table.assign(verdict=[each[f][q].level for f, q in table.index])
    overview = overview_table(aligned, figures)
    return Comparison(aligned, reference, table, verdicts, overview, draws, points, data, each, spots)


def _spot_checks(
    fits: Mapping[str, Fit], reference: str | None, wanted: bool | SpotCheck | None, common: Reference | None
) -> SpotChecks | None:
    if not isinstance(wanted, (bool, SpotCheck, type(None))):
        raise TypeError(
            f"spot_check: expected True, False, None or a SpotCheck, got {type(wanted).__name__}."
        )
    if wanted is None:
        wanted = reference is None
    if wanted is False:
        return None
    settings = SpotCheck() if wanted is True else wanted
    looked_at = dict(fits) if reference is None else {reference: fits[reference]}
    return SpotChecks(looked_at, settings, common)


def _undecided(fit: Fit, verdict: Verdict, spot: SpotResult) -> bool:
    """Whether more draws of the short chains may settle a verdict: not on chains, whose errors are theirs."""
    chains = not fit.is_point and fit.posterior.attrs.get("draws") == "chain"
    return verdict.level == "inconclusive" and not chains and len(spot.table) > 0


def _verdicts(
    fits: Mapping[str, Fit], table: pd.DataFrame, reference: str | None, spots: Mapping[str, SpotResult]
) -> tuple[dict[str, Verdict], dict[str, dict[str, Verdict]]]:
    """On each fit, and on each of its quantities."""
    found = {}
    names = set(table.index.get_level_values("fit"))
    for name, fit in fits.items():
        if reference is None or name == reference:
            rows = table.loc[name] if name in names else table.iloc[:0].droplevel("fit")
            found[name] = judge_alone(fit, rows, spots.get(name))
    if reference is not None:
        trouble = reference_trouble(
            fits[reference], table.loc[reference] if reference in names else table.iloc[:0]
        )
        own = found[reference][0]
        if not trouble and own.level == "do_not_trust":
            trouble = own.sentence
        for name, fit in fits.items():
            if name != reference:
                found[name] = judge(name, fit, table, reference, trouble)
    return {n: found[n][0] for n in fits}, {n: found[n][1] for n in fits}


# ---- checks and symmetries -----------------------------------------------------------------------


def _check(fits: Any, reference: str | None) -> None:
    if not isinstance(fits, Mapping) or not fits:
        raise TypeError("fits: expected a mapping of names to fits, such as {'vi': vi, 'mcmc': mcmc}.")
    for name, fit in fits.items():
        if not isinstance(fit, Fit):
            raise TypeError(f"fits[{name!r}]: expected a Fit, got {type(fit).__name__}.")
    if reference is not None:
        if reference not in fits:
            raise ValueError(f"reference: no fit {reference!r}; the fits are {sorted(fits)}.")
        if fits[reference].is_point:
            raise ValueError(
                f"reference: {reference!r} is a point without a posterior; use NUTS as reference."
            )
    items = list(fits.items())
    first_name, first = items[0]
    for name, fit in items[1:]:
        _check_same(first_name, first, name, fit)


def _check_same(first_name: str, first: Fit, name: str, fit: Fit) -> None:
    """One model, one data set: the programs, the data, and then the numbers of the priors."""
    mine, other = first.model.describe(), fit.model.describe()
    if mine != other:
        raise ValueError(
            f"fits: {first_name!r} is of {mine} and {name!r} of {other}; compare takes one model (use "
            "lvm.rank for different ones)."
        )
    known = first.problem is not None and fit.problem is not None
    if known and not same_inputs(first.problem, fit.problem):  # type: ignore[arg-type]  # neither is None
        raise ValueError(f"fits: {first_name!r} and {name!r} were fitted to different data.")
    if not first.model.same_as(fit.model):
        raise ValueError(
            f"fits: {first_name!r} and {name!r} are both of {mine}, but with another prior or function; "
            "compare takes one model (use lvm.rank for different ones)."
        )


def _common_reference(fits: Mapping[str, Fit], reference: str | None) -> Reference:
    """The order of labels and orientation of factors of the reference, else of the first chains."""
    with_draws = [f for f in fits.values() if not f.is_point]
    if not with_draws:
        return _order_of_a_point(fits[next(iter(fits))])
    chains = [f for f in with_draws if f.posterior.attrs.get("draws") == "chain"]
    return reference_of(fits[reference] if reference else (chains or with_draws)[0])


def _order_of_a_point(fit: Fit) -> Reference:
    """Where there are points only, they are brought to the labels and the orientation of the first."""
    model, values = fit.model, {k: np.asarray(v)[None] for k, v in fit.params.items()}
    labels = loadings = sds = None
    if model.label_axes and set(model.label_axes) <= set(values):
        labels = describe_labels(model.label_features(values))
    if model.rotation is not None and model.rotation.by in values:
        loadings, sds = values[model.rotation.by][0], column_sds(values, model.rotation)
    return Reference(labels, loadings, sds)


def _point_values(fit: Fit) -> dict[str, np.ndarray]:
    values = {k: np.asarray(v) for k, v in fit.params.items()}
    if fit.model.invariants is not None:
        found = fit.model.invariants({k: v[None] for k, v in values.items()})
        values |= {k: np.asarray(v)[0] for k, v in found.items()}
    return {k: v for k, v in values.items() if k not in fit.model.internal_sites}


__all__ = ["MAX_BIAS", "MAX_LOG_RATIO", "Comparison", "Verdict", "compare"]
