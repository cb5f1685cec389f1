"""Measures the samples of a pair: batches, cached readings, controls, calibration, timing, cooperating processes."""
