"""The version matrix: the type sweep and the bundled pairs, each cell in a fresh environment."""
