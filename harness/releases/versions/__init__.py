"""The matrix of versions: the type sweep and the bundled pairs in fresh environments, one per cell."""
