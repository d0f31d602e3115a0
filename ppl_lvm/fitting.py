"""``fit`` and what surrounds it: seeding, isolation, dtype, timing, progress, validation."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ppl_lvm.backends._few_rows import at_all_rows, sites_from_few_rows
from ppl_lvm.backends.session import random_states_restored, torch_session
from ppl_lvm.core import AbstractModel, Engine, Outcome, Problem, Run, Site, Status, as_model
from ppl_lvm.data import Data, cast, mapped_rows_kept, read_only
from ppl_lvm.failures import check_labels, in_our_words
from ppl_lvm.progress import wanted
from ppl_lvm.result import Fit
from ppl_lvm.streams import NotKept, as_stream, in_memory, named_batch

_DTYPES = ("float32", "float64")


def fit(
    model: Any,
    data: Any,
    engine: Engine,
    *,
    seed: int = 0,
    init: Any = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    progress: bool | None = None,
) -> Fit:
    """Fit a model to data with an inference engine.

    Parameters
    ----------
    model
        A plain Pyro function, an :class:`lvm.Model`, or a model of :mod:`ppl_lvm.models`.
    data
        An array (for the sole required argument), a pandas DataFrame, or a mapping of named arrays.
    engine
        Settings of the algorithm: ``SVI(...)``, ``NUTS(...)``, ``ImportanceSampling(...)``, ``EM(...)``.
    seed
        The only source of randomness; the same seed gives the same draws.
    init
        Starting values by site name, or another fit.
    dims, coords
        Names of event dimensions by site, and labels by dimension, for ArviZ.
    dtype
        "float64" or "float32"; None: float32 where the program has networks, else float64.
    progress
        Whether to show a bar; None: on a terminal or in a notebook.

    Raises
    ------
    TypeError, ValueError
        In words, before anything runs, when the data do not suit the model or the engine cannot take
        it; after the run when what came back is not finite.
    """
    if not isinstance(engine, Engine):
        what = f"the class {engine.__name__}" if isinstance(engine, type) else type(engine).__name__
        raise TypeError(f"engine: expected settings such as SVI() or NUTS(), got {what}.")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: expected a non-negative integer, got {seed!r}.")
    with random_states_restored(), _loader_seeded(data, int(seed)):
        problem = _prepared(model, data, engine, {"dims": dims, "coords": coords, "dtype": dtype})
        reason = engine.check(problem)
        if reason:
            raise ValueError(f"{type(engine).__name__}: {reason}.")
        run = Run(int(seed), init, wanted(progress))
        started = time.perf_counter()
        with _session(engine.backend_for(problem), int(seed), problem.dtype):
            result = _run(engine, problem, run)
        seconds = time.perf_counter() - started
        result = _finish(_checked_at_draws(problem, result))
    meta = {**result.meta, **_meta(problem, result, int(seed)), "wall_seconds": seconds}
    meta |= {"translation": problem.notes["translation"]} if "translation" in problem.notes else {}
    if "stream" in problem.notes:
        gone = NotKept()
        kept = dataclasses.replace(
            problem, arguments=gone, data=dataclasses.replace(problem.data, values=gone)
        )
        result = dataclasses.replace(result, problem=kept)
    return dataclasses.replace(result, meta=meta)


def _run(engine: Engine, problem: Problem, run: Run) -> Fit:
    """The engine's run; what libraries say of the program's values, and of memory, in our words."""
    try:
        return engine.run(problem, run)
    except (
        Exception
    ) as error:  # of any library, or of the user's program; what is not theirs goes on as it is
        words = in_our_words(error, problem.model)
        if words is None:
            raise
        raise ValueError(f"{type(engine).__name__}: {words}") from error


@contextlib.contextmanager
def _loader_seeded(data: Any, seed: int) -> Iterator[None]:
    """A torch loader draws its order from torch's generator: by the fit's seed, and restored after it."""
    if as_stream(data) is None:
        yield
        return
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _prepared(model: Any, data: Any, engine: Engine, settings: Mapping[str, Any]) -> Problem:
    """The problem as an engine takes it: with all data in memory, or for one that takes batches of them."""
    stream = as_stream(data)
    if getattr(engine, "batch_size", None) is None:
        if stream is not None:
            raise ValueError(
                f"{type(engine).__name__} with these settings needs all data at once, and a stream gives "
                "batches of them; give an array, or use SVI(batch_size=...)."
            )
        return prepare(model, data, **settings)
    if stream is not None:
        batch = named_batch(stream.first(), as_model(model))
        return at_all_rows(prepare(model, batch, **settings), stream)
    with mapped_rows_kept(not as_model(model).trains_by_epochs):
        return prepare(model, data, few_rows=True, **settings)


def fit_to_the_end(model: Any, data: Any, engine: Engine, **settings: Any) -> Fit:
    """:func:`fit` for a step that needs the whole run: where the user stopped it, the step stops as well."""
    found = fit(model, data, engine, **settings)
    if found.status.outcome is Outcome.INTERRUPTED:
        raise KeyboardInterrupt(f"{type(engine).__name__}: {found.status.outcome.value}")
    return found


def prepare(
    model: Any,
    data: Any,
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    fitting: bool = True,
    few_rows: bool = False,
) -> Problem:
    """Bind data to a model, fill in what depends on them, and trace the program.

    ``few_rows`` (for engines that take minibatches) traces it at a few rows where there are many.
    """
    if dtype not in (None, *_DTYPES):
        raise ValueError(f"dtype: expected one of {_DTYPES} or None, got {dtype!r}.")
    check_labels(dims, coords)
    bound_model = as_model(model)
    bound = bound_model.bind(data, fitting=fitting)
    resolved = bound_model.resolve(bound) if fitting else bound_model
    chosen = dtype or resolved.default_dtype or "float64"
    arguments = read_only(cast(resolved.arguments(bound), chosen))
    if resolved.held_sites:
        base: Any = resolved
        base.check_held(_trace(base.base, arguments, chosen))
    sites = _trace(resolved, arguments, chosen, few_rows=few_rows)
    networks = dtype is None and resolved.default_dtype is None
    if networks and any("$$$" in s.name for s in sites.values() if s.kind == "param"):
        chosen = "float32"
        arguments = read_only(cast(arguments, chosen))
    return _assemble(resolved, bound, arguments, sites, chosen, dims or {}, coords or {})


def engines_for(model: Any, data: Any) -> dict[str, str | None]:
    """Which engines take this model with these data: name -> None, or why not."""
    from ppl_lvm import engines

    found = {name: getattr(engines, name) for name in engines.__all__}
    with random_states_restored():
        problem = prepare(model, data)
        return {name: kind().check(problem) for name, kind in found.items() if issubclass(kind, Engine)}


def _trace(
    model: AbstractModel, arguments: Mapping[str, Any], dtype: str, *, few_rows: bool = False
) -> dict[str, Site]:
    from ppl_lvm.backends._pyro_trace import trace_sites

    key = _trace_key(model, arguments, dtype)
    if key is not None and key in _TRACED:
        return _TRACED[key]
    with torch_session(0, dtype):

        def traced(given: Mapping[str, Any]) -> dict[str, Site]:
            return trace_sites(model, in_memory(given, dtype), model.describe())

        sites = (sites_from_few_rows(model, arguments, traced) if few_rows else None) or traced(arguments)
    if key is not None:
        if len(_TRACED) >= 64:
            _TRACED.clear()
        _TRACED[key] = sites
    return sites


_TRACED: dict[Any, dict[str, Site]] = {}


def _trace_key(model: AbstractModel, arguments: Mapping[str, Any], dtype: str) -> Any | None:
    """Models of the zoo declare the same sites for the same shapes; a user's function may not."""
    if model.to_settings() is None or model.cache_key is None:
        return None
    shapes = tuple(sorted((k, v.shape) for k, v in arguments.items() if isinstance(v, np.ndarray)))
    return model.cache_key, shapes, dtype


