"""Draws of a guide in pairs, the second of each with noise of the other sign."""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.messenger import Messenger

from ppl_lvm.backends._base_noise import noise_of, value_at


class Mirror(Messenger):
    """Around a guide: every second run is the image of the one before.

    Named families have Gaussian noise at auxiliary sites that hang on no other, and 2 * mean - z is the image
    of a value (which keeps the graph of the run before). In programs a site may hang on those before it, and
    it is the noise that is turned round; sites that are made of other noise are drawn anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[str, torch.Tensor] = {}
        self.noise: dict[str, torch.Tensor] = {}
        self.image = False

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if not self.image or msg["is_observed"]:
            return
        if name in self.drawn:
            msg["value"] = 2 * msg["fn"].mean - self.drawn[name]
        elif name in self.noise:
            msg["value"] = value_at(msg["fn"], -self.noise[name])

    def _pyro_post_sample(self, msg: Any) -> None:
        if self.image or msg["is_observed"]:
            return
        if msg["infer"].get("is_auxiliary"):
            self.drawn[msg["name"]] = msg["value"]
            return
        with torch.no_grad():
            noise = noise_of(msg["fn"], msg["value"], _solve)
        if noise is not None:
            self.noise[msg["name"]] = noise

    def __exit__(self, *args: Any) -> Any:
        self.image = not self.image
        if not self.image:
            self.drawn, self.noise = {}, {}
        return super().__exit__(*args)


def _solve(lower: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve_triangular(lower, value[..., None], upper=False)[..., 0]
