"""Checks of the harness with other releases of transformers and torch."""
