"""Networks that exist in both backends: a description, and the same weights under the same names.

A description (:class:`MLP`, :class:`Conv`) is a frozen dataclass of settings. ``_pyro_networks`` builds it as
a ``torch.nn.Module`` and ``_numpyro_networks`` as an ``equinox.Module``; :meth:`Network.shapes` is the one
table of their weights, in torch's layout, which both keep: a dense layer's weight is (out, in), a
convolution's (out, in, height, width). A weight trained in one backend is used in the other as it is.

====================== =================================== ======================
name                   shape                               where
====================== =================================== ======================
``layers.i.weight``    (out, in)                           dense layer i
``layers.i.bias``      (out,)
``convs.i.weight``     (out, in, kernel, kernel)           convolution i
``convs.i.bias``       (out,)
====================== =================================== ======================

A decoder enlarges by repeating pixels before a convolution rather than by a transposed convolution: there
are no checkerboard artefacts (Odena, Dumoulin and Olah 2016, *Distill*), and both libraries agree on it.
"""

from ppl_lvm.networks._specs import ACTIVATIONS, MLP, Conv, Network, Weights, initial_weights

__all__ = ["ACTIVATIONS", "MLP", "Conv", "Network", "Weights", "initial_weights"]
