"""Training and judging of the bundled checkpoints' eyes."""
