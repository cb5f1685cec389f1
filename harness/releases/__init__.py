"""Changes that a release of transformers or torch brings."""
