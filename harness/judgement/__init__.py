"""Claims and comparisons of profiles, as typed results."""
