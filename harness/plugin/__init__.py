"""The harness as pytest sees it: hooks and fixtures."""
