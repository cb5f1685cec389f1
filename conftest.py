"""Wires the harness into pytest; everything it does lives in `harness/pytest_plugin.py`."""

import pytest

pytest.register_assert_rewrite("harness.checks")
pytest_plugins = ["harness.pytest_plugin"]
