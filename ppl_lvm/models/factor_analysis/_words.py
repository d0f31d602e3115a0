"""Sentences that several files say."""

NO_DENSITY = (
    "PPCA(scale=0.0): data without noise have no density, so only EM and transform work; "
    "give a positive scale, or leave it out to have it estimated"
)
