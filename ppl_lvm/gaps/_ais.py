"""log p(x) of each datum by annealed importance sampling; both ways on data simulated from the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.amortised import simulate
from ppl_lvm.backends.amortised import BLOCK
from ppl_lvm.engines._checks import check_choice, check_count
from ppl_lvm.gaps._means import Mean, log_mean, mean_of
from ppl_lvm.gaps._setup import Setup, check_fit, setup, unconstrained
from ppl_lvm.predictive import LogPredictive
from ppl_lvm.progress import wanted
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

    from ppl_lvm.gaps._jax_ais import LogWeights, Start


def ais_log_likelihood(
    fit: Fit,
    data: Any = None,
    *,
    num_chains: int = 16,
    num_temperatures: int = 200,
    start: Start = "encoder",
    seed: int = 0,
    block: int = BLOCK,
    progress: bool | None = None,
) -> LogPredictive:
    r"""log p(x_i | weights) of each datum by annealed importance sampling: a stochastic lower bound.

    Chains go from the encoder's q(z | x) (or the prior) to the posterior of z along the geometric path, with
    a Hamiltonian move at each of the temperatures; step sizes by datum and temperature come from a pilot run
    and are then fixed. The mean weight of a datum is an unbiased estimate of p(x_i), and its log is low by
    :math:`\approx \frac12 \mathrm{Var}` of the estimate's log on average (Neal 2001; Wu, Burda, Salakhutdinov
    and Grosse 2017, arXiv:1611.04273).

    Parameters
    ----------
    fit, data
        A fit of a model with an encoder, whose latents are all local; its own data if None. The model has to
        run on JAX.
    num_chains, num_temperatures
        Chains for each datum (at least 2), and steps of the path.
    start
        "encoder": the normal distribution of the encoder (where q is not normal, the one with its mean and
        covariance); "prior": draws of the prior, the longer way.
    seed, progress
        As for :func:`ppl_lvm.fit`.
    block
        The most chains, over all data, that run at once: memory depends on nothing else.

    Returns
    -------
    LogPredictive
        Of kind "lower_bound", standard errors by the delta method over a datum's chains.

    Raises
    ------
    TypeError, ValueError
        For fits of models without an encoder, or which do not run on JAX.
    """
    check_settings(num_chains, num_temperatures, start, seed, block)
    with setup("ais_log_likelihood", fit, data, seed=seed, block=block) as own:
        found = annealed(own, num_chains, num_temperatures, start, seed, block, wanted(progress))
    value, error = log_mean(found.value)
    total = float(np.sqrt((error**2).sum()))
    return LogPredictive(value, error, float(value.sum()), total, "lower_bound")


def annealed(
    own: Setup, chains: int, num: int, start: Start, seed: int, block: int, progress: bool, truth: Any = None
) -> LogWeights:
    """Log weights of forward chains; of reverse ones from exact draws ``truth`` (n, d)."""
    from ppl_lvm.gaps._jax_ais import anneal

    if start == "prior" and own.rows.density.sample_prior is None:
        raise ValueError(
            "start: the prior of the latents is improper, so chains cannot start there; use 'encoder'."
        )
    return anneal(
        own.rows,
        own.base,
        own.held,
        chains=chains,
        num_temperatures=num,
        start=start,
        seed=seed,
        block=block,
        truth=truth,
        progress=progress,
    )


def check_settings(chains: Any, num: Any, start: Any, seed: Any, block: Any) -> None:
    check_count("num_chains", chains, least=2)
    check_count("num_temperatures", num, least=2)
    check_choice("start", start, ("encoder", "prior"))
    check_count("seed", seed, least=0)
    check_count("block", block)


@dataclass(frozen=True, eq=False, repr=False)
class Bidirectional:
    """The result of :func:`bidirectional`: bounds of log p(x) of simulated data from both sides.

    Attributes
    ----------
    table
        A row per datum, nats: ``forward`` (a stochastic lower bound), ``reverse`` (an upper bound), ``iwae``
        (a lower bound), each with ``..._error``.
    data, latents
        What was simulated, (n, \\*image), and the latents that made them (n, ...).
    """

    table: pd.DataFrame
    data: np.ndarray
    latents: np.ndarray
    settings: dict[str, Any]

    def difference(self, upper: str, lower: str) -> Mean:
        """The mean over data of one column less another; the estimates are independent of each other."""
        error = np.hypot(self.table[f"{upper}_error"], self.table[f"{lower}_error"])
        return mean_of((self.table[upper] - self.table[lower]).to_numpy(), np.asarray(error))

    @property
    def gap(self) -> Mean:
        """Reverse less forward: how wrong an annealed estimate at these settings can be, on average."""
        return self.difference("reverse", "forward")

    @property
    def iwae_excess(self) -> Mean:
        """IWAE less the upper bound: above 0 beyond its error only if something is wrong."""
        return self.difference("iwae", "reverse")

    def __repr__(self) -> str:
        s = self.settings
        return "\n".join(
            [
                f"Annealing both ways on {len(self.table)} simulated data ({s['num_chains']} chains, "
                f"{s['num_temperatures']} temperatures, from the {s['start']})",
                f"  reverse - forward  {self.gap}",
                f"  IWAE_{s['num_particles']} - reverse  {self.iwae_excess}",
            ]
        )


def bidirectional(
    fit: Fit,
    num_data: int = 100,
    *,
    num_chains: int = 16,
    num_temperatures: int = 200,
    start: Start = "encoder",
    num_particles: int = 5000,
    seed: int = 0,
    block: int = BLOCK,
    progress: bool | None = None,
) -> Bidirectional:
    r"""Bound log p(x) of data simulated from the decoder from both sides (bidirectional Monte Carlo).

    z from the prior and x from p(x | z) make z an exact draw of the posterior given x. Chains annealed
    forwards bound log p(x) from below; chains annealed backwards from that z bound it from above,
    :math:`E[-\log \frac1c \sum_j e^{-w_j}] \ge \log p(x)` (Grosse, Ghahramani and Adams 2015,
    arXiv:1511.02543; Wu et al. 2017). A small gap says that :func:`ais_log_likelihood` with these settings,
    and an IWAE bound that agrees with it, are accurate on data *like these*; nothing of data that the decoder
    would not produce.

    The reverse chains of a datum start at one exact draw and are moved 50 times before they go back. Where
    they still depend on each other a datum's own error is too small; ``std_error`` of means over data is not.

    Parameters
    ----------
    fit, num_chains, num_temperatures, start, seed, block, progress
        As for :func:`ais_log_likelihood`.
    num_data
        How many data are simulated.
    num_particles
        Particles of the IWAE bound that is set beside.
    """
    check_settings(num_chains, num_temperatures, start, seed, block)
    check_count("num_data", num_data, least=2)
    check_count("num_particles", num_particles)
    check_fit("bidirectional", fit)
    z, x = simulate(fit, num_data, seed, block=block)
    show = wanted(progress)
    with setup("bidirectional", fit, x, seed=seed, block=block) as own:
        names = list(own.rows.density.shapes)
        if len(names) != 1:
            raise ValueError(f"bidirectional: expected one latent site, got {names}.")
        truth = unconstrained(own.rows, {names[0]: z[None]}, own.held, own.problem.dtype)[:, 0]
        there = annealed(own, num_chains, num_temperatures, start, seed + 1, block, show)
        back = annealed(own, num_chains, num_temperatures, start, seed + 2, block, show, truth)
        bound = own.of.importance(own.params, own.arguments, num_particles, seed + 3, block)
    low, low_error = log_mean(there.value)
    high, high_error = log_mean(-back.value)
    settings = {"num_chains": num_chains, "num_temperatures": num_temperatures, "start": start}
    columns = {"forward": low, "forward_error": low_error, "reverse": -high, "reverse_error": high_error}
    columns |= {"iwae": bound.value, "iwae_error": bound.std_error}
    return Bidirectional(_frame(columns), x, z, settings | {"num_particles": num_particles})


def _frame(columns: dict[str, np.ndarray]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame({k: np.asarray(v, float) for k, v in columns.items()})
    table.index.name = "data"
    return table


__all__ = ["Bidirectional", "ais_log_likelihood", "annealed", "bidirectional"]
