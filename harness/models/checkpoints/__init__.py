"""Checks of a checkpoint directory before anything of it is loaded."""
