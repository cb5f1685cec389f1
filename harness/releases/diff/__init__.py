"""Comparison of two releases: tiny models saved by one release, loaded and measured by the next."""
