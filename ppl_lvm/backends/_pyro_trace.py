"""Reading a Pyro program: its sites, their plates, shapes and supports."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.poutine.messenger import Messenger

from ppl_lvm.core import AbstractModel, Plate, Site


def to_torch(value: Any) -> Any:
    """Arrays to tensors, in nested mappings too; statics stay as they are."""
    if isinstance(value, Mapping):
        return {k: to_torch(v) for k, v in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        shared = array.flags.writeable and array.flags.c_contiguous
        return torch.from_numpy(array if shared else np.array(array, order="C"))
    return value


class HoldParams(Messenger):
    """Hold ``pyro.param`` statements at given constrained values, by name."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = values
        self._quiet = warnings.catch_warnings()

    def __enter__(self) -> Self:
        self._quiet = warnings.catch_warnings()
        self._quiet.__enter__()
        # what is held is not trained on purpose, and pyro.module warns of each of its weights
        warnings.filterwarnings("ignore", "^.* was not registered in the param store", UserWarning)
        return super().__enter__()

    def __exit__(self, *reason: Any) -> None:
        self._quiet.__exit__(*reason)
        super().__exit__(*reason)

    def _pyro_param(self, msg: dict) -> None:
        if msg["name"] in self.values:
            like = torch.get_default_dtype()
            value = torch.as_tensor(np.array(self.values[msg["name"]]))
            msg["value"] = value.to(like) if value.is_floating_point() else value
            msg["done"] = True


class HoldSites(Messenger):
    """Hold latent sites at given values; their own density is left out (all is conditional on them)."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values:
            value = torch.as_tensor(np.array(self.values[msg["name"]]))
            msg["value"] = value.to(torch.get_default_dtype())
            msg["is_observed"] = True
            msg["mask"] = False


class ScalePlate(Messenger):
    """Scale the log density of every site inside one plate: n/b for a batch of b out of n."""

    def __init__(self, plate: str, factor: float) -> None:
        super().__init__()
        self.plate, self.factor = plate, factor

    def _pyro_sample(self, msg: dict) -> None:
        if any(frame.name == self.plate for frame in msg["cond_indep_stack"]):
            msg["scale"] = msg["scale"] * self.factor


def trace_sites(model: AbstractModel, arguments: Mapping[str, Any], owner: str) -> dict[str, Site]:
    """The sites of a Pyro model, in the order of their statements.

    Raises
    ------
    ValueError
        If the program fails on these data, subsamples its own plate, or has no sample statement.
    """
    args = to_torch(arguments)
    try:
        with torch.no_grad(), HoldParams(model.fixed_params):
            trace = poutine.trace(ImproperOrigin()(model.pyro.model)).get_trace(**args)
    except Exception as error:  # the user's own code: anything can come out of it
        reason = str(error).split("\n")[0]
        raise ValueError(f"model: {owner} failed when run once on the data: {reason}") from error
    for name, node in trace.nodes.items():
        _check_plates(name, node)
    sites = {name: site for name, node in trace.nodes.items() if (site := _read(name, node)) is not None}
    if not any(s.kind in ("latent", "observed") for s in sites.values()):
        raise ValueError(f"model: {owner} has no pyro.sample statement.")
    return sites


def _check_plates(name: str, node: Mapping[str, Any]) -> None:
    """A site's density must have its plates' sizes along their dimensions."""
    if node["type"] != "sample" or type(node["fn"]).__name__ == "_Subsample":
        return
    fn, value = node["fn"], node["value"]
    if not isinstance(value, torch.Tensor):
        return
    try:  # by NumPy: torch loads sympy for this
        shape = np.broadcast_shapes(fn.batch_shape, value.shape[: value.dim() - fn.event_dim])
    except ValueError:
        raise ValueError(
            f"model: site {name!r} has values of shape {tuple(value.shape)}, which do not go with a "
            f"distribution of batch shape {tuple(fn.batch_shape)} and event shape {tuple(fn.event_shape)}; "
            "check the data."
        ) from None
    for frame in node["cond_indep_stack"]:
        size = shape[frame.dim] if frame.vectorized and -frame.dim <= len(shape) else 1
        if size not in (1, frame.size):
            raise ValueError(
                f"model: site {name!r} has {size} entries along plate {frame.name!r} of size {frame.size}; "
                "make the plate as long as the data along that dimension, or declare the dimension with "
                ".to_event()."
            )


class ImproperOrigin(Messenger):
    """Give sites that cannot be drawn from (improper priors) the origin of their support."""

    def _pyro_sample(self, msg: dict) -> None:
        fn = msg["fn"]
        if _is_improper(fn) and msg["value"] is None:
            transform = torch.distributions.biject_to(fn.support)
            shape = transform.inverse_shape(fn.batch_shape + fn.event_shape)
            msg["value"] = transform(torch.zeros(shape))
            msg["done"] = True


def _read(name: str, node: Mapping[str, Any]) -> Site | None:
    if node["type"] == "param":
        return Site(name, "param", tuple(node["value"].shape), 0, ())
    if node["type"] != "sample" or type(node["fn"]).__name__ == "_Subsample":
        return None
    fn, value = node["fn"], node["value"]
    plates = tuple(Plate(f.name, f.dim, _plate_size(name, f)) for f in node["cond_indep_stack"])
    kind = "latent"
    if node["infer"].get("_deterministic"):
        kind = "deterministic"
    elif node["is_observed"]:
        kind = "observed"
    event_dim = fn.event_dim if kind != "deterministic" else value.dim() - len(fn.batch_shape)
    return Site(
        name=name,
        kind=kind,  # type: ignore[arg-type]  # one of the literals above
        shape=tuple(value.shape),
        event_dim=event_dim,
        plates=plates,
        discrete=_is_discrete(fn),
        enumerable=bool(fn.has_enumerate_support),
        support=_support_name(fn),
        proper=not _is_improper(fn),
        constraint=_support(fn),
    )


def _plate_size(site: str, frame: Any) -> int:
    full = getattr(frame, "full_size", None)
    if full is not None and full != frame.size:
        raise ValueError(
            f"model: plate {frame.name!r} around site {site!r} subsamples itself ({frame.size} of "
            f"{full}); remove subsample_size and set batch_size on the engine instead."
        )
    return int(frame.size)


def _is_improper(fn: Any) -> bool:
    return isinstance(getattr(fn, "base_dist", fn), pyro.distributions.ImproperUniform)


def _is_discrete(fn: Any) -> bool:
    try:
        return bool(fn.support.is_discrete)
    except NotImplementedError:
        return False


def _support(fn: Any) -> Any | None:
    try:
        return fn.support
    except NotImplementedError:
        return None


def _support_name(fn: Any) -> str:
    support = _support(fn)
    if support is None:
        return ""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return repr(support).rstrip("()").lstrip("_").lower()
