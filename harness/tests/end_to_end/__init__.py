"""Whole runs: pytest inside pytest, commands in processes of their own."""
