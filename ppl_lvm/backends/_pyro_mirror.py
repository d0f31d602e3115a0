"""Draws of a Gaussian guide in pairs that mirror each other at its centre."""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.messenger import Messenger


class Mirror(Messenger):
    """Around a guide whose noise is Gaussian, at auxiliary sites: every second run is the image of the one
    before, 2 * mean - z."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[str, torch.Tensor] = {}
        self.image = False

    def _pyro_sample(self, msg: Any) -> None:
        if self.image and msg["name"] in self.drawn:
            msg["value"] = 2 * msg["fn"].mean - self.drawn[msg["name"]]

    def _pyro_post_sample(self, msg: Any) -> None:
        if not self.image and msg["infer"].get("is_auxiliary"):
            self.drawn[msg["name"]] = msg["value"]

    def __exit__(self, *args: Any) -> Any:
        self.image = not self.image
        if not self.image:
            self.drawn = {}
        return super().__exit__(*args)
