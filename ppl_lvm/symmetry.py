"""Draws of a model with symmetries in one common order and orientation: labels first, then rotations."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ppl_lvm import relabel, rotation

if TYPE_CHECKING:
    from ppl_lvm.core import AbstractModel
    from ppl_lvm.result import Fit

Values = Mapping[str, np.ndarray]


class Reference(NamedTuple):
    """What draws are brought to: descriptions of labels; loadings (d, q), and sds (d,) of the variables."""

    labels: relabel.Labels | None
    loadings: np.ndarray | None
    sds: np.ndarray | None = None


def settle(fit: Fit) -> Fit:
    """A fresh fit with its draws in one order of labels and one orientation of factors."""
    return _turned(relabel.relabel_fit(fit), None)


def reference_of(fit: Fit) -> Reference:
    """The order and orientation of a (settled) fit with draws."""
    from ppl_lvm.result import flat_draws

    model, values = fit.model, flat_draws(fit.posterior)
    labels = loadings = sds = None
    if model.label_axes and set(model.label_axes) <= set(values):
        labels = relabel.describe_labels(model.label_features(values))
    if model.rotation is not None and model.rotation.by in values:
        loadings = values[model.rotation.by].mean(0)
        sds = rotation.column_sds(values, model.rotation)
    return Reference(labels, loadings, sds)


def settle_to(fit: Fit, reference: Reference) -> Fit:
    """The fit in the order and orientation of a reference; points too."""
    fit = _relabelled(fit, reference.labels)
    return fit if reference.loadings is None else _turned(fit, reference)


def settle_values(model: AbstractModel, values: Values, reference: Reference) -> dict[str, np.ndarray]:
    """Values (s, ...) in the order and orientation of a reference."""
    out = dict(values)
    if reference.labels is not None and model.label_axes:
        orders = relabel.align(model.label_features(out), reference.labels)
        out = relabel.permute(out, model.label_axes, orders)
    found = model.rotation
    if reference.loadings is not None and found is not None:
        sds = reference.sds[:, None] if reference.sds is not None else 1.0
        turns = rotation.find_turns(out[found.by] / sds, reference.loadings / sds, found.kind)
        out = rotation.turn(out, found, turns)
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


def _turned(fit: Fit, reference: Reference | None) -> Fit:
    """Draws (or a point) turned to a reference, or without one to their own common orientation."""
    from ppl_lvm.result import flat_draws

    found = fit.model.rotation
    own: Any = fit.params if fit.is_point else fit.draws
    if found is None or found.by not in own:
        return fit
    names = {*found.axes, *found.permuted, found.by, found.units}
    sites = sorted(s for s in names if s is not None and s in own)
    if fit.is_point:
        values = {k: np.asarray(own[k])[None] for k in sites}
        make = functools.partial(_turned_values, fit.model, values, reference, 0)
        return dataclasses.replace(fit, params=_TurnedPoint(fit.params, make))
    turned = _turned_values(fit.model, flat_draws(own[sites]), reference, relabel.pivot_of(fit))
    shape = (own.sizes["chain"], own.sizes["draw"])
    new = own.assign({k: (own[k].dims, v.reshape(*shape, *v.shape[1:])) for k, v in turned.items()})
    new.attrs = {**own.attrs, "rotated": f"{found.kind} turns to the mean (Procrustes)"}
    return dataclasses.replace(fit, draws=new)


def _turned_values(
    model: AbstractModel, values: Values, reference: Reference | None, pivot: int
) -> dict[str, np.ndarray]:
    """Values (s, ...) turned to a reference, or to their own mean in the conventional orientation."""
    found: Any = model.rotation
    if reference is None:
        sds = rotation.column_sds(values, found)
        mean = rotation.find_reference(values[found.by] / sds[:, None], found.kind, pivot)
        reference = Reference(None, mean * sds[:, None], sds)
    return settle_values(model, values, Reference(None, reference.loadings, reference.sds))


class _TurnedPoint(Mapping[str, np.ndarray]):
    """A point's values, turned when they are first read: varimax can take longer than the fit itself."""

    def __init__(self, values: Values, make: Callable[[], dict[str, np.ndarray]]) -> None:
        self._values, self._make = values, make
        self._done = False

    def _read(self) -> Values:
        if not self._done:
            self._values = {**self._values, **{k: v[0] for k, v in self._make().items()}}
            self._done = True
        return self._values

    def __getitem__(self, name: str) -> np.ndarray:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict(self._read()))
