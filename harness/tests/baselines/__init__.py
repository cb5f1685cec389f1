"""Tests of `harness.baselines`."""
