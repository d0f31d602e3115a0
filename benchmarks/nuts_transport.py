"""NUTS through a trained flow on a narrow banana: effective draws by leapfrog step, beside plain NUTS.

    python benchmarks/nuts_transport.py [--steps 3000 15000] [--flows 3] [--seeds 3]

b ~ N(a^2, 0.2^2), a ~ N(0, 1): E a = 0, E b = 1. A ratio is the least of bulk and tail effective draws over a
and b by leapfrog step, over that of plain NUTS with the same seed; the flow's training is not counted. How
many nats the flow's bound is below log p(y) tells how well it is trained.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import ppl_lvm as lvm
from ppl_lvm import ELBO, NUTS, SVI, Flow

DATA = {"y": np.zeros(1)}
EVIDENCE = -0.5 * math.log(2 * math.pi)  # of y = 0 under N(0, 1)


def banana(y):
    a = pyro.sample("a", dist.Normal(y.new_tensor(0.0), 1.0))
    pyro.sample("b", dist.Normal(a * a, 0.2))
    pyro.sample("obs", dist.Normal(y.new_zeros(1), 1.0).to_event(1), obs=y)


def twin(y):
    a = numpyro.sample("a", numpyro_dist.Normal(0.0, 1.0))
    numpyro.sample("b", numpyro_dist.Normal(a * a, 0.2))
    numpyro.sample("obs", numpyro_dist.Normal(0.0 * y, 1.0).to_event(1), obs=y)


def by_step(fit: lvm.Fit) -> float:
    least = fit.summary().loc[["a", "b"], ["ess_bulk", "ess_tail"]].to_numpy().min()
    return float(least / fit.sample_stats["n_steps"].sum())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[3000, 15_000])
    parser.add_argument("--flows", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    model = lvm.Model(banana, numpyro=twin)
    chains = {"num_warmup": 500, "num_samples": 4000, "num_chains": 4}
    plain = [
        by_step(lvm.fit(model, DATA, NUTS(backend="numpyro", **chains), seed=s)) for s in range(args.seeds)
    ]
    answers = []
    for steps in args.steps:
        short, ratios = [], []
        for flow_seed in range(args.flows):
            training = SVI(
                guide=Flow(num_hidden=32), objective=ELBO(num_particles=16), backend="numpyro",
                num_steps=steps, learning_rate=0.01, learning_rate_decay=0.01, early_stop=False,
            )  # fmt: skip
            flow = lvm.fit(model, DATA, training, seed=flow_seed)
            short.append(round(EVIDENCE - flow.evidence.nats, 3))
            through = [
                lvm.fit(model, DATA, NUTS(transport=True, **chains), init=flow, seed=s)
                for s in range(args.seeds)
            ]
            ratios += [by_step(fit) / own for fit, own in zip(through, plain, strict=True)]
        mean = round(float(np.exp(np.mean(np.log(ratios)))), 2)
        rounded = [round(r, 2) for r in ratios]
        answers.append({"steps": steps, "short": short, "ratios": rounded, "geometric_mean": mean})
    sys.stdout.write(json.dumps({"plain_draws_by_step": plain, "runs": answers}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
