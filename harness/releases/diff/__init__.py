"""Comparison of the vision-language types of two releases: tiny models, saved in one and read in both."""
