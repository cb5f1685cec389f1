"""Page templates: data is unescaped, an undefined name is an error, and blocks leave no empty lines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from harness.storage.templates import render


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "pages_of_a_test").mkdir()
    (tmp_path / "pages_of_a_test" / "__init__.py").touch()
    text = "# {{ title }}\n\n{% for row in rows %}\n  {% if row %}\n- {{ row }}\n  {% endif %}\n{% endfor %}\n"
    (tmp_path / "pages_of_a_test" / "page.md.jinja").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pages_of_a_test", raising=False)
    return "pages_of_a_test"


def test_data_is_rendered_unescaped(package: str) -> None:
    assert render(package, "page.md.jinja", {"title": "a < b", "rows": ["`x` & y", "", "z"]}) == (
        "# a < b\n\n- `x` & y\n- z\n"
    )


def test_a_name_without_data_is_an_error(package: str) -> None:
    with pytest.raises(UndefinedError, match="rows"):
        render(package, "page.md.jinja", {"title": "a"})
