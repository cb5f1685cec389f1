"""Registers the plugin; the hooks are in `harness/plugin/hooks.py`."""

pytest_plugins = ["harness.plugin.hooks", "pytester"]
