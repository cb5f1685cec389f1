"""Helpers of the tests: tiny models, faults, made data, runs of the cases."""
