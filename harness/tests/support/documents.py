"""The Markdown pages of the project: their blocks, links, headings, tables and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.tests.support.case_runs import ROOT

#: The pages for readers; the cards of the bundled models are pages too.
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "harness" / "models" / "bundled").glob("*/*.md")),
]
#: The languages of blocks: `console` holds commands, `pycon` an interactive session, `text` output.
LANGUAGES = {"console", "python", "pycon", "text", "toml", "yaml"}
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^    (python -m .*)$", re.MULTILINE)
_LINK = re.compile(r"(?<!\\)\]\(([^()\s]+)\)")
_INLINE = re.compile(r"`((?:pytest|vlm-phase|python -m harness|torchrun)\b[^`]*)`")
_PROGRAMS = re.compile(r"^(?:pytest|vlm-phase|torchrun|accelerate|python3?|pip|bash)$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page with the word after its fence and the number of its first line."""

    language: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of a page with the text up to the next heading."""

    title: str
    text: str


def page_name(path: Path) -> str:
    """Return the path of a page relative to the project, for test ids."""
    return str(path.relative_to(ROOT))


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [Block(match[1], match[2], text[: match.start()].count("\n") + 1) for match in _FENCE.finditer(text)]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> list[str]:
    """Return the targets of the links and pictures of a page."""
    return _LINK.findall(re.sub(r"`[^`\n]*`", "", prose(text)))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    slugs: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        repeated = sum(1 for other in slugs if re.fullmatch(re.escape(slug) + r"(-\d+)?", other))
        slugs.add(f"{slug}-{repeated}" if repeated else slug)
    return slugs


def sections(text: str) -> list[Section]:
    """Return the sections of a page; fenced blocks stay in them."""
    masked = _FENCE.sub(lambda match: match[0].replace("\n#", "\n~"), text)
    titles = list(re.finditer(r"^#+ (.+)$", masked, re.MULTILINE))
    ends = [match.start() for match in titles[1:]] + [len(text)]
    return [Section(match[1], text[match.end() : end]) for match, end in zip(titles, ends, strict=True)]


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a page as rows of cells, without the rule below the header."""
    return [
        [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            for line in block.splitlines()
            if not re.fullmatch(r"[\s|:-]+", line)
        ]
        for block in re.findall(r"(?:^\|.*\n?)+", prose(text), re.MULTILINE)
    ]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of a page: of its console blocks, of indented lines and of inline code."""
    lines = [line for block in blocks(text) if block.language == "console" for line in console_lines(block)]
    lines += _INDENTED.findall(prose(text))
    lines += [" ".join(code.split()) for code in _INLINE.findall(prose(text))]
    for line in lines:
        yield from simple_commands(line)


def console_lines(block: Block) -> list[str]:
    """Return the lines of a console block, with continued lines joined and comments removed."""
    joined = re.sub(r"\\\n\s*", " ", block.text)
    return [line for line in (re.sub(r"(^|\s+)#\s.*", "", line).strip() for line in joined.splitlines()) if line]


def simple_commands(line: str) -> Iterator[list[str]]:
    """Yield the words of the commands of a shell line, from a program of interest up to an operator of the shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.commenters, lexer.whitespace_split = "", True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;<>"):
            starts = [index for index, name in enumerate(words) if _PROGRAMS.match(name)]
            if starts:
                yield words[starts[0] :]
            words = []
        else:
            words.append(word)
