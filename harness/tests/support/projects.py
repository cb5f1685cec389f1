"""A project of a user: a directory whose conftest loads the harness; the fixture `project` comes from here."""

from __future__ import annotations

import pytest

CONFTEST = 'pytest_plugins = ["harness.plugin.hooks"]'


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST)
    return pytester
