"""The measured arrays of one pair, the table of measures, and the provenance of both."""
