"""Constants of SVI's optimiser, which is the same on both backends (``_jax_adam``, ``_pyro_adam``).

Adam (Kingma and Ba 2015) with two changes:

- The second moments forget in the way of Adafactor's (Shazeer and Stern 2018, section 7.1), and sooner: at
  step t they keep 1 - t**-0.6 of what they were. A guide starts wide, and with many data its first gradients
  are larger than the last ones by orders of magnitude. With the usual 0.999, and with Adafactor's t**-0.8,
  they hold the steps back for thousands of steps (a scale was left 9 times too wide after 3,000).
- A gradient is clipped where it is a multiple of its running root mean square, by param. A fixed norm is no
  safe limit: with many rows the noise alone exceeds it at every step, the mean of what is left is then
  another direction, and the steps settle elsewhere (at a million rows of a normal, at 2.5 times the width).
"""

from __future__ import annotations

FIRST_MOMENT = 0.9
FORGETTING = 0.6
CLIP = 10.0  # times the running root mean square of the gradient's norm
LEAST_WEIGHT = 0.01  # of a step in that mean square
EPSILON = 1e-8
