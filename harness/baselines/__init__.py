"""Baselines: stored profiles that later measurements are compared with."""
