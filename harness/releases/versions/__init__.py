"""The matrix of versions: the type sweep and the embedded pairs in fresh environments, one per cell."""
