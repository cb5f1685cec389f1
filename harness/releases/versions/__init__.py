"""The version matrix: the type sweep and the bundled pairs, each cell in the environment of its releases."""
