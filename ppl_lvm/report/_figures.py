"""The pictures of a report, as SVG that an HTML page can carry."""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib

from ppl_lvm import plots
from ppl_lvm.comparison import Comparison
from ppl_lvm.evidence import EvidenceLadder, ladder_of
from ppl_lvm.plots._verdicts import LEVELS
from ppl_lvm.result import Fit
from ppl_lvm.structure import ModelGraph

logger = logging.getLogger("ppl_lvm")


@dataclass(frozen=True)
class Picture:
    """An image with what is said below it, and what is read aloud in its place."""

    name: str
    caption: str
    alt: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Wanted:
    """A picture to be made: its name, its function, its caption and alternative text."""

    name: str
    make: Callable[[], Any]
    caption: str
    alt: str


def pictures_of(every: Iterable[Wanted]) -> tuple[list[Picture], list[str]]:
    """The pictures that can be made, and for the others why not."""
    made, missing = [], []
    for one in every:
        try:
            figure = one.make()
        except ValueError as reason:
            logger.info("report: %s is left out: %s", one.name, reason)
            missing.append(f"{one.name}: {reason}")
            continue
        width, height = (round(96 * inches) for inches in figure.get_size_inches())
        made.append(Picture(one.name, one.caption, one.alt, svg_source(figure), width, height))
    return made, missing


def graph_picture(graph: ModelGraph | None) -> list[Wanted]:
    """The model's graph; nothing where it could not be traced."""
    if graph is None:
        return []
    edges = "; ".join(f"{n.name} depends on {', '.join(n.parents)}" for n in graph.nodes if n.parents)
    observed = ", ".join(n.name for n in graph.nodes if n.kind == "observed")
    alt = f"Graph of {len(graph.nodes)} sites, observed: {observed or 'none'}. {edges or 'No dependencies'}."
    return [Wanted("Model graph", lambda: plots.plot_model(graph), "Sites, plates and dependencies.", alt)]


