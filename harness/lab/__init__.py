"""Programs that make the documents, the error rates and the bundled checkpoints; measuring needs none of them."""
