r"""Error bounds for variational fits by the published method of VIABEL, from a fit's own weights.

Huggins, Kasprzak, Campbell and Broderick (2020, AISTATS), "Validated variational inference via practical
posterior error bounds". With w = p / q at draws of the guide, the 2-divergence of the posterior from the
guide is bounded by

.. math:: D_2(\pi \| q) \le 2 (\mathrm{CUBO}_2 - \mathrm{ELBO}), \qquad
          \mathrm{CUBO}_2 = \tfrac12 \log E_q[w^2],

and Wasserstein distances of order r = 1, 2 by

.. math:: W_r(\pi, q) \le 2\, (\sum_i E_q[(\theta_i - E_q \theta_i)^{2r}])^{1/2r}\, (e^{D_2} - 1)^{1/2r}.

Means then differ by at most the smaller of W_1 and W_2, sds by at most W_2. Expectations are sample means
over the draws. The formulas are those of the package's version 0.5.1, whose import needs PyStan 2, which is
not to be had for this Python; with an empty module in PyStan's place its diagnostics run, and give the same
numbers to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ppl_lvm.diagnostics import entries, khat, khat_limit, log_weights, moments, quantities
from ppl_lvm.result import Fit


def bounds(fit: Fit) -> dict[str, Any] | None:
    """Bounds on errors of means and sds in sds of the guide, and whether they pass; None without weights.

    They pass where k-hat is good and the means' bound is at most half of the largest sd (the bounds are on
    norms, so that no single sd is meant).
    """
    log_w = log_weights(fit)
    if log_w is None or fit.draws is None or fit.draws.attrs.get("draws") != "independent":
        return None
    log_w = log_w[np.isfinite(log_w)]
    elbo = float(log_w.mean())
    cubo = 0.5 * float(np.logaddexp.reduce(2 * log_w) - math.log(len(log_w)))
    divergence = 2 * (cubo - elbo)
    points = _points(fit)
    centred = points - points.mean(0)
    excess = math.expm1(min(divergence, 700.0))
    first = 2 * math.sqrt(float((centred**2).sum(1).mean()) * excess)
    second = 2 * (float((centred**4).sum(1).mean()) * excess) ** 0.25
    value: Any = khat(fit)
    good = value < khat_limit(len(log_w))
    scale = float(points.std(0).max())
    mean_error, sd_error = min(first, second) / scale, second / scale
    return {
        "divergence": divergence,
        "mean_error": mean_error,
        "sd_error": sd_error,
        "passes": bool(good and mean_error <= 0.5),
    }


def _points(fit: Fit) -> np.ndarray:
    """The fit's latent sites as rows (s, p)."""
    draws = quantities(fit, invariants=False)
    names = entries(draws, moments(fit, draws))
    columns = [draws[site].transpose("chain", "draw", ...).values for site, _, _ in names]
    flat = [
        c.reshape(-1, *c.shape[2:])[(slice(None), *index)]
        for c, (_, index, _) in zip(columns, names, strict=True)
    ]
    return np.stack(flat, 1)
