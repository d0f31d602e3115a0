"""Draws of a model with symmetries in one common order and orientation: labels first, then rotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ppl_lvm import relabel, rotation

if TYPE_CHECKING:
    from ppl_lvm.core import AbstractModel
    from ppl_lvm.result import Fit

Values = Mapping[str, np.ndarray]


class Reference(NamedTuple):
    """What draws are brought to: descriptions of labels, and loadings (d, q); None where there are none."""

    labels: relabel.Labels | None
    loadings: np.ndarray | None


def settle(fit: Fit) -> Fit:
    """A fresh fit with its draws in one order of labels and one orientation of factors."""
    return _turned(relabel.relabel_fit(fit), None)


def reference_of(fit: Fit) -> Reference:
    """The order and orientation of a (settled) fit with draws."""
    from ppl_lvm.result import flat_draws

    model, values = fit.model, flat_draws(fit.posterior)
    labels = loadings = None
    if model.label_axes and set(model.label_axes) <= set(values):
        labels = relabel.describe_labels(model.label_features(values))
    if model.rotation is not None and model.rotation.by in values:
        loadings = values[model.rotation.by].mean(0)
    return Reference(labels, loadings)


def settle_to(fit: Fit, reference: Reference) -> Fit:
    """The fit in the order and orientation of a reference; points too."""
    fit = _relabelled(fit, reference.labels)
    return fit if reference.loadings is None else _turned(fit, reference.loadings)


def settle_values(model: AbstractModel, values: Values, reference: Reference) -> dict[str, np.ndarray]:
    """Values (s, ...) in the order and orientation of a reference."""
    out = dict(values)
    if reference.labels is not None and model.label_axes:
        orders = relabel.align(model.label_features(out), reference.labels)
        out = relabel.permute(out, model.label_axes, orders)
    found = model.rotation
    if reference.loadings is not None and found is not None:
        out = rotation.turn(out, found, rotation.find_turns(out[found.by], reference.loadings, found.kind))
    return out


def _relabelled(fit: Fit, labels: relabel.Labels | None) -> Fit:
    from ppl_lvm.result import flat_draws

    axes = fit.model.label_axes
    if labels is None or not axes:
        return fit
    if fit.is_point:
        return dataclasses.replace(fit, params=_settled_point(fit, Reference(labels, None)))
    values = flat_draws(fit.posterior)
    orders = relabel.align(fit.model.label_features(values), labels)
    settled: Fit = relabel.apply_orders(fit, relabel.permute(values, axes, orders), orders, axes)
    return settled


def _settled_point(fit: Fit, reference: Reference) -> dict[str, np.ndarray]:
    values = {k: np.asarray(v)[None] for k, v in fit.params.items()}
    return {k: v[0] for k, v in settle_values(fit.model, values, reference).items()}


def _turned(fit: Fit, loadings: np.ndarray | None) -> Fit:
    """Draws (or a point) turned to loadings, or without any to their own common orientation."""
    from ppl_lvm.result import flat_draws

    found = fit.model.rotation
    if found is None:
        return fit
    if fit.is_point:
        if found.by not in fit.params:
            return fit
        if loadings is None:
            loadings = rotation.conventional(np.asarray(fit.params[found.by]), found.kind)
        return dataclasses.replace(fit, params=_settled_point(fit, Reference(None, loadings)))
    draws: Any = fit.draws
    if found.by not in draws:
        return fit
    sites = [s for s in {**found.axes, **found.permuted} if s in draws]
    values = flat_draws(draws[sites])
    if loadings is None:
        loadings = rotation.find_reference(values[found.by], found.kind, relabel.pivot_of(fit))
    turns = rotation.find_turns(values[found.by], loadings, found.kind)
    shape = (draws.sizes["chain"], draws.sizes["draw"])
    turned = {
        k: (draws[k].dims, v.reshape(*shape, *v.shape[1:]))
        for k, v in rotation.turn(values, found, turns).items()
    }
    new = draws.assign(turned)
    new.attrs = {**draws.attrs, "rotated": f"{found.kind} turns to the mean (Procrustes)"}
    return dataclasses.replace(fit, draws=new)
