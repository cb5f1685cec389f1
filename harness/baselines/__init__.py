"""Stored profiles to compare with: read, chosen and written."""
