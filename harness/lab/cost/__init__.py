"""The cost of measuring: a benchmark of the ways to read a model, and the page of its results."""
