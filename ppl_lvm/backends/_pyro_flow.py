"""Normalizing flows as a Pyro autoguide, built of Pyro's own layers (see :class:`ppl_lvm.families.Flow`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions import transforms as T
from pyro.infer.autoguide import AutoContinuous
from pyro.nn import AutoRegressiveNN, DenseNN, PyroParam

from ppl_lvm.families import SPLINE_BOUND, Flow

_START_SCALE = 0.1
_SMALL = 0.01  # of the last layer of a network at the start, beside its usual size
_PACE = 0.1  # a step of Adam that suits a location is too long for a network's weights
_FLAT = math.log(math.expm1(1 - 1e-3))  # what Pyro's splines make a slope of 1 of


class AutoFlow(AutoContinuous):
    """Noise through the layers of ``settings``, then through an affine map, started at ``init_loc_fn``."""

    def __init__(self, model: Any, init_loc_fn: Callable[..., Any], settings: Flow) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn)
        self._settings = settings

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        size, settings = self.latent_dim, self._settings
        loc = self._init_loc()
        self.loc = torch.nn.Parameter(loc)
        self.scale = PyroParam(torch.full_like(loc, _START_SCALE), constraints.softplus_positive)
        self._dense = 1 < size <= settings.max_dense
        if self._dense:
            unit = torch.eye(size, dtype=loc.dtype)
            self.scale_tril = PyroParam(unit, constraints.unit_lower_cholesky)
        layer = _spline if settings.kind == "spline" else _autoregressive
        count = settings.num_layers if settings.kind == "spline" or size > 1 else 0
        self.layers = torch.nn.ModuleList([layer(size, settings) for _ in range(count)])

    def get_base_dist(self) -> Any:
        return dist.Normal(torch.zeros_like(self.loc), torch.ones_like(self.loc)).to_event(1)

    def get_transform(self, *args: Any, **kwargs: Any) -> Any:
        order = torch.arange(self.latent_dim - 1, -1, -1)
        bent: list[Any] = [part for layer in self.layers for part in (layer, T.Permute(order))]
        scale: Any = self.scale  # read, a PyroParam is its value
        tril = scale[..., None] * self.scale_tril if self._dense else torch.diag(scale)
        return T.ComposeTransform([*bent, T.LowerCholeskyAffine(self.loc, scale_tril=tril)])


def _autoregressive(size: int, settings: Flow) -> Any:
    width = settings.width_for(size)
    # an order of the coordinates that is drawn, as Pyro does by itself, would be another one after loading
    order: Any = torch.arange(size)
    network = AutoRegressiveNN(size, [width, width], permutation=order, nonlinearity=torch.nn.ELU())
    _shrink(network.layers[-1])
    return T.AffineAutoregressive(network)


def _spline(size: int, settings: Flow) -> Any:
    bins, head = settings.num_bins, size // 2
    if not head:
        return _flat(T.Spline(size, count_bins=bins, bound=SPLINE_BOUND, order="quadratic"))
    width, rest = settings.width_for(size), size - head
    network = DenseNN(head, [width, width], param_dims=[rest * bins, rest * bins, rest * (bins - 1)])
    _shrink(network.layers[-1])
    last: Any = network.layers[-1]
    last.bias.data[2 * rest * bins :] = _FLAT
    layer = T.SplineCoupling(size, head, network, bins, SPLINE_BOUND, order="quadratic")
    _flat(layer.lower_spline)
    return layer


def _flat(spline: Any) -> Any:
    """The spline made the identity."""
    spline.unnormalized_widths.data.zero_()
    spline.unnormalized_heights.data.zero_()
    spline.unnormalized_derivatives.data.fill_(_FLAT)
    return spline


def _shrink(linear: Any) -> None:
    linear.weight.data.mul_(_SMALL)
    linear.bias.data.mul_(_SMALL)


def pace(guide: Any, name: str) -> float:
    """The part of the learning rate that a param of a guide is to have."""
    return _PACE if isinstance(guide, AutoFlow) and ".layers." in name else 1.0
