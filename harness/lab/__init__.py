"""Programs that make the documents, the error rates and the embedded checkpoints; measuring needs none of them."""
