r"""What one-dimensional figures miss: how well a fit's draws match the reference's jointly.

All figures are over the model's quantities together, standardised by the reference's means and sds. Draws of
chains are thinned to about independent ones first, so that tests keep their size.

- ``c2st``: the classifier two-sample test (Lopez-Paz and Oquab 2017): cross-validated accuracy of a
  classifier that tells the two apart, 0.5 where it cannot; its standard error is that of a proportion.
- ``sliced_w1``: mean 1-Wasserstein distance over random directions (Bonneel et al. 2015), in reference sds,
  beside ``sliced_w1_noise``, the same between two halves of the reference scaled to these sizes.
- ``mmd``: squared maximum mean discrepancy with a normal kernel (Gretton et al. 2012, eq. 3, unbiased), with
  ``mmd_p``, its permutation p value.
- ``corr_lost``: Frobenius norm of the difference of correlation matrices, ``corr_noise`` what two samples of
  these sizes from the reference would give, and the worst pair with its two correlations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.diagnostics import entries

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_MOST = 1000  # draws of each side
_DIRECTIONS = 100
_PERMUTATIONS = 200
_FOLDS = 5


def joint_table(
    draws: Mapping[str, xr.Dataset], figures: Mapping[str, dict], reference: str, seed: int = 0
) -> pd.DataFrame:
    """A row per fit with draws (the reference's own row is left out); columns as in the module's page.

    Fits with fewer than 50 about independent draws have NaN: nothing can be told from so few.
    """
    import pandas as pd

    names = entries(draws[reference], figures[reference])
    base = _sample(draws[reference], names, _size(figures[reference]))
    center, scale = base.mean(0), base.std(0, ddof=1)
    labels = [text for _, _, text in names]
    rows = {}
    for name, dataset in draws.items():
        if name == reference:
            continue
        own = _sample(dataset, names, _size(figures[name]))
        if min(len(own), len(base)) < 50:
            rows[name] = dict.fromkeys(("c2st", "sliced_w1", "mmd", "corr_lost"), math.nan)
            continue
        rng = np.random.default_rng([seed, 31])
        rows[name] = _figures((own - center) / scale, (base - center) / scale, labels, rng)
    return pd.DataFrame.from_dict(rows, orient="index")


def _figures(a: np.ndarray, b: np.ndarray, labels: list[str], rng: np.random.Generator) -> dict[str, Any]:
    size = min(len(a), len(b))
    accuracy, error = classifier_test(a[:size], b[:size], rng)
    distance, noise = sliced_wasserstein(a, b, rng)
    mmd, p = maximum_mean_discrepancy(a[: size // 2], b[: size // 2], rng)
    return {
        "c2st": accuracy,
        "c2st_error": error,
        "sliced_w1": distance,
        "sliced_w1_noise": noise,
        "mmd": mmd,
        "mmd_p": p,
        **correlation_lost(a, b, labels),
    }


def _size(figures: Mapping[str, Any]) -> int:
    """About how many independent draws a fit is worth."""
    sizes = np.concatenate([np.ravel(f["ess_bulk"]) for f in figures.values()])
    sizes = sizes[np.isfinite(sizes)]
    return int(sizes.min()) if sizes.size else 0


def _sample(dataset: xr.Dataset, names: list, size: int) -> np.ndarray:
    """(s, p): every entry that varies, of evenly spaced draws, at most ``_MOST`` and ``size`` of them."""
    columns = []
    for site, index, _ in names:
        values = dataset[site].transpose("chain", "draw", ...).values
        where: Any = (slice(None), *index)
        columns.append(values.reshape(-1, *values.shape[2:])[where])
    flat = np.stack(columns, 1)
    keep = np.linspace(0, len(flat) - 1, max(min(size, _MOST, len(flat)), 1)).astype(int)
    return flat[np.random.default_rng(0).permutation(np.unique(keep))]


def classifier_test(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Accuracy of gradient-boosted trees on held-out folds, (n, p) against (n, p), and its standard error."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    x = np.concatenate([a, b])
    y = np.repeat([0, 1], [len(a), len(b)])
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    model = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    accuracy = float(cross_val_score(model, x, y, cv=folds).mean())
    return accuracy, math.sqrt(max(accuracy * (1 - accuracy), 0.25 / len(y)) / len(y))


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Mean W1 over random directions, and what two samples of these sizes from ``b`` would give."""
    directions = rng.standard_normal((_DIRECTIONS, b.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = _mean_w1(a, b, directions)
    half = len(b) // 2
    mixed = rng.permutation(b)
    halves = _mean_w1(mixed[:half], mixed[half : 2 * half], directions)
    return found, halves * math.sqrt((1 / len(a) + 1 / len(b)) / (2 / half))


def _mean_w1(a: np.ndarray, b: np.ndarray, directions: np.ndarray) -> float:
    level = (np.arange(200) + 0.5) / 200
    left, right = (np.quantile(x @ directions.T, level, axis=0) for x in (a, b))
    return float(np.abs(left - right).mean())


def maximum_mean_discrepancy(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Unbiased squared MMD with a normal kernel (median width), and its permutation p value."""
    from scipy.spatial.distance import cdist

    both = np.concatenate([a, b])
    squared = cdist(both, both, "sqeuclidean")
    width = float(np.median(squared[np.triu_indices(len(both), 1)]))
    kernel = np.exp(-squared / max(width, 1e-12))
    np.fill_diagonal(kernel, 0.0)
    n = len(a)

    def statistic(order: np.ndarray) -> float:
        first, second = order[:n], order[n:]
        m = len(second)
        inside = kernel[np.ix_(first, first)].sum() / (n * (n - 1))
        inside += kernel[np.ix_(second, second)].sum() / (m * (m - 1))
        return float(inside - 2 * kernel[np.ix_(first, second)].mean())

    found = statistic(np.arange(len(both)))
    others = [statistic(rng.permutation(len(both))) for _ in range(_PERMUTATIONS)]
    return found, (1 + sum(o >= found for o in others)) / (1 + _PERMUTATIONS)


def correlation_lost(a: np.ndarray, b: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """How much of the reference's correlation structure is gone, and where most."""
    if b.shape[1] < 2:
        return {"corr_lost": 0.0, "corr_noise": 0.0, "worst_pair": ""}
    with np.errstate(all="ignore"):
        mine, theirs = (np.nan_to_num(np.corrcoef(x.T)) for x in (a, b))
    gap = np.abs(mine - theirs)
    i, j = np.unravel_index(int(gap.argmax()), gap.shape)
    noise = math.sqrt(float(((1 - theirs**2) ** 2).sum()) * (1 / len(a) + 1 / len(b)))
    pair = f"{labels[i]}, {labels[j]}: {mine[i, j]:.2f} for {theirs[i, j]:.2f}"
    return {"corr_lost": float(np.linalg.norm(mine - theirs)), "corr_noise": noise, "worst_pair": pair}
