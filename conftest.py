"""Wires the harness into pytest; everything it does lives in `harness/pytest_plugin.py`."""

pytest_plugins = ["harness.pytest_plugin", "pytester"]
