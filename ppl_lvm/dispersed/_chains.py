"""The dispersed chains of a model, grouped into places with their masses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ppl_lvm import relabel
from ppl_lvm.core import AbstractModel, Outcome, Problem, Status
from ppl_lvm.diagnostics import quantities
from ppl_lvm.dispersed._places import Cloud, LogDensity, cloud, log_mass, places_of
from ppl_lvm.engines._checks import backend_or_reason
from ppl_lvm.engines.nuts import NUTS
from ppl_lvm.predictive import with_deterministic
from ppl_lvm.result import Fit, chain_dataset
from ppl_lvm.symmetry import Reference, reference_of, settle, settle_to

if TYPE_CHECKING:
    import xarray as xr

    from ppl_lvm.dispersed import SpotCheck
    from ppl_lvm.dispersed._jax_chains import Runner

_AT_HOME = 0.9  # share of its draws at one place for a chain to belong to it
_LEAST_ROWS = 10
_LOWER = 5.0  # nats, and four sds, below the middle one at its place: a chain that has not arrived


class Place(NamedTuple):
    """The chains at a place; ``rows`` are the draws that count of a single chain that went on elsewhere."""

    chains: list[int]
    rows: np.ndarray | None = None


@dataclass(frozen=True)
class Spots:
    """Chains that settled, as draws of the model's quantities; their places with log masses and errors.

    ``free_of`` gives a fit's unconstrained points, ``log_p`` log densities at such, ``inside`` zero where a
    point is in the common order of labels and -inf elsewhere.
    """

    draws: xr.Dataset
    places: list[Place]
    clouds: list[Cloud]
    scale: np.ndarray
    log_mass: np.ndarray
    log_mass_error: np.ndarray
    started: int
    seconds: float
    divergent: float
    free_of: Callable[..., np.ndarray | None]
    log_p: LogDensity
    inside: LogDensity


class Search:
    """The dispersed chains for fits of one model and data set, begun when they are first asked for."""

    def __init__(self, fits: Sequence[Fit], settings: SpotCheck, common: Reference | None) -> None:
        self._fits, self._settings, self._common = fits, settings, common
        self._runner: Runner | None = None
        self._problem: Problem | None = next((f.problem for f in fits if f.problem is not None), None)

    def spots(self, num_samples: int) -> Spots | str:
        """Chains of so many draws, grouped; or why that cannot be done."""
        fits, settings, problem = self._fits, self._settings, self._problem
        if problem is None:
            return "the fit was loaded without its data"
        reason = NUTS().check(problem) or backend_or_reason("numpyro", problem)
        if reason:
            return reason
        params = _params(problem, fits)
        if isinstance(params, str):
            return params
        try:
            found = self._run(problem, params).draw(num_samples)
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
            return str(error)  # no start of finite density; or what JAX cannot do: a check must not fail
        if len(found.values) == 0 or len(next(iter(found.values.values()))) < 2:
            return (
                f"of {found.started} chains fewer than two settled within {settings.budget_seconds:g} s; "
                "raise budget_seconds"
            )
        chains = _as_fit(problem, found, settings, params, fits, self._common)
        return _grouped(chains, found, params, fits, self._common, settings)

    def _run(self, problem: Problem, params: dict[str, np.ndarray]) -> Runner:
        from ppl_lvm.dispersed._jax_chains import Runner

        if self._runner is None:
            self._runner = Runner(problem, self._fits, self._settings, params)
        return self._runner


def _params(problem: Problem, fits: Sequence[Fit]) -> dict[str, np.ndarray] | str:
    known: dict[str, Any] = {}
    for fit in reversed(fits):
        known |= dict(fit.params)
    known |= dict(problem.model.fixed_params)
    missing = [n for n in problem.params if n not in known]
    if missing:
        return f"params {missing} have no values to be held at"
    return {n: np.asarray(known[n]) for n in problem.params}


def _as_fit(
    problem: Problem,
    found: Any,
    settings: SpotCheck,
    params: dict[str, np.ndarray],
    fits: Sequence[Fit],
    common: Reference | None,
) -> Fit:
    """The chains as a fit, with deterministic sites, in the common order and orientation."""
    engine = NUTS(num_warmup=settings.num_warmup, num_samples=settings.num_samples)
    raw = Fit(
        model=problem.model,
        engine=engine,
        backend="numpyro",
        problem=problem,
        draws=chain_dataset(problem, found.values, kind="chain"),
        sample_stats=chain_dataset(None, found.stats, kind="chain"),
        params=params,
        status=Status(Outcome.OK),
    )
    base = common if common is not None else _first_order(fits)
    done = settle(with_deterministic(raw))
    return _like_a_point(done, fits[0]) if base is None else settle_to(done, base)


def _like_a_point(chains: Fit, point: Fit) -> Fit:
    """Chains with their labels named, and their factors turned, as those of a point."""
    model = chains.model
    values = {k: np.asarray(v)[None] for k, v in point.params.items()}
    own = reference_of(chains)
    if own.labels is not None and set(model.label_axes or ()) <= set(values):
        order = np.argsort(relabel.align(model.label_features(values), own.labels)[0])
        named = relabel.Labels(own.labels.mean[order], own.labels.variance[order])
        chains = settle_to(chains, Reference(named, None))
    if own.loadings is not None and model.rotation is not None and model.rotation.by in values:
        chains = settle_to(chains, Reference(None, values[model.rotation.by][0], own.sds))
    return chains


def _first_order(fits: Sequence[Fit]) -> Reference | None:
    first = next((f for f in fits if not f.is_point), None)
    return None if first is None else reference_of(first)


def _grouped(
    chains: Fit,
    found: Any,
    params: dict[str, np.ndarray],
    fits: Sequence[Fit],
    common: Reference | None,
    settings: SpotCheck,
) -> Spots | str:
    problem: Any = chains.problem
    free_of, log_p = _functions(problem, params)
    base = common if common is not None else _first_order(fits)
    inside = _inside(chains.model, base, problem, params)
    count, size = chains.posterior.sizes["chain"], chains.posterior.sizes["draw"]
    free: Any = free_of(chains, count * size)
    if free is None or len(free) != count * size:
        return "chains ran into the boundary of a support, where draws have no place in unconstrained space"
    free = free.reshape(count, size, -1)
    levels = log_p(free.reshape(count * size, -1)).reshape(count, size)
    found_at, scale = places_of(free, levels, log_p)
    places = _places(found_at, levels)
    clouds = [cloud(free[p.chains][:, _rows(p)], levels[p.chains][:, _rows(p)]) for p in places]
    masses = [
        log_mass(c, clouds[:k] + clouds[k + 1 :], log_p, inside, settings.seed) for k, c in enumerate(clouds)
    ]
    diverging = chains.sample_stats["diverging"].values if chains.sample_stats is not None else np.zeros(1)
    return Spots(
        quantities(chains),
        places,
        clouds,
        scale,
        np.array([m for m, _ in masses]),
        np.array([e for _, e in masses]),
        found.started,
        found.seconds,
        float(diverging.mean()),
        free_of,
        log_p,
        inside,
    )


def _places(found_at: np.ndarray, levels: np.ndarray) -> list[Place]:
    """Chains by place. If most chains cross between places, these are one for the sampler; a place that only
    crossing chains saw is known by the draws of the one that saw most of it."""
    count = int(found_at.max()) + 1
    share = np.stack([(found_at == k).mean(1) for k in range(count)], 1)  # (chain, place)
    home = share.argmax(1)
    crossing = share.max(1) < _AT_HOME
    if crossing.mean() > 0.5:
        return [Place(_arrived(list(range(len(share))), levels))]
    out = []
    for k in range(count):
        own = [int(c) for c in np.flatnonzero((home == k) & ~crossing)]
        if own:
            out.append(Place(_arrived(own, levels)))
            continue
        chain = int(share[:, k].argmax())
        rows = np.flatnonzero(found_at[chain] == k)
        if len(rows) >= _LEAST_ROWS:
            out.append(Place([chain], rows))
    return sorted(out, key=lambda p: -len(p.chains) if p.rows is None else 0)


def _rows(place: Place) -> Any:
    return slice(None) if place.rows is None else place.rows


def at_place(draws: xr.Dataset, place: Place) -> xr.Dataset:
    """The draws of the chains at a place."""
    own = draws.isel(chain=place.chains)
    return own if place.rows is None else own.isel(draw=place.rows)


def _arrived(place: list[int], levels: np.ndarray) -> list[int]:
    """The chains of a place without those that are still on their way up."""
    means = levels[place].mean(1)
    margin = max(_LOWER, 4 * float(np.median(levels[place].std(1))))
    return [c for c, m in zip(place, means, strict=True) if m >= np.median(means) - margin]


def _functions(
    problem: Problem, params: dict[str, np.ndarray]
) -> tuple[Callable[..., np.ndarray | None], LogDensity]:
    """Unconstrained points of a fit, and log densities at such (padded, so that few sizes are compiled)."""
    from ppl_lvm.backends.session import jax_session
    from ppl_lvm.dispersed._jax_chains import free_points
    from ppl_lvm.evidence._jax_density import Points

    with jax_session(problem.dtype):
        points = Points(problem, params)
    names = list(points.density.shapes)

    def free_of(fit: Fit, most: int = 400) -> np.ndarray | None:
        with jax_session(problem.dtype):
            return free_points(points, fit, names, most)

    def log_p(free: np.ndarray) -> np.ndarray:
        size = 1 << max(8, (len(free) - 1).bit_length())
        padded = np.concatenate([free, np.repeat(free[:1], size - len(free), axis=0)])
        with jax_session(problem.dtype):
            return points.log_p(padded)[: len(free)]

    return free_of, log_p


def _inside(
    model: AbstractModel, base: Reference | None, problem: Problem, params: dict[str, np.ndarray]
) -> LogDensity:
    """Zero where the labels of a point are in the common order, -inf where they are in another."""
    if base is None or base.labels is None or not model.label_axes:
        return lambda free: np.zeros(len(free))
    labels = base.labels

    def inside(free: np.ndarray) -> np.ndarray:
        from ppl_lvm.backends.session import jax_session
        from ppl_lvm.evidence._jax_density import Points

        with jax_session(problem.dtype):
            values = Points(problem, params).values(free)
        orders = relabel.align(model.label_features(values), labels)
        return np.where((orders == np.arange(orders.shape[1])).all(1), 0.0, -np.inf)

    return inside


__all__ = ["Place", "Search", "Spots", "at_place"]
