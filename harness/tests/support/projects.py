"""A user's project: a directory whose conftest loads the harness; defines the fixture `project`."""

from __future__ import annotations

import pytest

CONFTEST = 'pytest_plugins = ["harness.plugin.hooks"]'


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST)
    return pytester
