r"""What an encoder costs, taken apart (Cremer, Li and Duvenaud 2018, "Inference suboptimality in VAEs").

.. math::

    \log p(x) - \mathrm{ELBO}[q_\phi(\cdot | x)]
    = \underbrace{\log p(x) - \mathrm{ELBO}[q^*]}_{\text{approximation gap}}
    + \underbrace{\mathrm{ELBO}[q^*] - \mathrm{ELBO}[q_\phi(\cdot | x)]}_{\text{amortisation gap}}

with q* the best normal distribution for this datum alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppl_lvm.backends.amortised import BLOCK
from ppl_lvm.engines._checks import check_choice, check_count, check_positive
from ppl_lvm.gaps._ais import _frame, annealed, check_settings
from ppl_lvm.gaps._means import log_mean, summary_table
from ppl_lvm.gaps._setup import Setup, setup
from ppl_lvm.progress import wanted
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

    from ppl_lvm.gaps._jax_ais import Start

Family = Literal["diagonal", "full"]


@dataclass(frozen=True, eq=False, repr=False)
class AmortisationGap:
    """The result of :func:`amortisation_gap`, nats per datum.

    Attributes
    ----------
    table
        A row per datum: ``log_p``, ``best`` (the ELBO of the best normal found), ``elbo`` (of the encoder's
        q), ``approximation``, ``amortisation`` and ``inference`` (their sum), each with its Monte Carlo
        standard error ``..._error``; ``last_gain``, what the last 100 steps of the refinement gained, and
        ``converged``.
    summary
        A row per quantity: the mean over data, ``mc_error`` (its Monte Carlo error for these data),
        ``std_error`` (of the mean over the population they are a sample of) and ``kind``: "lower bound", "at
        least", or "difference" for gaps whose sign is open.
    settings, notes
        What was asked for, and what to know when reading the numbers.
    """

    table: pd.DataFrame
    summary: pd.DataFrame
    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    def plot(self, **options: Any) -> Any:
        """The gaps of every datum, stacked (:func:`ppl_lvm.plots.plot_gaps`), a Figure."""
        from ppl_lvm.plots import plot_gaps

        return plot_gaps(self, **options)

    def __repr__(self) -> str:
        lines = [f"Amortisation gap of {self.settings['model']} on {len(self.table)} data (nats per datum)"]
        shown = self.summary.to_string(float_format=lambda v: f"{v:.4f}")
        return "\n".join([*lines, shown, *(f"- {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        from html import escape

        items = "".join(f"<li>{escape(n)}</li>" for n in self.notes)
        return f"{self.summary.to_html(float_format=lambda v: f'{v:.4f}')}<ul>{items}</ul>"


def amortisation_gap(
    fit: Fit,
    data: Any = None,
    *,
    log_p: Literal["ais", "iwae"] = "ais",
    family: Family | None = None,
    num_draws: int = 2000,
    num_chains: int = 16,
    num_temperatures: int = 200,
    start: Start = "encoder",
    num_particles: int = 5000,
    tolerance: float = 0.01,
    max_rounds: int = 20,
    seed: int = 0,
    block: int = BLOCK,
    progress: bool | None = None,
) -> AmortisationGap:
    """How far the encoder's bound is from log p(x), and whose fault that is: the family's or the encoder's.

    The amortisation gap comes from paired draws where the encoder's q is normal: both bounds are means of
    log p(x, z) - log q(z) at draws made from the same standard normal numbers. log p(x) is a stochastic lower
    bound whichever way it is estimated, and the refinement may stop short of the best normal, so gaps are
    labelled "at least".

    Parameters
    ----------
    fit, data
        A fit of a model with an encoder that runs on JAX, and data (its own if None; take a sample of many).
    log_p
        "ais" (:func:`ais_log_likelihood`, with ``num_chains``, ``num_temperatures`` and ``start``) or "iwae"
        (the bound of ``num_particles`` draws of the encoder).
    family
        The family of the best normal: "diagonal" or "full"; None: the encoder's own, full where its q is a
        flow. Where it is not the encoder's own, the difference of the two ELBOs holds the difference of
        the families as well, and may be negative; the notes say so.
    num_draws
        Draws for each ELBO, at least 2; independent of those that the refinement saw.
    tolerance, max_rounds
        The refinement (Adam from the encoder's output, as in semi-amortised inference: Kim et al. 2018, ICML)
        stops when 100 steps gain less than ``tolerance`` nats, or nothing beyond two standard errors, for
        every datum that runs with it, or after ``max_rounds`` times 100 steps.
    seed, block, progress
        As for :func:`ais_log_likelihood`.

    Raises
    ------
    TypeError, ValueError
        For fits of models without an encoder or which do not run on JAX, and settings outside their range.
    """
    check_settings(num_chains, num_temperatures, start, seed, block)
    check_choice("log_p", log_p, ("ais", "iwae"))
    if family is not None:
        check_choice("family", family, ("diagonal", "full"))
    for name, value, least in (("num_draws", num_draws, 2), ("num_particles", num_particles, 2)):
        check_count(name, value, least=least)
    check_count("max_rounds", max_rounds)
    check_positive("tolerance", tolerance)
    show = wanted(progress)
    with setup("amortisation_gap", fit, data, seed=seed, block=block) as own:
        if log_p == "ais":
            found = annealed(own, num_chains, num_temperatures, start, seed + 1, block, show)
            top, top_error = log_mean(found.value)
        else:
            bound = own.of.importance(own.params, own.arguments, num_particles, seed + 1, block)
            top, top_error = bound.value, bound.std_error
        chosen, columns = _bounds(own, family, num_draws, tolerance, max_rounds, seed + 2, block, show)
        own_family = _family(own)
    columns |= {"log_p": top, "log_p_error": top_error}
    columns |= {"approximation": top - columns["best"]}
    columns |= {"approximation_error": np.hypot(top_error, columns["best_error"])}
    columns |= {
        "inference": top - columns["elbo"],
        "inference_error": np.hypot(top_error, columns["elbo_error"]),
    }
    names = ("log_p", "best", "elbo", "approximation", "amortisation", "inference")
    order = [n for name in names for n in (name, f"{name}_error")]
    table = _frame({n: columns[n] for n in (*order, "last_gain")})
    table["converged"] = columns["converged"].astype(bool)
    same = chosen == own_family
    kinds = dict.fromkeys(("log_p", "best", "elbo"), "lower bound") | {
        "approximation": "at least" if same else "difference",
        "amortisation": "at least" if same else "difference",
        "inference": "at least",
    }
    settings: dict[str, Any] = {
        "model": fit.model.describe(),
        "log_p": log_p,
        "family": chosen,
        "encoder_family": own_family,
    }
    settings |= {"num_draws": num_draws, "num_chains": num_chains, "num_temperatures": num_temperatures}
    settings |= {"start": start, "num_particles": num_particles, "tolerance": tolerance, "seed": seed}
    return AmortisationGap(table, summary_table(table, kinds), settings, _notes(table, settings))


def _family(own: Setup) -> str:
    """ "diagonal", "full" or "other": what the encoder's q is."""
    if not own.normal:
        return "other"
    return "diagonal" if not np.tril(own.base.tril, -1).any() else "full"


def _bounds(
    own: Setup, family: Any, num: int, tolerance: float, max_rounds: int, seed: int, block: int, show: bool
) -> tuple[str, dict[str, np.ndarray]]:
    """ELBOs of the best normal and of the encoder, and their (paired) difference."""
    from ppl_lvm.gaps._jax_refine import log_weights, refine

    mine = _family(own)
    chosen = family or ("diagonal" if mine == "diagonal" else "full")
    found = refine(
        own.rows,
        own.base,
        own.held,
        full=chosen == "full",
        tolerance=tolerance,
        max_rounds=max_rounds,
        seed=seed,
        block=block,
        progress=show,
    )
    bases = (found.base, own.base) if own.normal else (found.base,)
    drawn = log_weights(own.rows, bases, own.held, num=num, seed=seed + 1, block=block)
    columns = {"best": drawn[0].mean(1), "best_error": _error(drawn[0])}
    if own.normal:
        columns |= {"elbo": drawn[1].mean(1), "elbo_error": _error(drawn[1])}
        columns |= {"amortisation_error": _error(drawn[0] - drawn[1])}
    else:
        theirs = own.of.log_weights(own.params, own.arguments, num, seed + 2, block).T.astype(float)
        columns |= {"elbo": theirs.mean(1), "elbo_error": _error(theirs)}
        columns |= {"amortisation_error": np.hypot(columns["best_error"], columns["elbo_error"])}
    columns |= {"amortisation": columns["best"] - columns["elbo"]}
    return chosen, columns | {"last_gain": found.last_gain, "converged": found.converged}


def _error(drawn: np.ndarray) -> np.ndarray:
    return drawn.std(1, ddof=1) / math.sqrt(drawn.shape[1])


def _notes(table: pd.DataFrame, settings: Mapping[str, Any]) -> tuple[str, ...]:
    way = {
        "ais": f"AIS ({settings['num_chains']} chains, {settings['num_temperatures']} temperatures)",
        "iwae": f"IWAE with {settings['num_particles']} particles",
    }[settings["log_p"]]
    q = settings["family"]
    out = [
        f"log p(x) is a stochastic lower bound by {way}; gaps to it are at least what is shown",
        f"the best {q} normal is the best one found; what it misses counts as approximation, "
        "not as amortisation",
    ]
    if settings["family"] != settings["encoder_family"]:
        kind = {"other": "not normal", "full": "a full-covariance normal", "diagonal": "a diagonal normal"}
        out.append(
            f"the encoder's q is {kind[settings['encoder_family']]}, the refined one a {settings['family']} "
            "normal: their difference is of families as well as of amortisation, and may be negative"
        )
    left = int((~table["converged"]).sum())
    if left:
        out.append(
            f"the refinement of {left} data still gained up to {table['last_gain'].max():.3f} nats in its "
            "last 100 steps: raise max_rounds"
        )
    return tuple(out)


__all__ = ["AmortisationGap", "amortisation_gap"]