def svg_source(figure: Any) -> str:
    """A data URI; letters are drawn as shapes, so that they look the same everywhere."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "ppl_lvm"}):
        figure.savefig(buffer, format="svg", dpi=130, metadata={"Date": None})
    # Coordinates to a hundredth of a point: half the size, and nothing to see of it.
    text = re.sub(r' (?:d|x|y)="[^"]*"', _rounded, buffer.getvalue().decode("utf-8"))
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode("utf-8")).decode("ascii")


def _rounded(attribute: re.Match[str]) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), attribute[0])


def wanted(comparison: Comparison, ladder: EvidenceLadder | None) -> Iterator[Wanted]:
    """The pictures of a comparison, in their order."""
    fits, reference = comparison.fits, comparison.reference
    verdicts = "; ".join(f"{n}: {LEVELS[v.level]}" for n, v in comparison.verdicts.items())
    against = f" against the reference {reference}" if reference else ""
    yield Wanted(
        "Means and intervals",
        lambda: plots.plot_comparison(comparison, max_quantities=16),
        "Where a fit's markers leave the grey band its means are off; where its lines are shorter than the "
        "reference's it is too sure."
        if reference
        else "Fits that agree have markers and lines above each other.",
        f"Forest plot: means and 89 % intervals of up to 16 quantities for {len(fits)} fits{against}. "
        "The table of quantities has the numbers.",
    )
    yield Wanted(
        "Verdicts",
        lambda: plots.plot_verdicts(comparison),
        "What decides the verdicts: every quantity's bias and spread, with the limits." if reference
        else "How far each fit can be trusted by its own diagnostics.",
        f"Verdicts{against}. {verdicts}.",
    )  # fmt: skip
    yield Wanted(
        "Marginal densities",
        lambda: plots.plot_marginals(comparison),
        "The same quantities as densities: skewness, bumps and bounds, which an interval does not show.",
        f"Density curves of up to 12 quantities for {len(comparison.draws)} fits with draws"
        + (
            f", and vertical lines for the points {', '.join(comparison.points)}."
            if comparison.points
            else "."
        ),
    )
    if comparison.draws and len(set(comparison.table.index.get_level_values("quantity"))) > 1:
        yield Wanted(
            "Pairs of quantities",
            lambda: plots.plot_pairs(comparison),
            "What marginals do not show: correlations, curved ridges, separate modes.",
            f"Scatter plots of pairs of up to 4 quantities for {len(comparison.draws)} fits with draws, "
            "densities on the diagonal.",
        )
    yield from _of_the_evidence(comparison, ladder)
    yield from _of_single_fits(comparison)


def _of_the_evidence(comparison: Comparison, ladder: EvidenceLadder | None) -> Iterator[Wanted]:
    fits = comparison.fits
    own = ladder_of(fits)
    if own is not None:
        evidence = "; ".join(f"{n}: {f.evidence}" for n, f in fits.items() if f.evidence is not None)
        yield Wanted(
            "Log evidence",
            lambda: plots.plot_ladder(own) if len(own.evidence) > 1 else plots.plot_evidence(fits),
            "A bound says on which side the evidence lies, not how far: the gap is what the guide lost. IWAE "
            "bounds rise towards the evidence as far as the guide's own draws reach.",
            f"Log evidence with its errors. {evidence}.",
        )
    if ladder is not None:
        rungs = "; ".join(f"{n}: {e}" for n, e in ladder.evidence.items())
        yield Wanted(
            "Evidence ladder",
            lambda: plots.plot_ladder(ladder),
            "Estimates that agree and lie above the bounds are what to hope for.",
            f"Log evidence by several methods. {rungs}.",
        )


def _of_single_fits(comparison: Comparison) -> Iterator[Wanted]:
    fits = comparison.fits
    main = comparison.reference or next(iter(comparison.draws), next(iter(fits)))
    if getattr(fits[main].model.exact, "predict_proba", None) is not None:
        yield Wanted(
            f"Clusters by {main}",
            lambda: plots.plot_clusters(fits[main]),
            "Small marks are rows that the posterior does not place with certainty.",
            f"Scatter plots of pairs of features, coloured by the most probable component by {main}.",
        )
    yield Wanted(
        f"Replicated data by {main}",
        lambda: plots.plot_predictive(fits[main]),
        "Data that the model would make next. Where the black line leaves the bundle, the model does not "
        "have what the data have.",
        f"Distributions of the data and of 40 replicated data sets by {main}, column by column.",
    )
    if any("optimization" in fit.groups for fit in fits.values()):
        yield Wanted(
            "Optimisation",
            lambda: plots.plot_loss(fits),
            "A curve that still rises at its end has not converged.",
            "Objective against step for the fits that were optimised.",
        )
    chains = [n for n, f in fits.items() if _is_chain(f)]
    if chains:
        chain = main if main in chains else max(chains, key=lambda n: fits[n].posterior.sizes["chain"])
        yield from _of_chains(chain, fits[chain])
    for name, fit in fits.items():
        if fit.sample_stats is not None and "log_q" in fit.sample_stats:
            yield Wanted(
                f"Importance weights of {name}",
                partial(plots.plot_khat, fit),
                "A flat left end is good: no few draws decide. Its slope is k-hat.",
                f"Sorted importance weights of {name} on logarithmic axes, and the k-hat of their tail.",
            )


def _of_chains(name: str, fit: Fit) -> Iterator[Wanted]:
    yield Wanted(
        f"Traces of {name}",
        lambda: plots.plot_trace(fit),
        "Chains that mix look alike and show no drift.",
        f"Trace plots of the six quantities of {name} with the largest R-hat, a colour for each chain.",
    )
    if fit.posterior.sizes["chain"] > 1:
        yield Wanted(
            f"Ranks of {name}",
            lambda: plots.plot_rank(fit),
            "Sharper than traces: a chain that leaves the band samples another distribution than the rest.",
            f"Rank plots of the six quantities of {name} with the largest R-hat, a line for each chain.",
        )


def _is_chain(fit: Fit) -> bool:
    return not fit.is_point and fit.posterior.attrs.get("draws") == "chain"


__all__ = ["Picture", "graph_picture", "pictures_of", "svg_source", "wanted"]
