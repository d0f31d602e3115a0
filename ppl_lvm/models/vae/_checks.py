"""Checks of a VAE's settings and data."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ppl_lvm.data import Data, check_names, is_dataframe, to_array
from ppl_lvm.models.vae._layout import LIKELIHOODS, POSTERIORS
from ppl_lvm.networks import MLP, Conv, Network

_RANGE = {
    "bernoulli": "0 and 1",
    "continuous_bernoulli": "numbers from 0 to 1",
    "poisson": "counts (0, 1, 2, ...)",
    "categorical": "categories 0, 1, ..., num_categories - 1",
}


def check_settings(model: Any) -> None:
    """Raise, naming the field, for settings outside their range."""
    for name in ("latent_dim", "flow_steps", "flow_hidden"):
        _positive(name, getattr(model, name))
    if model.num_categories is not None:
        _positive("num_categories", model.num_categories)
    _one_of("likelihood", model.likelihood, LIKELIHOODS)
    _one_of("posterior", model.posterior, POSTERIORS)
    for name in ("binarise", "keep_latents"):
        if not isinstance(getattr(model, name), bool):
            raise TypeError(f"{name}: expected True or False, got {getattr(model, name)!r}.")
    if model.binarise and model.likelihood != "bernoulli":
        raise ValueError(f"binarise: needs likelihood='bernoulli', got {model.likelihood!r}.")
    scale = model.noise_scale
    if scale is not None:
        if model.likelihood != "gaussian":
            raise ValueError(f"noise_scale: needs likelihood='gaussian', got {model.likelihood!r}.")
        number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        if not number or not np.isfinite(scale) or scale <= 0:
            raise ValueError(f"noise_scale: expected a positive number (None: learned), got {scale!r}.")
    if model.num_categories is not None and model.likelihood != "categorical":
        raise ValueError(f"num_categories: needs likelihood='categorical', got {model.likelihood!r}.")


def _positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}.")


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}: expected one of {known}, got {value!r}.")


def as_network(name: str, value: Any) -> Any:
    """A description, or a user's module; "mlp" and "conv" are their defaults, a mapping is a saved one.

    Raises
    ------
    TypeError
        For anything else.
    """
    if isinstance(value, Network):
        return value
    if value == "mlp":
        return MLP()
    if value == "conv":
        return Conv()
    if isinstance(value, dict) and value.get("network") in ("MLP", "Conv"):
        settings: Any = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in value.items()}
        kind = MLP if settings.pop("network") == "MLP" else Conv
        return kind(**settings)
    if library_of(value) is not None:
        return value
    raise TypeError(
        f"{name}: expected 'mlp', 'conv', networks.MLP(...), networks.Conv(...), a torch.nn.Module or an "
        f"equinox.Module, got {value!r}."
    )


def library_of(value: Any) -> str | None:
    """ "torch" or "equinox" for a module of theirs, else None; imports neither."""
    torch, equinox = sys.modules.get("torch.nn"), sys.modules.get("equinox")
    if torch is not None and isinstance(value, torch.Module):
        return "torch"
    if equinox is not None and isinstance(value, equinox.Module):
        return "equinox"
    return None


def check_torch_module(name: str, module: Any) -> None:
    """Running statistics are no parameters: they would be lost with the fit."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for path, part in module.named_modules():
        if isinstance(part, _BatchNorm):
            raise ValueError(
                f"{name}: {path or type(part).__name__} keeps running statistics, which are not parameters "
                "and would not be saved; use LayerNorm or GroupNorm."
            )


def bind_images(raw: Any, likelihood: str, *, binarise: bool, image: tuple[int, ...] | None) -> Data:
    """x (n, *image), checked against the likelihood's support; integers for categories, else floats."""
    if isinstance(raw, Data):
        return raw
    if isinstance(raw, dict):
        check_names(set(raw), {"x"}, {"x"}, "the data")
        raw = raw["x"]
    coords = {"feature": [str(c) for c in raw.columns]} if is_dataframe(raw) else {}
    rows = np.asarray(raw.index) if is_dataframe(raw) else None
    x = to_array("x", raw)
    if x.ndim < 2:
        raise ValueError(
            f"x: expected (n, ...) rows of vectors or images, got shape {x.shape}; use x[:, None]."
        )
    if image is not None and x.shape[1:] != image:
        raise ValueError(f"x: expected rows of shape {image} as in the fit, got {x.shape[1:]}.")
    check_support(x, likelihood, binarise)
    if likelihood == "categorical":
        return Data({"x": x.astype(np.int64)}, coords, rows)
    return Data({"x": x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)}, coords, rows)


def check_support(x: np.ndarray, likelihood: str, binarise: bool) -> None:
    if likelihood == "gaussian":
        return
    low, high = float(x.min()), float(x.max())
    wanted = "numbers from 0 to 1" if binarise else _RANGE[likelihood]
    bad = low < 0
    bad |= likelihood in ("bernoulli", "continuous_bernoulli") and high > 1
    whole = likelihood in ("poisson", "categorical") or (likelihood == "bernoulli" and not binarise)
    bad |= whole and not bool((x == np.round(x)).all())
    if not bad:
        return
    hint = ""
    if likelihood == "bernoulli" and low >= 0 and high <= 1:
        hint = "; use likelihood='continuous_bernoulli', or binarise=True, which draws 0 or 1 anew each epoch"
    elif high > 1 and low >= 0 and likelihood in ("bernoulli", "continuous_bernoulli"):
        hint = "; divide grey levels by their largest possible value"
    raise ValueError(
        f"x: likelihood={likelihood!r} takes {wanted}, got values from {low:g} to {high:g}{hint}."
    )
