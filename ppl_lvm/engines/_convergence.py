"""When an optimisation has converged, and what its draws say about the evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ppl_lvm.core import Evidence, Outcome, Problem, Status


class Watch:
    """The loss history (negative bound, nats) and the stopping rule described in ``SVI``; ``size`` is the
    number of coordinates that are fitted."""

    def __init__(self, window: int, tolerance: float, size: int, patience: int = 2) -> None:
        self.window, self.tolerance, self.size, self.patience = window, tolerance, size, patience
        self.losses: list[float] = []
        self.quiet = 0
        self.drift, self.room = 0.0, 1.0
        self.gain = self.gain_error = math.nan

    def add(self, losses: np.ndarray) -> None:
        self.losses.extend(float(v) for v in losses)

    def check(self) -> bool:
        """Compare the last two windows; whether the run may stop early.

        Windows grow with the run (a tenth of it), so that slow gains are not lost in the noise. To
        stop early, even the largest gain that the error allows must be below the tolerance.
        """
        if not self.measure():
            return False
        still = self.gain + 2 * self.gain_error < self.tolerance and not self.under_way
        self.quiet = self.quiet + 1 if still else 0
        return self.settled

    def measure(self) -> bool:
        """The gain between the last two windows and its error; False while there are no two."""
        w = max(self.window, len(self.losses) // 10)
        if len(self.losses) < 2 * w:
            return False
        before, last = np.array(self.losses[-2 * w : -w]), np.array(self.losses[-w:])
        self.gain = float(before.mean() - last.mean())
        self.gain_error = math.sqrt(_mean_variance(before) + _mean_variance(last))
        return True

    def moved(self, drift: float, room: float) -> None:
        """What is known of the last window's steps: the way of the param that went farthest over the sum of
        their sizes (1: all in one direction), and the sum of all sizes so far over theirs."""
        self.drift, self.room = drift, room

    @property
    def under_way(self) -> bool:
        """Whether a param still goes one way: at full speed, or so that steps as large as those so far could
        gain more than the tolerance. Steps are too small for the scale of the data, however little they gain.

        Among noise alone the way over 100 steps is a tenth of their sizes."""
        could_gain = (self.gain + 2 * self.gain_error) * self.room > self.tolerance
        return self.drift > (0.5 if could_gain else _FULL_SPEED)

    @property
    def settled(self) -> bool:
        """Whether the objective stood still often enough in a row for the run to stop."""
        return self.quiet >= self.patience

    def level(self) -> tuple[float, float]:
        """Mean loss of the last window, and its error."""
        last = np.array(self.losses[-max(self.window, len(self.losses) // 10) :])
        return float(last.mean()), math.sqrt(_mean_variance(last)) if len(last) >= 20 else math.nan

    def status(self, gains: np.ndarray | None = None) -> Status:
        """Converged if the last gain is below the tolerance or within two standard errors of zero, and these
        could hide none that matters; else it says which of the two is not so.

        ``gains`` are those by batch of the params at the end over earlier ones, where they were compared at
        equal rows and draws.
        """
        self.measure()
        if gains is not None:
            self.gain, self.gain_error = float(gains.mean()), float(gains.std(ddof=1) / math.sqrt(len(gains)))
        details = {"steps": float(len(self.losses)), "last_gain": self.gain, "gain_error": self.gain_error}
        details = {k: v for k, v in details.items() if math.isfinite(v)}
        blind = 2 * self.gain_error > max(10 * self.tolerance, self.size / 8)
        still = self.gain < max(self.tolerance, 2 * self.gain_error)
        said = [_BLIND.format(2 * self.gain_error)] if blind else []
        said += [_UNDER_WAY] if still and self.under_way else []
        return Status(Outcome.CONVERGED if still and not said else Outcome.MAX_STEPS, details, tuple(said))


_FULL_SPEED = 0.75  # of the steps' sizes

_UNDER_WAY = (
    "a param still moves one way at every step, so that steps are too small for its scale; divide the data "
    "by their standard deviations, raise learning_rate or take more steps"
)
_BLIND = (
    "the noise of the objective hides gains of up to {:.3g} nats, so that nothing says whether the optimum "
    "is reached; take more steps, more particles or larger batches"
)


def _mean_variance(x: np.ndarray) -> float:
    """Variance of the mean of a correlated series, by batch means."""
    batches = x[: len(x) // 10 * 10].reshape(10, -1).mean(1)
    return float(batches.var(ddof=1) / 10)


def log_mean_exp(x: np.ndarray, axis: int = -1) -> np.ndarray:
    from scipy.special import logsumexp

    return logsumexp(x, axis=axis) - math.log(x.shape[axis])


def bound(log_weights: np.ndarray, problem: Problem, *, alpha: float | None, particles: int) -> Evidence:
    """The bound that log weights (s,) or per datum (s, n) give, with its standard error.

    ``alpha=None`` is the ELBO; else the Renyi bound of groups of ``particles`` weights. The error of a single
    one is infinite: nothing tells it.
    """
    if alpha is None:
        each = log_weights if log_weights.ndim == 1 else log_weights.sum(-1)
    else:
        groups = len(log_weights) // particles
        grouped = log_weights[: groups * particles].reshape(groups, particles, *log_weights.shape[1:])
        each = log_mean_exp((1 - alpha) * grouped, axis=1) / (1 - alpha)
        each = each if each.ndim == 1 else each.sum(-1)
    error = float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else math.inf
    kind = "lower_bound" if alpha is None or 0 <= alpha < 1 else "estimate"
    free = tuple(n for n in problem.params if n not in problem.model.fixed_params)
    held = tuple(n for n in problem.params if n in problem.model.fixed_params)
    given = free + held + problem.model.held_sites
    return Evidence(kind, float(each.mean()), error, given)  # type: ignore[arg-type]  # a literal


LogQ = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def symmetrised_log_q(
    problem: Problem, values: Mapping[str, np.ndarray], log_q: np.ndarray, log_q_at: LogQ, most: int = 120
) -> tuple[np.ndarray, str]:
    """log of the guide's density averaged over all relabellings, at its own draws.

    A guide that sits in one of the k! relabelled modes of a mixture's posterior misses up to log k!
    nats of the evidence. The average over labels is itself a density, and draws of it are the guide's
    draws relabelled at random, under which the posterior does not change; so weights p / q_sym are
    those of a proposal that covers every mode. For more than ``most`` relabellings the guide's own
    density is kept (with a note): the bound is then that of one labelling.
    """
    from itertools import permutations

    from ppl_lvm.relabel import num_labels, permute

    axes = problem.model.label_axes
    if not axes:
        return log_q, problem.model.label_note
    k = num_labels(axes, values)
    if math.factorial(k) > most:
        return log_q, f"of one labelling: up to log {k}! = {math.lgamma(k + 1):.1f} nats may be missing"
    terms = [log_q]
    for order in list(permutations(range(k)))[1:]:
        terms.append(log_q_at(permute(values, axes, np.array(order))))
    stacked = np.stack(terms)
    return log_mean_exp(stacked, axis=0), ""
