"""Training and evaluation of the vision tower and projector of the bundled models."""
