"""The two probabilistic programming libraries behind one face: tracing, densities, guides."""
