"""Tables of guarantees in the documents: each row names existing tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEADING = "| What holds | Tested in |"
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def promises(page: str) -> list[tuple[str, str]]:
    """Return the rows of a page's tables as pairs of a sentence and its tests."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    rows, inside = [], False
    for line in lines:
        inside = line.startswith("|") and (inside or line == HEADING)
        if inside and line != HEADING and not line.startswith("|---"):
            promise, tests = line.strip("|").rsplit("|", 1)
            rows.append((promise.strip(), tests.strip()))
    return rows


@pytest.mark.parametrize("page", ["trust.md", "scale-out.md"])
def test_each_promise_names_existing_tests(page: str) -> None:
    rows = promises(page)
    assert len(rows) > 5
    for promise, tests in rows:
        assert promise.endswith("."), promise
        named = NAMED.findall(tests)
        assert named, promise
        # The cell has no text besides the test names.
        assert not NAMED.sub("", tests).strip(", "), promise
        for file, test in named:
            paths = list((ROOT / "harness" / "tests").rglob(file))
            assert len(paths) == 1, file
            assert f"def {test}(" in paths[0].read_text(encoding="utf-8"), f"{file}::{test}"
