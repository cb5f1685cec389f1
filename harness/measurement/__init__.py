"""Takes the samples of a pair through the model: batches, kept readings, controls, timing, ranks."""
