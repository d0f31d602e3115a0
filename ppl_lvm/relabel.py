r"""Label switching: bring the exchangeable components of every draw into one order.

A mixture's posterior has k! equal modes, one for each order of the components, and a chain (or
chains among themselves) may visit several. Before anything is averaged, each draw is relabelled by
the permutation that makes its components most probable under a common description of them, in the
decision-theoretic form of Stephens (2000, JRSS B 62, section 4) with normal densities for the
components' coordinates:

1. start from the coordinates (location, log scale, ...) of one pivot draw, under several guesses at
   how much each varies within a label;
2. give every draw the permutation that minimises the summed cost
   :math:`\sum_f (\psi_{tjf} - m_{kf})^2 / 2 v_{kf} + \tfrac12 \log v_{kf}` of its components j as
   labels k, by the Hungarian method;
3. re-estimate means m and variances v for each label from the relabelled draws; repeat from 2 until
   no permutation changes, and keep the start that ends cheapest.

It uses all coordinates of a component, not an order on one of them. The posterior density is the
same for all relabellings, so relabelled draws are draws of the posterior restricted to one of its k!
copies.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_TRIAL = 100


class Labels(NamedTuple):
    """Means and variances (k, f) of the coordinates by which each label is recognised."""

    mean: np.ndarray
    variance: np.ndarray


def describe_labels(features: np.ndarray) -> Labels:
    """Label descriptions from relabelled coordinates (s, k, f)."""
    pooled = features.var((0, 1)) + 1e-300
    variance = features.var(0) if len(features) > 1 else np.broadcast_to(pooled, features.shape[1:])
    return Labels(features.mean(0), np.maximum(variance, 1e-6 * pooled))


def align(features: np.ndarray, labels: Labels) -> np.ndarray:
    """Permutations (s, k): entry [t, k] is the component of draw t that gets label k."""
    return _align(features, labels)[0]


def _align(features: np.ndarray, labels: Labels) -> tuple[np.ndarray, float]:
    """Permutations and the summed cost (the negative log density of the draws under the labels)."""
    gap = features[:, :, None, :] - labels.mean
    cost = (0.5 * gap**2 / labels.variance + 0.5 * np.log(labels.variance)).sum(-1)  # (s, component, label)
    k = cost.shape[2]
    if k <= 5:  # few enough permutations to try them all at once
        orders = np.array(list(itertools.permutations(range(k))))
        totals = cost[:, orders, np.arange(k)].sum(-1)
        best = totals.argmin(1)
        return orders[best], float(totals[np.arange(len(best)), best].sum())
    from scipy.optimize import linear_sum_assignment

    best = cost.argmin(1)
    unclear = np.flatnonzero((np.sort(best, 1) != np.arange(k)).any(1))
    for t in unclear:  # elsewhere the columnwise minimum is a permutation, hence optimal
        rows, columns = linear_sum_assignment(cost[t])
        best[t, columns] = rows
    return best, float(np.take_along_axis(cost, best[:, None, :], axis=1).sum())


def find_permutations(features: np.ndarray, pivot: int, max_iter: int = 50) -> np.ndarray:
    """Permutations (s, k) for draws with coordinates (s, k, f), starting from one draw's order.

    Which coordinates tell the components apart is not known beforehand, and a poor guess ends in a
    poor local optimum; so several are tried on a few draws, and the cheapest labelling is refined on all.
    """
    rows = np.unique(np.linspace(0, len(features) - 1, min(len(features), _TRIAL)).astype(int))
    few = features[rows]
    starts = [Labels(features[pivot], v) for v in _start_variances(features)]
    tried = [_iterate(few, labels, max_iter) for labels in starts]
    labels = min(tried, key=lambda found: found[2])[1]
    orders = _iterate(features, labels, max_iter)[0]
    named = np.empty_like(orders)
    named[:, orders[pivot]] = orders  # labels are named so that the pivot keeps its own order
    return named


def _iterate(features: np.ndarray, labels: Labels, max_iter: int) -> tuple[np.ndarray, Labels, float]:
    """Alternate assignment and description until nothing changes: (orders, labels, cost)."""
    orders, cost = _align(features, labels)
    for _ in range(max_iter):
        labels = describe_labels(np.take_along_axis(features, orders[:, :, None], axis=1))
        new, cost = _align(features, labels)
        if (new == orders).all():
            break
        orders = new
    return orders, labels, cost


def _start_variances(features: np.ndarray) -> list[np.ndarray]:
    """Guesses (k, f) at how much each coordinate varies within a label.

    From successive draws, from all draws, and with each coordinate in turn the only one that counts.
    None depends on the draws' present labels, so that relabelling twice changes nothing.
    """
    shape = features.shape[1:]
    pooled = features.var((0, 1)) + 1e-300
    guesses = [pooled]
    if len(features) > 1:
        ranked = np.sort(features, axis=1)  # whatever the labels are
        steps = np.median(np.diff(ranked, axis=0) ** 2, axis=(0, 1)) / 0.91
        guesses.insert(0, np.maximum(steps, 1e-6 * pooled))
    for f in range(shape[1]):
        alone = pooled * 1e6
        alone[f] = pooled[f]
        guesses.append(alone)
    return [np.broadcast_to(g, shape) for g in guesses]


def permute(
    values: Mapping[str, np.ndarray], axes: Mapping[str, tuple[int, ...]], order: np.ndarray
) -> dict[str, np.ndarray]:
    """Reorder label axes of values (s, ...): one order (k,) for all draws, or one per draw (s, k)."""
    out = dict(values)
    for site in set(axes) & set(values):
        value = np.asarray(values[site])
        for axis in axes[site]:
            at = axis + 1
            if order.ndim == 1:
                value = np.take(value, order, axis=at)
            else:
                shape = [1] * value.ndim
                shape[0], shape[at] = order.shape
                value = np.take_along_axis(value, order.reshape(shape), axis=at)
        out[site] = value
    return out


def num_labels(axes: Mapping[str, tuple[int, ...]], values: Mapping[str, np.ndarray]) -> int:
    """Number of labels, from the size of a labelled axis of values (s, ...)."""
    site = next(s for s in axes if s in values)
    return int(np.asarray(values[site]).shape[1 + axes[site][0]])


def relabel_values(
    model: Any, values: Mapping[str, np.ndarray], pivot: int, labels: Labels | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Values (s, ...) in one order of labels, and the permutations (s, k) that did it."""
    features = model.label_features(values)
    orders = find_permutations(features, pivot) if labels is None else align(features, labels)
    return permute(values, model.label_axes, orders), orders


