"""Wires the harness into pytest; everything it does lives in `harness/plugin/hooks.py`."""

pytest_plugins = ["harness.plugin.hooks", "pytester"]
