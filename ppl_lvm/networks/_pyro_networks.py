"""Networks as torch modules; the names of their parameters are those of ``Network.encoder_shapes``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppl_lvm.networks._specs import MLP, Conv, Network, Shape

ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "elu": functional.elu,
    "leaky_relu": functional.leaky_relu,
}


class Layers(nn.Module):
    """Dense layers with an activation between them: (..., in) -> (..., out)."""

    def __init__(self, shapes: dict[str, Shape], activation: str) -> None:
        super().__init__()
        dense = [s for n, s in shapes.items() if n.startswith("layers.") and n.endswith("weight")]
        self.layers = nn.ModuleList(nn.Linear(s[1], s[0]) for s in dense)
        self.activation = ACTIVATION[activation]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class Encoder(Layers):
    """Rows of any shape, flattened: (b, *image) -> (b, num_out)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


class Decoder(Layers):
    """(..., num_in) -> (..., *image)."""

    def __init__(self, shapes: dict[str, Shape], activation: str, image: Shape) -> None:
        super().__init__(shapes, activation)
        self.image = image

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z).reshape(*z.shape[:-1], *self.image)


def _convolutions(shapes: dict[str, Shape], stride: int) -> nn.ModuleList:
    found = [s for n, s in shapes.items() if n.startswith("convs.") and n.endswith("weight")]
    return nn.ModuleList(nn.Conv2d(s[1], s[0], s[2], stride, padding=s[2] // 2) for s in found)


class ConvEncoder(Layers):
    """(b, [channels,] height, width) -> (b, num_out)."""

    def __init__(self, spec: Conv, image: Shape, num_out: int) -> None:
        shapes = spec.encoder_shapes(image, num_out)
        super().__init__(shapes, spec.activation)
        self.convs, self.depth = _convolutions(shapes, 2), len(image)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1) if self.depth == 2 else x
        for conv in self.convs:
            x = self.activation(conv(x))
        return super().forward(x.flatten(1))


class ConvDecoder(Layers):
    """(..., num_in) -> (..., [channels,] height, width)."""

    def __init__(self, spec: Conv, num_in: int, image: Shape) -> None:
        shapes = spec.decoder_shapes(num_in, image)
        super().__init__(shapes, spec.activation)
        self.convs, self.image = _convolutions(shapes, 1), image
        self.sizes = list(reversed(spec.sizes(image)))
        self.depth = spec.channels[-1]

    def forward(self, z: Tensor) -> Tensor:
        x = self.activation(super().forward(z.reshape(-1, z.shape[-1])))
        x = x.reshape(-1, self.depth, *self.sizes[0])
        for i, (conv, (height, width)) in enumerate(zip(self.convs, self.sizes[1:], strict=True)):
            x = x.repeat_interleave(2, -2)[..., :height, :].repeat_interleave(2, -1)[..., :width]
            x = conv(x)
            x = x if i == len(self.convs) - 1 else self.activation(x)
        return x.reshape(*z.shape[:-1], *self.image)


def build_encoder(spec: Network, image: Shape, num_out: int) -> nn.Module:
    if isinstance(spec, MLP):
        return Encoder(spec.encoder_shapes(image, num_out), spec.activation)
    if isinstance(spec, Conv):
        return ConvEncoder(spec, image, num_out)
    raise TypeError(f"encoder: expected MLP(...) or Conv(...), got {spec!r}.")


def build_decoder(spec: Network, num_in: int, image: Shape) -> nn.Module:
    if isinstance(spec, MLP):
        return Decoder(spec.decoder_shapes(num_in, image), spec.activation, image)
    if isinstance(spec, Conv):
        return ConvDecoder(spec, num_in, image)
    raise TypeError(f"decoder: expected MLP(...) or Conv(...), got {spec!r}.")
