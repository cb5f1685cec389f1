"""Tests of `harness.storage` and `harness.errors`."""
