"""The small trained checkpoints that ship with the project."""
