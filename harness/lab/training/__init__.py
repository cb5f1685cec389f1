"""Training and judging of the embedded checkpoints' eyes."""