def _assemble(
    model: AbstractModel,
    data: Data,
    arguments: Mapping[str, Any],
    sites: dict[str, Site],
    dtype: str,
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
) -> Problem:
    counted = model.num_data(data)
    plate = model.data_plate if counted is not None else _data_plate(model, sites)
    inside = {n for n, s in sites.items() if any(p.name == plate for p in s.plates)}
    sites = {n: dataclasses.replace(s, local=n in inside) for n, s in sites.items()}
    size = next((p.size for s in sites.values() for p in s.plates if p.name == plate), counted)
    nesting = max((-p.dim for s in sites.values() for p in s.plates if p.dim is not None), default=0)
    labels = dict(data.coords)
    if plate is not None and data.row_labels is not None and len(data.row_labels) == size:
        labels[plate] = data.row_labels
    labels |= {str(k): np.asarray(v) for k, v in coords.items()}
    unknown = sorted(set(dims) - set(sites))
    if unknown:
        raise ValueError(f"dims: unknown sites {unknown}; the sites are {sorted(sites)}.")
    given = {**model.dims, **dims}
    names = {
        n: (plate or "row", *given[n]) if s.is_factor and n in model.dims else _dim_names(s, given.get(n))
        for n, s in sites.items()
    }
    names |= {k: tuple(v) for k, v in model.dims.items() if k not in sites}
    batched = _batched(model, arguments, size)
    return Problem(model, data, arguments, sites, plate, size, nesting, dtype, names, labels, batched)


def _data_plate(model: AbstractModel, sites: Mapping[str, Site]) -> str | None:
    """The outermost plate that all observed sites share, or the model's own word."""
    observed = [s for s in sites.values() if s.kind == "observed" and s.name not in model.held_sites]
    observed = [s for s in observed if not s.is_factor] or [s for s in observed if s.plates]
    known = {p.name for s in sites.values() for p in s.plates}
    if model.data_plate is not None:
        if model.data_plate not in known:
            raise ValueError(f"data_plate: no plate {model.data_plate!r}; the plates are {sorted(known)}.")
        return model.data_plate
    if not observed:
        return None
    shared = set.intersection(*({p.name for p in s.plates if p.dim is not None} for s in observed))
    return next((p.name for p in observed[0].plates if p.name in shared), None)


