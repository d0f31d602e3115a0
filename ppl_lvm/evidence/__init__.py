"""The log evidence log p(x): bridge sampling, bounds from both sides on simulated data, all ways in a table.

:func:`bridge` takes the draws of a NUTS fit, :func:`sandwich` bounds the evidence of simulated data from
both sides, and :func:`evidence_ladder` puts bounds, estimates and the exact value (where it is known) side by
side. All values are in nats, each with its kind and its Monte Carlo standard error.
"""

from ppl_lvm.evidence._bridge import bridge
from ppl_lvm.evidence._from_fits import ladder_of
from ppl_lvm.evidence._ladder import EvidenceLadder, evidence_ladder
from ppl_lvm.evidence._sandwich import Sandwich, sandwich

__all__ = ["EvidenceLadder", "Sandwich", "bridge", "evidence_ladder", "ladder_of", "sandwich"]
