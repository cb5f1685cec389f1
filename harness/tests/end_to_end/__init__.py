"""Complete runs: pytest inside pytest, and commands in separate processes."""