def relabel_fit(fit: Any) -> Any:
    """A fit with every draw relabelled; the permutations go to ``sample_stats.permutation``."""
    axes = fit.model.label_axes
    if not axes or fit.draws is None or not set(axes) <= set(fit.draws.data_vars):
        return fit
    from ppl_lvm.result import flat_draws

    values = flat_draws(fit.draws)
    relabelled, orders = relabel_values(fit.model, values, pivot_of(fit))
    return apply_orders(fit, relabelled, orders, axes)


def pivot_of(fit: Any) -> int:
    """The draw of highest density, where densities are known, else the first; chains and draws merged."""
    stats = fit.sample_stats
    size = fit.draws.sizes["chain"] * fit.draws.sizes["draw"]
    for name in ("lp", "log_p"):
        if stats is not None and name in stats and stats[name].size == size:
            return int(np.asarray(stats[name].values).reshape(-1).argmax())
    return 0


def apply_orders(
    fit: Any, values: Mapping[str, np.ndarray], orders: np.ndarray, axes: Mapping[str, Any]
) -> Any:
    """The fit with relabelled values written back and the permutations recorded."""
    import xarray as xr

    shape = (fit.draws.sizes["chain"], fit.draws.sizes["draw"])
    new = {k: (fit.draws[k].dims, values[k].reshape(*shape, *values[k].shape[1:])) for k in axes}
    draws = fit.draws.assign(new)
    moved = int((orders != orders[0]).any(1).sum())
    draws.attrs = {**fit.draws.attrs, "relabelled": "assignment to normal label descriptions (Stephens 2000)"}
    stats = fit.sample_stats if fit.sample_stats is not None else xr.Dataset()
    previous = stats["permutation"].values.reshape(orders.shape) if "permutation" in stats else None
    total = orders if previous is None else np.take_along_axis(previous, orders, axis=1)
    stats = stats.assign(permutation=(("chain", "draw", "label"), total.reshape(*shape, -1)))
    details = {**fit.status.details, "relabelled_draws": float(moved)}
    status = dataclasses.replace(fit.status, details=details)
    return dataclasses.replace(fit, draws=draws, sample_stats=stats, status=status)


__all__ = [
    "Labels",
    "align",
    "apply_orders",
    "describe_labels",
    "find_permutations",
    "num_labels",
    "permute",
    "pivot_of",
    "relabel_fit",
    "relabel_values",
]
