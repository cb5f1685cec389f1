"""The glossary page: made from the glossary of the report, one sentence for each term, every term once."""

from __future__ import annotations

import re
from pathlib import Path

from harness.lab.docs.glossary_page import BLOCK, glossary_tables, main
from harness.report.glossary import GLOSSARY
from harness.tests.support.page_blocks import read_block

PAGE = Path(__file__).parents[3] / "docs" / "glossary.md"
TERMS = [term for terms in GLOSSARY.values() for term in terms]


def test_the_page_lists_the_glossary(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert read_block(text, BLOCK) == glossary_tables()
    copied = tmp_path / "glossary.md"
    copied.write_text(text.replace("**margin**", "**margins**"), encoding="utf-8")
    assert main([str(copied)]) == 0
    assert copied.read_text(encoding="utf-8") == text


def test_every_term_occurs_once_with_one_short_sentence() -> None:
    names = [term.name for term in TERMS]
    assert len(set(names)) == len(names)
    for term in TERMS:
        assert term.meaning.endswith("."), term.name
        assert len(term.meaning.split()) <= 25, term.name
        assert not re.search(r"[.!?]\s+[A-Z]", term.meaning), term.name


def test_former_words_are_listed_with_their_replacements() -> None:
    former = {term.former: term.name for term in TERMS if term.former}
    assert former["move"] == "monotone segment"
    assert former["embedded"] == "bundled model"
    assert former["beyond the control"] == "difference to the control"
