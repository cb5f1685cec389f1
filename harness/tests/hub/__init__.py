"""Tests of `harness.hub`."""
