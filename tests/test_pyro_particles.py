"""Particles of an ELBO on Pyro in one run of the programs: the mean of single runs, pairs among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import clusters
from pyro.poutine.messenger import Messenger

import ppl_lvm as lvm
from ppl_lvm import ELBO, SVI, models
from ppl_lvm.backends import _pyro_guide as guides
from ppl_lvm.backends._pyro_trace import to_torch
from ppl_lvm.backends.session import torch_session
from ppl_lvm.engines._pyro_particles import run_together
from ppl_lvm.engines._pyro_svi import pyro_svi
from ppl_lvm.fitting import prepare

Y = clusters(12)[:, 0]
Losses = tuple[float, dict[str, np.ndarray]]


class Tape(Messenger):
    """Keeps the values of sites that a guide draws, or plays those of one particle, with their gradients."""

    def __init__(self, values: dict[str, torch.Tensor] | None = None, particle: int = 0) -> None:
        super().__init__()
        self.plays, self.values, self.particle = values is not None, values or {}, particle
        self.seen: set[str] = set()  # the guide comes first

    def _pyro_sample(self, msg: Any) -> None:
        if self.plays and msg["name"] in self.values and msg["value"] is None:
            value = self.values[msg["name"]][self.particle].reshape(msg["fn"].shape())
            msg["value"] = made_again(msg["fn"], value)

    def _pyro_post_sample(self, msg: Any) -> None:
        drawn = (
            msg["fn"].has_rsample and not isinstance(below(msg["fn"]), dist.Delta) and not msg["is_observed"]
        )
        if drawn and not self.plays and msg["name"] not in self.seen:
            self.values[msg["name"]] = msg["value"].detach().clone()
        self.seen.add(msg["name"])


def below(fn: Any) -> Any:
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return fn


def made_again(fn: Any, value: torch.Tensor) -> torch.Tensor:
    """The value as a function of the distribution's params, by the noise behind it."""
    fn = below(fn)
    maps = fn.transforms if isinstance(fn, torch.distributions.TransformedDistribution) else []
    fn = below(fn.base_dist) if maps else fn
    with torch.no_grad():
        for part in reversed(maps):
            value = part.inv(value)
        triangular = isinstance(fn, torch.distributions.MultivariateNormal)
        gap = value - fn.loc
        noise = torch.linalg.solve(fn.scale_tril, gap) if triangular else gap / fn.scale
    value = fn.loc + (fn.scale_tril @ noise if triangular else fn.scale * noise)
    for part in maps:
        value = part(value)
    return value


def shifted(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("obs", dist.Normal(z, scale), obs=y)


def by_hand(y: Any) -> None:
    """Sites that hang on another."""
    at = pyro.param("at", torch.tensor([0.2, -0.1]))
    mu = pyro.sample("mu", dist.Normal(at[0], 0.3))
    pyro.sample("scale", dist.LogNormal(mu, 0.1 + mu**2))
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(mu + at[1] * y, 0.5))


def of_one_row(y: Any) -> None:
    """Looks at a number, so that it runs for one particle only."""
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu if float(mu) > 0 else 2 * mu, 1.0), obs=y)


GMM = models.GaussianMixture(2, covariance="diag")
CASES: dict[str, tuple[Any, Any, Any, int | None]] = {
    "a label of each datum": (GMM, clusters(12), "full_rank", None),
    "a batch of them": (GMM, clusters(12), "mean_field", 4),
    "latents of data": (shifted, Y, "structured", None),
    "a flow": (shifted, Y, "flow", None),
    "an encoder, on a batch": (shifted, Y, "amortized", 4),
    "a program": (lvm.Model(shifted, guide=by_hand), Y, None, None),
}


# A flow's layers are not inverted, so that it has no pairs.
EACH = [(case, pairs) for case in CASES for pairs in (True, False) if case != "a flow" or not pairs]


def losses(svi: Any, args: Any) -> Losses:
    store = pyro.get_param_store()
    for name in store.keys():  # noqa: SIM118  # not a mapping
        store._params[name].grad = None
    loss = float(svi.loss_and_grads(svi.model, svi.guide, **args))
    found = {n: store._params[n].grad for n in store.keys()}  # noqa: SIM118  # the same
    return loss, {n: g.numpy().copy() for n, g in found.items() if g is not None}


@pytest.mark.parametrize(("case", "mirrored"), EACH)
def test_a_run_of_several_is_the_mean_of_single_ones(case: str, mirrored: bool) -> None:
    """Loss and gradient at the same values, played to a run of one particle each."""
    model, data, family, size = CASES[case]
    problem, count = prepare(model, data), 4
    settings = {"backend": "pyro", "guide": family, "batch_size": size, "num_steps": 10}
    several = SVI(
        objective=ELBO(num_particles=count // (2 if mirrored else 1), mirrored=mirrored), **settings
    )
    one = SVI(objective=ELBO(num_particles=1, mirrored=False), **settings)
    with torch_session(4, "float64"):
        args = to_torch({k: v[:size] if k in problem.batched else v for k, v in problem.arguments.items()})
        guide = guides.build_guide(problem, family, {})
        together = run_together(problem, guide, to_torch(problem.arguments))
        assert together
        tape, svi = Tape(), pyro_svi(several, problem, guide)
        with tape:
            found = losses(svi, args)
        assert {len(v) for k, v in tape.values.items() if k in ("mu", "loc", "z")} <= {count}
        expected = []
        single = pyro_svi(one, problem, guide)
        for i in range(count):
            with Tape(tape.values, i):
                expected.append(losses(single, args))
    # sums of some hundred terms (particles, data, coordinates), and noise by a triangular solve and back
    room = 1e3 * np.finfo(float).eps
    assert found[1]
    assert len({round(loss, 6) for loss, _ in expected}) == count
    assert found[0] == pytest.approx(np.mean([loss for loss, _ in expected]), rel=room)
    for name, gradient in found[1].items():
        mean = np.mean([g[name] for _, g in expected], 0)
        np.testing.assert_allclose(gradient, mean, rtol=0, atol=room * np.abs(mean).max(), err_msg=name)


def test_programs_for_one_particle_run_one_by_one() -> None:
    problem = prepare(of_one_row, Y)
    with torch_session(0, "float64"):
        guide = guides.build_guide(problem, "mean_field", {})
        together = run_together(problem, guide, to_torch(problem.arguments))
    assert not together
    engine = SVI(
        backend="pyro",
        guide="mean_field",
        objective=ELBO(num_particles=2),
        num_steps=20,
        window=10,
        num_draws=10,
    )
    assert lvm.fit(of_one_row, Y, engine).evidence is not None
