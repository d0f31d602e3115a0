"""Every transform of Pyro, in a model through its value, its log-Jacobian and, where it has one, its inverse.

Weights of networks are drawn once, from a fixed seed, and held fixed, as ``pyro.module`` would hold them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms as t
from pyro.distributions.transforms import transform_to
from translation_cases import float64

NUM_CONTEXT = 2


@dataclass(frozen=True)
class Flow:
    """One transform: ``build(scale)`` where ``scale`` is a latent positive number, or ignores it.

    ``inverse`` says whether values that it did not make itself have a preimage, ``volume`` whether it has a
    log-Jacobian.
    """

    name: str
    build: Callable[[Any], Any]
    shape: tuple[int, ...] = ()
    inverse: bool = True
    volume: bool = True
    learned: bool = False
    conditional: bool = False

    def __str__(self) -> str:
        return self.name

    def made(self) -> Any:
        """The model, (x,) -> None, and values x that the transform can give, (*shape)."""
        with float64(), torch.random.fork_rng():
            torch.manual_seed(3)
            network = self.build(None) if self.learned else None
            if network is not None and isinstance(network, torch.nn.Module):
                network.eval()
            with torch.no_grad():
                at = self._at(network, torch.tensor(1.3), torch.ones(NUM_CONTEXT))
                x = at(self._start(at, torch.linspace(-0.5, 0.9, max(1, self._size(at)))))
        return self._model(network), x.numpy().copy()

    def _at(self, network: Any, scale: Any, context: Any) -> Any:
        made = self.build(scale) if network is None else network
        return made.condition(context) if self.conditional else made

    def _size(self, at: Any) -> int:
        return int(np.prod(transform_to(at.domain).inverse_shape(torch.Size(self.shape))))

    def _start(self, at: Any, free: torch.Tensor) -> torch.Tensor:
        into = transform_to(at.domain)
        return into(free.reshape(into.inverse_shape(torch.Size(self.shape))))

    def _model(self, network: Any) -> Callable[[Any], None]:
        def model(x: Any) -> None:
            scale = pyro.sample("scale", dist.LogNormal(torch.zeros(()), 1.0))
            context = pyro.sample("context", dist.Normal(torch.zeros(NUM_CONTEXT), 1.0).to_event(1))
            at = self._at(network, scale, context)
            size = self._size(at)
            free = pyro.sample("free", dist.Normal(torch.zeros(size), 1.0).to_event(1))
            start = self._start(at, free)
            end = at(start)
            pyro.factor("end", -0.1 * (end * end).sum())
            if self.volume:
                pyro.factor("volume", at.log_abs_det_jacobian(start, end).sum())
            if self.inverse:
                again = self._at(network, scale, context)  # no cached inverse
                back = again.inv(x)
                kept = again.log_abs_det_jacobian(back, x).sum()
                pyro.factor("inverse", -kept - 0.3 * (back * back).sum())

        return model


def _learned(name: str, shape: tuple[int, ...] = (3,), inverse: bool = True, **kwargs: Any) -> Flow:
    return Flow(name, lambda _: getattr(t, name.split()[0])(*shape, **kwargs), shape, inverse, learned=True)


def _conditional(name: str, inverse: bool = True, **kwargs: Any) -> Flow:
    def build(_: Any) -> Any:
        return getattr(t, f"conditional_{name}")(3, context_dim=NUM_CONTEXT, **kwargs)

    return Flow(f"conditional_{name}", build, (3,), inverse, learned=True, conditional=True)


def _tril(scale: Any) -> torch.Tensor:
    return torch.eye(3) * scale + torch.ones(3, 3).tril(-1) * 0.2


FLOWS = [
    Flow("AffineTransform", lambda s: t.AffineTransform(s, 2 * s)),
    Flow(
        "CatTransform",
        lambda s: t.CatTransform([t.ExpTransform(), t.AffineTransform(1.0, s)], lengths=[2, 1]),
        (3,),
    ),
    Flow("CholeskyTransform", lambda s: t.CholeskyTransform(), (2, 2)),
    Flow("ComposeTransform", lambda s: t.ComposeTransform([t.TanhTransform(), t.AffineTransform(0.0, s)])),
    Flow("CorrCholeskyTransform", lambda s: t.CorrCholeskyTransform(), (3,)),
    Flow("CorrLCholeskyTransform", lambda s: t.CorrLCholeskyTransform(), (3,)),
    Flow("CorrMatrixCholeskyTransform", lambda s: t.CorrMatrixCholeskyTransform(), (3, 3)),
    Flow("CumulativeDistributionTransform", lambda s: t.CumulativeDistributionTransform(dist.Normal(0.0, s))),
    Flow("DiscreteCosineTransform", lambda s: t.DiscreteCosineTransform(), (4,)),
    Flow("DiscreteCosineTransform smooth", lambda s: t.DiscreteCosineTransform(smooth=1.0), (5,)),
    Flow("ELUTransform", lambda s: t.ELUTransform()),
    Flow("ExpTransform", lambda s: t.ExpTransform()),
    Flow("HaarTransform", lambda s: t.HaarTransform(), (4,)),
    Flow("HaarTransform flip", lambda s: t.HaarTransform(flip=True), (5,)),
    Flow("IndependentTransform", lambda s: t.IndependentTransform(t.AffineTransform(1.0, s), 1), (3,)),
    Flow("LeakyReLUTransform", lambda s: t.LeakyReLUTransform(), (3,)),
    Flow("LowerCholeskyAffine", lambda s: t.LowerCholeskyAffine(torch.ones(3) * s, _tril(s)), (3,)),
    Flow("LowerCholeskyTransform", lambda s: t.LowerCholeskyTransform(), (2, 2), inverse=False, volume=False),
    Flow("OrderedTransform", lambda s: t.OrderedTransform(), (3,)),
    Flow("Permute", lambda s: t.Permute(torch.tensor([2, 0, 1])), (3,)),
    Flow(
        "PositiveDefiniteTransform",
        lambda s: t.PositiveDefiniteTransform(),
        (2, 2),
        inverse=False,
        volume=False,
    ),
    Flow("PositivePowerTransform", lambda s: t.PositivePowerTransform(s)),
    Flow("PowerTransform", lambda s: t.PowerTransform(s)),
    Flow("ReshapeTransform", lambda s: t.ReshapeTransform((4,), (2, 2)), (4,)),
    Flow("SigmoidTransform", lambda s: t.SigmoidTransform()),
    Flow("SimplexToOrderedTransform", lambda s: t.SimplexToOrderedTransform(s), (3,)),
    Flow("SoftmaxTransform", lambda s: t.SoftmaxTransform(), (3,), inverse=False, volume=False),
    Flow(
        "SoftplusLowerCholeskyTransform",
        lambda s: t.SoftplusLowerCholeskyTransform(),
        (2, 2),
        inverse=False,
        volume=False,
    ),
    Flow("SoftplusTransform", lambda s: t.SoftplusTransform()),
    Flow("StackTransform", lambda s: t.StackTransform([t.ExpTransform(), t.AffineTransform(1.0, s)]), (2,)),
    Flow("StickBreakingTransform", lambda s: t.StickBreakingTransform(), (3,)),
    Flow("TanhTransform", lambda s: t.TanhTransform()),
    Flow("identity_transform", lambda s: t.identity_transform),
    *(_learned(n) for n in ("affine_autoregressive", "affine_coupling", "batchnorm", "matrix_exponential")),
    *(_learned(n) for n in ("householder", "permute", "spline", "spline_coupling", "spline_autoregressive")),
    _learned("spline quadratic", order="quadratic"),
    _learned("affine_autoregressive stable", stable=True),
    *(
        _learned(n, inverse=False)
        for n in ("block_autoregressive", "neural_autoregressive", "planar", "polynomial")
    ),
    *(_learned(n, inverse=False) for n in ("radial", "sylvester")),
    Flow("elu", lambda _: t.elu(), (3,), learned=True),
    Flow("leaky_relu", lambda _: t.leaky_relu(), (3,), learned=True),
    Flow("iterated", lambda _: t.iterated(2, t.affine_autoregressive, 3), (3,), learned=True),
    Flow(
        "generalized_channel_permute",
        lambda _: t.generalized_channel_permute(channels=3),
        (3, 2, 2),
        learned=True,
    ),
    *(
        _conditional(n)
        for n in ("affine_autoregressive", "affine_coupling", "householder", "matrix_exponential")
    ),
    *(_conditional(n) for n in ("spline", "spline_autoregressive")),
    *(_conditional(n, inverse=False) for n in ("neural_autoregressive", "planar", "radial")),
    Flow(
        "conditional_generalized_channel_permute",
        lambda _: t.conditional_generalized_channel_permute(NUM_CONTEXT, channels=3),
        (3, 2, 2),
        learned=True,
        conditional=True,
    ),
]
