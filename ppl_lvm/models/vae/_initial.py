"""The weights that a user's module comes with."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_lvm.models.vae._checks import library_of


def own_weights(module: Any) -> dict[str, np.ndarray]:
    """Parameters of a torch module, or floating-point arrays of an equinox one, by name."""
    if library_of(module) == "torch":
        return {n: p.detach().cpu().numpy().copy() for n, p in module.named_parameters()}
    from ppl_lvm.networks._numpyro_networks import named_arrays

    return {n: np.asarray(v) for n, v in named_arrays(module).items()}