def _dim_names(site: Site, given: Sequence[str] | None) -> tuple[str, ...]:
    """Names of all dimensions: plates for batch ones, ``given`` or ``site_dim_i`` for the rest."""
    batch = len(site.batch_shape)
    names = [f"{site.name}_dim_{i}" for i in range(len(site.shape))]
    for plate in site.plates:
        if plate.dim is not None and -plate.dim <= batch and site.shape[batch + plate.dim] == plate.size:
            names[batch + plate.dim] = plate.name
    if given is not None:
        given = tuple(given)
        if len(given) == len(site.shape):
            names = list(given)
        elif len(given) == site.event_dim:
            names[batch:] = given
        else:
            raise ValueError(
                f"dims[{site.name!r}]: expected {site.event_dim} names (event dimensions) or "
                f"{len(site.shape)} (all), got {given}."
            )
    seen: set[str] = set()
    for i, name in enumerate(names):
        while name in seen:
            name += "_bis"
        names[i] = name
        seen.add(name)
    return tuple(names)


def _batched(model: AbstractModel, arguments: Mapping[str, Any], size: int | None) -> tuple[str, ...]:
    """Arguments that run along the data plate."""
    if model.batched is not None:
        unknown = sorted(set(model.batched) - set(arguments))
        if unknown:
            raise ValueError(f"batched: unknown arguments {unknown}; there are {sorted(arguments)}.")
        return model.batched
    return tuple(k for k, v in arguments.items() if isinstance(v, np.ndarray) and v.ndim and len(v) == size)


def _session(backend: str, seed: int, dtype: str) -> Any:
    return torch_session(seed, dtype) if backend == "pyro" else contextlib.nullcontext()


def _checked_at_draws(problem: Problem, result: Fit) -> Fit:
    """A translated program is compared with Pyro again where it matters, at draws of the posterior."""
    if result.backend != "numpyro" or result.draws is None or "translated" not in problem.notes:
        return result
    problem = problem.notes.get("first_rows", problem)  # where a minibatch run was translated and checked
    from ppl_lvm.backends.translate import NUM_DRAWS_CHECKED, check_draws
    from ppl_lvm.result import flat_draws

    names = [s.name for s in problem.latents(discrete=False)]
    if not set(names) <= set(result.draws.data_vars):  # latents of many rows are not kept
        return result
    flat = flat_draws(result.draws[names])
    chosen = np.linspace(0, len(flat[names[0]]) - 1, NUM_DRAWS_CHECKED).astype(int)
    params = {
        **{n: result.params[n] for n in problem.params if n in result.params},
        **problem.model.fixed_params,
    }
    found = check_draws(problem, {n: flat[n][chosen] for n in names}, params)
    if found is None or found.passed:
        return result
    figures = {"value_error": found.value_error, "gradient_error": found.gradient_error}
    return dataclasses.replace(result, status=Status(Outcome.FAILED, figures, (f"the translation {found}",)))


def _finish(result: Fit) -> Fit:
    """Check what came back, bring draws into one order and orientation, add what is derived from them."""
    from ppl_lvm.predictive import with_deterministic, with_latents
    from ppl_lvm.symmetry import settle

    if result.draws is not None:
        bad = [str(k) for k, v in result.draws.data_vars.items() if not np.isfinite(v.values).all()]
        if bad:
            raise ValueError(
                f"{type(result.engine).__name__}: draws of {bad} are NaN or infinite, so there is no answer "
                "to give; check the model's scales, or lower the learning rate or step size."
            )
    result = settle(with_deterministic(result))
    return with_latents(result)


def _meta(problem: Problem, result: Fit, seed: int) -> dict[str, Any]:
    packages = ("ppl-lvm", "torch", "pyro-ppl", "jax", "numpyro", "blackjax")
    return {
        "seed": seed,
        "dtype": problem.dtype,
        "backend": result.backend,
        "engine": type(result.engine).__name__,
        "num_data": problem.num_data,
        "sample_size": _sample_size(problem),
        "columns": list(problem.data.coords["feature"]) if "feature" in problem.data.coords else None,
        "versions": {p: _version(p) for p in packages},
    }


def _sample_size(problem: Problem) -> int | None:
    """What BIC counts: data, or where a datum is a sequence the steps of all sequences."""
    own = getattr(problem.model.exact, "sample_size", None)
    return problem.num_data if own is None else int(own(problem.arguments))


def _version(package: str) -> str:
    if package not in _VERSIONS:
        try:
            _VERSIONS[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            _VERSIONS[package] = "unknown"
    return _VERSIONS[package]


_VERSIONS: dict[str, str] = {}
