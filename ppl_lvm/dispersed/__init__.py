r"""The spot check: short chains from dispersed starts, to see what a fit's own figures cannot.

Weights p / q are finite wherever a guide has been; they know nothing of where it has not. A guide that
dropped a mode can have a k-hat near zero and equal rungs from the ELBO to the IWAE bound, and chains that
all began in one mode agree with one another. So short NUTS chains start elsewhere: at draws of the prior and
their mirror images about its mean, at peaks of the density among thousands of points of the prior's range
(:mod:`ppl_lvm.dispersed._peaks`), at draws of the fit three times as far from its mean, and at the engine's
own starts. Three things are read off them:

- *Places.* Chains are grouped by barriers of the log density between them, and the mass of each place is
  estimated (:mod:`ppl_lvm.dispersed._places`). Draws are relabelled and turned by the model's own rule
  first, so that copies under its symmetries are one place.
- *Shift.* With m_k the mean of a quantity at place k, w_k the place's share of the mass and s_k its share of
  the fit's draws, sum_k (w_k - s_k) m_k, in posterior sds, is by how much the fit's mean is off for having
  the places' shares wrong. A place of negligible mass shifts nothing, however many chains ended there.
- *Estimate.* Means and sds of the mixture of places, with errors, as a rough reference: for guides whose
  weights are too uneven to correct them, and for points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ppl_lvm.diagnostics import Finding
from ppl_lvm.engines._checks import check_count, check_positive
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

    from ppl_lvm.symmetry import Reference


MOST_DIVERGENT = 0.02
"""Share of divergent transitions above which short chains vouch for nothing."""


@dataclass(frozen=True)
class SpotCheck:
    """Settings of a spot check.

    Parameters
    ----------
    budget_seconds
        Of sampling, for all chains together; each has an equal share of it. Compilation, once a model and
        shapes, comes on top. Chains that keep fewer than 50 draws in their time do not count.
    num_chains, num_warmup, num_samples
        Of NUTS, with trajectories of at most 256 steps.
    most_samples
        Draws of each chain up to which :func:`ppl_lvm.compare` lets the chains go on, within their budget,
        where a verdict would be inconclusive.
    seed
        Of starts and chains.
    """

    budget_seconds: float = 20.0
    num_chains: int = 16
    num_warmup: int = 200
    num_samples: int = 150
    most_samples: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive("budget_seconds", self.budget_seconds)
        check_count("num_chains", self.num_chains, least=2)
        check_count("num_warmup", self.num_warmup, least=20)
        check_count("num_samples", self.num_samples, least=20)
        check_count("most_samples", self.most_samples, least=20)

    @property
    def most(self) -> int:
        """Draws of each chain beyond which it does not go on."""
        return max(self.num_samples, self.most_samples)


@dataclass(frozen=True, eq=False, repr=False)
class SpotResult:
    """What a spot check says of one fit.

    Attributes
    ----------
    finding
        In words: how many chains settled where, and what it means for the fit.
    num_chains, num_settled, seconds
        Chains that began and that settled, and what they took.
    places
        A row per place, the first the one with the most chains: ``chains``, ``log_mass`` with
        ``log_mass_error`` (nats, of the joint density), ``share`` of the posterior with ``share_error``,
        ``fit_share`` of the fit's draws. Row "fit": where the fit is, if no chain settled there.
    table
        A row per quantity: ``mean``, ``mean_error``, ``sd``, ``sd_error`` of the estimate (NaN where the
        chains do not allow one), and ``shift``, ``shift_error`` in its sds (NaN for points).
    divergent
        Share of the chains' transitions that diverged.
    seen
        Whether chains settled at every place that holds a twentieth of the mass, so that the estimate is
        independent of the fit.
    """

    finding: Finding
    num_chains: int
    num_settled: int
    seconds: float
    places: pd.DataFrame
    table: pd.DataFrame
    divergent: float
    seen: bool

    def __repr__(self) -> str:
        return (
            f"SpotResult: {self.finding.sentence}\n{self.places.to_string(float_format=lambda v: f'{v:.3g}')}"
        )


def spot_check(
    fit: Fit,
    *,
    budget_seconds: float = 20.0,
    num_chains: int = 16,
    num_warmup: int = 200,
    num_samples: int = 150,
    seed: int = 0,
) -> SpotResult:
    """Look for places that a fit has missed, by short chains from dispersed starts (see the module's page).

    Runs on JAX: the model's twin, or its program translated. Where neither is to be had, or the fit came
    without its data, the result's finding says so.

    Raises
    ------
    TypeError, ValueError
        For something other than a fit, or settings out of range.
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"fit: expected a Fit, got {type(fit).__name__}.")
    settings = SpotCheck(budget_seconds, num_chains, num_warmup, num_samples, seed=seed)
    return SpotChecks({"fit": fit}, settings, None).results["fit"]


class SpotChecks:
    """One set of chains for fits of one model and data set, and what it says of each (``results``).

    ``common`` is the order of labels and orientation of factors that the fits are in; None: the first's.
    """

    def __init__(self, fits: dict[str, Fit], settings: SpotCheck, common: Reference | None) -> None:
        from ppl_lvm.dispersed._chains import Search

        self._fits, self._settings = fits, settings
        self._search = Search(list(fits.values()), settings, common)
        self.results: dict[str, SpotResult] = self._at(settings.num_samples)

    def go_on(self) -> None:
        """Let the chains go on to their most draws, or the end of their time."""
        if self._settings.most > self._settings.num_samples:
            self.results = self._at(self._settings.most)

    def _at(self, num_samples: int) -> dict[str, SpotResult]:
        from ppl_lvm.dispersed._judge import nothing, spot_result

        found = self._search.spots(num_samples)
        if isinstance(found, str):
            return {name: nothing(found) for name in self._fits}
        return {name: spot_result(fit, found) for name, fit in self._fits.items()}


__all__ = ["MOST_DIVERGENT", "SpotCheck", "SpotChecks", "SpotResult", "spot_check"]
