"""Tests of the interface that messages name."""
