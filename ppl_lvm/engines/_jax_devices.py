"""Chains and rows spread over this process's JAX devices, by JAX's own sharding along one axis."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

CHAIN, ROW = "chain", "row"
_LOG = logging.getLogger("ppl_lvm")


def chain_mesh(num_chains: int) -> Mesh | None:
    """As many devices as divide the number of chains; None where that is one."""
    devices = jax.local_devices()
    num = max(n for n in range(1, len(devices) + 1) if num_chains % n == 0)
    if len(devices) > 1:
        _LOG.info("%d chains on %d of %d devices", num_chains, num, len(devices))
    return mesh_of(num, CHAIN)


def mesh_of(num: int, axis: str) -> Mesh | None:
    """The first ``num`` devices of this process along one axis; None for one."""
    if num == 1:
        return None
    return Mesh(np.array(jax.local_devices()[:num]), (axis,), axis_types=(AxisType.Auto,))


def split(mesh: Mesh) -> NamedSharding:
    """Leading axes are cut into equal parts, one a device."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))


def copied(mesh: Mesh) -> NamedSharding:
    """Every device has the whole."""
    return NamedSharding(mesh, PartitionSpec())


def placed(tree: Any, sharding: NamedSharding) -> Any:
    """The arrays of a tree, laid out over the devices."""
    return jax.tree_util.tree_map(lambda leaf: jax.device_put(leaf, sharding), tree)


def rows_split(batch: Mapping[str, Any], batched: tuple[str, ...], mesh: Mesh | None) -> dict[str, Any]:
    """Within a program: a batch whose rows are cut over the devices, so that XLA sums gradients over them."""
    if mesh is None:
        return dict(batch)
    own = split(mesh)
    return {k: lax.with_sharding_constraint(v, own) if k in batched else v for k, v in batch.items()}


def shaped(tree: Any, shardings: Any) -> Any:
    """Shapes, as ``jax.eval_shape`` gives them, with their layout: what a program is compiled for."""
    return jax.tree_util.tree_map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def all_split(tree: Any, mesh: Mesh) -> Any:
    """The layout of a tree whose arrays all have the axis that is cut in front."""
    return jax.tree_util.tree_map(lambda _: split(mesh), tree)
