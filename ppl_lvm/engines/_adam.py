"""Constants of SVI's optimiser, which is the same on both backends (``_jax_adam``, ``_pyro_adam``).

Adam (Kingma and Ba 2015) with two changes:

- The second moments forget in the way of Adafactor's (Shazeer and Stern 2018, section 7.1): at step t they
  keep 1 - t**-0.8 of what they were, on minibatches 1 - t**-0.6. A guide starts wide, and with many data its
  first gradients are larger than the last ones by orders of magnitude. With the usual 0.999 they hold the
  steps back for thousands of steps; on a million rows t**-0.8 still does (a scale was left 9 times too wide
  after 3,000). On all rows the gradients of flows and points fade near the optimum, and a memory of larger
  ones is what makes steps smaller than their rate.
- A gradient is clipped where it is a multiple of its running root mean square, by param. A fixed norm is no
  safe limit: with many rows the noise alone exceeds it at every step, the mean of what is left is then
  another direction, and the steps settle elsewhere (at a million rows of a normal, at 2.5 times the width).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI

FIRST_MOMENT = 0.9
CLIP = 10.0  # times the running root mean square of the gradient's norm
LEAST_WEIGHT = 0.01  # of a step in that mean square
EPSILON = 1e-8


def forgetting(engine: SVI) -> float:
    """The exponent a of 1 - t**-a, the share of the second moments that step t keeps."""
    return 0.8 if engine.batch_size is None else 0.6
