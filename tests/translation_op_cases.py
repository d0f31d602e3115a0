"""The operators on which every rule is compared with torch, in the groups that are compiled together."""

from __future__ import annotations

from translation_ops_arrays import INDEXING, SHAPES
from translation_ops_decomposed import DECOMPOSED
from translation_ops_elementwise import ELEMENTWISE, REDUCTIONS, SPECIAL_FUNCTIONS
from translation_ops_layers import LINEAR_ALGEBRA, NETWORKS

GROUPS = {
    "elementwise": ELEMENTWISE,
    "special": SPECIAL_FUNCTIONS,
    "reductions": REDUCTIONS,
    "shapes": SHAPES,
    "indexing": INDEXING,
    "linear algebra": LINEAR_ALGEBRA,
    "networks": NETWORKS,
    "decomposed": DECOMPOSED,
}
