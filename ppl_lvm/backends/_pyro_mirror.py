"""Draws of a guide in pairs, the second of each with noise of the other sign.

A site may hang on those before it, so it is the noise that is turned round, not the value; sites that are
made of other noise are drawn anew.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.messenger import Messenger

from ppl_lvm.backends._base_noise import noise_of, value_at


class Mirror(Messenger):
    """Around a guide: every second run is the image of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.noise: dict[str, torch.Tensor] = {}
        self.image = False

    def _pyro_sample(self, msg: Any) -> None:
        if self.image and msg["name"] in self.noise:
            msg["value"] = value_at(msg["fn"], -self.noise[msg["name"]])

    def _pyro_post_sample(self, msg: Any) -> None:
        if self.image or msg["is_observed"]:
            return
        with torch.no_grad():
            noise = noise_of(msg["fn"], msg["value"], _solve)
        if noise is not None:
            self.noise[msg["name"]] = noise

    def __exit__(self, *args: Any) -> Any:
        self.image = not self.image
        if not self.image:
            self.noise = {}
        return super().__exit__(*args)


def _solve(lower: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve_triangular(lower, value[..., None], upper=False)[..., 0]
