"""The measured arrays of one pair, their measures, and where they come from."""
