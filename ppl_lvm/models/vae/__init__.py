r"""Variational autoencoder.

Generative story, for n data of any shape and q latent dimensions:

.. math::

    z_i &\sim \mathrm{Normal}(0, I_q) \\
    x_i &\sim p(x \mid f_\theta(z_i)), \text{ f a neural network (the decoder)}

and its amortised guide, one network (the encoder) for all data:

.. math::

    q_\phi(z_i \mid x_i) = \mathrm{Normal}(m_\phi(x_i), S_\phi(x_i)), \text{ or a flow of it}

========== ================ ===================== ==================================
site       symbol           shape                 support
========== ================ ===================== ==================================
z          :math:`z`        (n, q), local         real
obs        :math:`x`        (n, \*image)          that of the likelihood
========== ================ ===================== ==================================

=============== ====================== ===========================================================
likelihood      data                   density of one entry, o the decoder's output
=============== ====================== ===========================================================
bernoulli       0 and 1                Bernoulli with logit o
continuous\_... 0 to 1                 continuous Bernoulli with logit o (Loaiza-Ganem et al. 2019)
gaussian        real                   Normal(o, ``noise_scale``), one sd for all entries
poisson         counts                 Poisson with rate softplus(o)
categorical     0 .. C-1               categorical with C logits
=============== ====================== ===========================================================

The weights are params (``decoder$$$layers.0.weight``, ...): a fit holds a point for them, and its evidence is
a lower bound given them. Both backends keep the same weights under the same names (:mod:`ppl_lvm.networks`),
so that what one trained runs in the other.

Sources: Kingma and Welling (2014), ICLR; Rezende, Mohamed and Wierstra (2014), ICML; Kingma et al. (2016),
NeurIPS (inverse autoregressive flow); Burda, Grosse and Salakhutdinov (2016), ICLR.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.core import AbstractModel, Array, Program
from ppl_lvm.data import Data
from ppl_lvm.models.vae._checks import as_network, bind_images, check_settings, check_torch_module, library_of
from ppl_lvm.models.vae._layout import Flow, Layout
from ppl_lvm.networks import Network, initial_weights


@dataclass(frozen=True, eq=False)
class VAE(AbstractModel):
    """Variational autoencoder; the module's page has the generative story.

    Parameters
    ----------
    latent_dim
        q, at least 1.
    likelihood
        "bernoulli", "continuous_bernoulli", "gaussian", "poisson" or "categorical".
    encoder, decoder
        "mlp", "conv", ``networks.MLP(...)``, ``networks.Conv(...)``, or your own ``torch.nn.Module`` (Pyro)
        or ``equinox.Module`` (JAX), which take a batch: the encoder (b, \\*image) -> (b, number of outputs),
        the decoder (..., q) -> (..., \\*image). The encoder's outputs are q means and q log sds; q means, q
        log diagonals and the q (q - 1) / 2 entries below of a Cholesky factor ("full"); or q means, q log sds
        and 2 q numbers of context ("flow").
    posterior
        Family of q(z | x): "diagonal" or "full" Gaussians, or "flow", an inverse autoregressive flow.
    noise_scale
        Gaussian likelihood: the sd of the noise in units of the data; None: learned.
    num_categories
        Categorical likelihood: C; None: one more than the largest category in the data.
    binarise
        Whether grey levels in [0, 1] are probabilities from which each epoch of the training draws 0 and 1
        anew (dynamic binarisation). Everything else sees one draw, the same for the same data.
    flow_steps, flow_hidden
        Autoregressive networks of the flow, and hidden units in each.
    keep_latents
        Whether ``Fit.posterior`` holds draws of z for the training data.
    image
        Shape of a datum; None: that of the data.

    Raises
    ------
    TypeError, ValueError
        Naming the field, for settings outside their range.
    """

    latent_dim: int = 2
    likelihood: str = "bernoulli"
    encoder: Any = "mlp"
    decoder: Any = "mlp"
    posterior: str = "diagonal"
    noise_scale: float | None = None
    num_categories: int | None = None
    binarise: bool = False
    flow_steps: int = 2
    flow_hidden: int = 128
    keep_latents: bool = False
    image: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("encoder", "decoder"):
            object.__setattr__(self, name, as_network(name, getattr(self, name)))
        kinds = {name: library_of(getattr(self, name)) for name in ("encoder", "decoder")}
        for name, kind in kinds.items():
            if kind == "torch":
                check_torch_module(name, getattr(self, name))
        if set(kinds.values()) >= {"torch", "equinox"}:
            raise TypeError(
                "encoder, decoder: one is a torch module and one of equinox; give both in one library."
            )
        if self.image is not None:
            object.__setattr__(self, "image", tuple(int(v) for v in self.image))

    def describe(self) -> str:
        family = "" if self.posterior == "diagonal" else f", posterior={self.posterior!r}"
        return f"VAE(latent_dim={self.latent_dim}, likelihood={self.likelihood!r}{family})"

    # ---- programs --------------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        """Shapes of the parts; needs the data's shape (a resolved model)."""
        if self.image is None:
            raise ValueError("image: not known before the model is resolved with data; give image=(...).")
        flow = None
        if self.posterior == "flow":
            flow = Flow(self.flow_steps, self.flow_hidden, 2 * self.latent_dim)
        return Layout(
            self.image,
            self.latent_dim,
            self.likelihood,
            self.posterior,
            self.num_categories,
            self.noise_scale,
            flow,
        )

    @property
    def only_backend(self) -> str | None:
        """The user's own modules have gradients in their own library only."""
        kinds = {library_of(self.encoder), library_of(self.decoder)}
        return "pyro" if "torch" in kinds else "numpyro" if "equinox" in kinds else None

    @property
    def pyro(self) -> Program:
        from ppl_lvm.models.vae import _pyro
        from ppl_lvm.models.vae._pyro_build import modules

        parts = modules(self.layout, self.encoder, self.decoder)
        guide = {k: parts[k] for k in ("encoder", "flow") if parts[k] is not None}
        return Program(
            functools.partial(_pyro.model, layout=self.layout, decoder=parts["decoder"]),
            functools.partial(_pyro.guide, layout=self.layout, **guide),
        )

    @property
    def numpyro(self) -> Program | None:
        if self.only_backend == "pyro":
            return None
        from ppl_lvm.models.vae import _numpyro

        return Program(
            functools.partial(_numpyro.model, layout=self.layout, decoder=self.decoder),
            functools.partial(_numpyro.guide, layout=self.layout, encoder=self.encoder),
        )

    @property
    def cache_key(self) -> Any:
        parts = [p if isinstance(p, Network) else ById(p) for p in (self.encoder, self.decoder)]
        return ("vae", self.layout, *parts)

    @property
    def data_plate(self) -> str:
        return "data"

    @property
    def batched(self) -> tuple[str, ...]:
        return ("x",)

    @property
    def default_dtype(self) -> str:
        return "float32"

    @property
    def trains_by_epochs(self) -> bool:
        return True

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        names = {1: ("feature",), 2: ("row", "column"), 3: ("channel", "row", "column")}
        image = len(self.image or ())
        return {"z": ("latent",), "obs": names.get(image, tuple(f"obs_dim_{i}" for i in range(image)))}

    # ---- weights ---------------------------------------------------------------------------------

    def initial_params(self, arguments: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Array]:
        """Where training starts, by name; the same in both backends. A user's modules start as they are."""
        from ppl_lvm.models.vae._initial import own_weights

        layout = self.layout
        out: dict[str, Array] = {}
        for name in ("encoder", "decoder"):
            spec = getattr(self, name)
            if not isinstance(spec, Network):
                out |= {f"{name}$$${n}": v for n, v in own_weights(spec).items()}
                continue
            image = layout.net_image
            shapes = (
                spec.encoder_shapes(image, layout.num_outputs)
                if name == "encoder"
                else spec.decoder_shapes(self.latent_dim, image)
            )
            drawn = initial_weights(shapes, spec.activation_name, rng)
            if name == "encoder":  # sds of q near 1 at first, whatever the scale of the data
                last = [n for n in drawn if n.endswith("weight") and n.startswith("layers")][-1]
                drawn[last][self.latent_dim :] *= 0.1
            out |= {f"{name}$$${n}": v for n, v in drawn.items()}
        drawn = initial_weights(layout.flow_shapes(), "tanh", rng)
        out |= {f"flow$$${n}": 0.1 * v if ".out." in n else v for n, v in drawn.items()}
        if self.likelihood == "gaussian" and self.noise_scale is None:
            out["noise_scale"] = np.asarray(max(float(arguments["x"].std()), 1e-6) * 0.5**0.5)
        return out

    # ---- data ------------------------------------------------------------------------------------

    def bind(self, raw: Any, *, fitting: bool = True) -> Data:
        """x (n, \\*image), checked against the likelihood's support."""
        del fitting
        return bind_images(raw, self.likelihood, binarise=self.binarise, image=self.image)

    def resolve(self, data: Any) -> VAE:
        """The model with the data's shape and the number of categories filled in."""
        x = self.bind(data).values["x"]
        count = self.num_categories
        if self.likelihood == "categorical":
            largest = int(x.max())
            count = largest + 1 if count is None else count
            if largest >= count:
                raise ValueError(f"x: expected categories below num_categories={count}, got {largest}.")
        found = dataclasses.replace(self, image=x.shape[1:], num_categories=count)
        for name in ("encoder", "decoder"):
            if isinstance(getattr(self, name), Network):
                found.layout.check(getattr(self, name))
        return found

    def arguments(self, data: Data) -> dict[str, Any]:
        x = data.values["x"]
        if self.binarise and not _is_binary(x):
            x = (np.random.default_rng(0).random(x.shape, dtype=np.float32) < x).astype(np.float32)
        return {"x": x}

    def resampled(self, data: Data) -> dict[str, Array]:
        """Arguments that hold probabilities of 1, from which each epoch draws 0 and 1 anew."""
        return {"x": data.values["x"]} if self.binarise else {}

    def blank_rows(self, num: int) -> Array:
        return np.zeros(
            (num, *self.layout.image), np.int64 if self.likelihood == "categorical" else np.float32
        )

    def observations(self, data: Data) -> dict[str, Array]:
        return {"obs": self.arguments(data)["x"]}

    def to_settings(self) -> dict[str, Any] | None:
        if not (isinstance(self.encoder, Network) and isinstance(self.decoder, Network)):
            return None  # a user's modules are code
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("encoder", "decoder")]
        settings = {n: getattr(self, n) for n in names}
        networks = {"encoder": self.encoder.to_settings(), "decoder": self.decoder.to_settings()}
        return {"model": "VAE", "settings": {**settings, **networks}}


def _is_binary(x: Array) -> bool:
    return bool(((x == 0) | (x == 1)).all())


@dataclass(frozen=True, eq=False)
class ById:
    """A user's module as part of a key: the same only as itself."""

    module: Any

    def __hash__(self) -> int:
        return id(self.module)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and self.module is other.module
