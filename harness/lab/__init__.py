"""Programs for the documentation, the error rates and the bundled checkpoints; measuring does not need them."""
