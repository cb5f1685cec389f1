"""The documents: links lead somewhere, blocks say what they are, commands parse, and facts agree with their source."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from harness.command.main import SUB_COMMANDS
from harness.command.measure_arguments import parse_arguments
from harness.data.datasets import DATASETS
from harness.judgement.regression import DECLARED_ASSERTIONS, DECLARED_PAIRS
from harness.models.registry import MODELS
from harness.run.options import read_options
from harness.tests.support.case_runs import ROOT
from harness.tests.support.documents import (
    LANGUAGES,
    PAGES,
    anchors,
    blocks,
    commands,
    links,
    page_name,
    prose,
    sections,
    tables,
)

DOCS = [page for page in PAGES if page.parent == ROOT / "docs"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
each_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


@cache
def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(read(page)):
        if re.match(r"(https?|mailto):", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page_name(page)}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(read(target)), f"{page_name(page)}: {link}"


@each_page
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(read(page)):
        assert block.language in LANGUAGES, f"{page_name(page)}:{block.line}: {block.language!r}"
        # An output that begins with a prompt would be neither run nor recognised.
        assert not block.text.startswith("$ "), f"{page_name(page)}:{block.line}"


def test_the_index_lists_every_page_once() -> None:
    listed = [link for link in links(read(ROOT / "docs" / "README.md")) if "#" not in link]
    there = {page.name for page in DOCS} | {page.name for page in (ROOT / "docs").glob("*.ipynb")}
    assert Counter(listed) == Counter(there - {"README.md"})


@pytest.fixture
def parse(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory with the plugin and the placeholders of the pages: checkpoints, data and files."""
    pytester.makeconftest('pytest_plugins = ["harness.plugin.hooks"]')
    pytester.makepyfile(my_plugin="", light_vlms="")
    for name in ("full", "tuned", "own"):
        directory = pytester.path / "path" / "to" / name
        directory.mkdir(parents=True)
        (directory / "config.json").write_text("{}")
    (pytester.path / "DIR").mkdir()
    (pytester.path / "phase-results").mkdir()
    pytester.syspathinsert()
    return pytester


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=page_name)
def test_every_command_line_parses(page: Path, parse: pytest.Pytester) -> None:
    for words in dict.fromkeys(map(tuple, commands(read(page)))):
        try:
            check_command(list(words), parse)
        except BaseException as error:
            raise AssertionError(f"{page_name(page)}: {' '.join(words)}: {error}") from error


def check_command(words: list[str], parse: pytest.Pytester) -> None:
    """Raise an error if a command names an option, a model, a marker, a module or an extra that does not exist."""
    program, *arguments = ("scenes-llava" if word in ("NAME", "MODEL") else word for word in words)
    if program in ("torchrun", "accelerate"):
        if "-m" in arguments:
            check_command(arguments[arguments.index("-m") + 1 :], parse)
    elif program == "pytest":
        check_pytest(arguments, parse)
    elif program in ("python", "python3") and arguments[:1] == ["-m"] and arguments[1].startswith("harness"):
        check_module(arguments[1], arguments[2:])
    elif program == "vlm-phase":
        check_own_command(arguments, parse)
    elif program == "pip":
        for name, extras in re.findall(r"([\w.-]+)\[([\w,-]+)\]", " ".join(arguments)):
            if name in (".", PROJECT["name"]):
                assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    elif program == "bash":
        assert (ROOT / arguments[0]).is_file()


def check_pytest(arguments: list[str], parse: pytest.Pytester) -> None:
    loops = {"model": "llava-1.5-7b", "dataset": "winoground", "results": "phase-results/one"}
    arguments = [re.sub(r"\$(\w+)", lambda name: loops.get(name[1], name[1]), argument) for argument in arguments]
    config = parse.parseconfig(*arguments)
    read_options(config)
    # The settings of the project have the markers of its own tests, the plugin registers the others.
    registered = parse._request.config.getini("markers")
    markers = {re.split(r"\W", line)[0] for line in registered}
    for name, expression in pairwise(arguments):
        if name == "-m":
            assert set(re.findall(r"\w+", expression)) - {"and", "or", "not"} <= markers
    for argument in arguments:
        if argument.startswith(("harness/", "cases/")):
            assert (ROOT / argument.partition("::")[0]).exists()


def check_own_command(arguments: list[str], parse: pytest.Pytester) -> None:
    name, *others = arguments or ["--help"]
    if name.startswith("-"):
        return
    assert name in SUB_COMMANDS, f"no command {name}"
    if name in ("measure", "compare", "accept-claims"):
        parsed = parse_arguments(others)
        if name == "compare":
            assert len(parsed.models) == 2
        check_pytest(parsed.command_line(), parse)


def check_module(module: str, arguments: list[str]) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"no module {module}"
    assert spec.origin is not None
    origin = Path(spec.origin)
    package = origin.parent
    sources = "".join(
        path.read_text(encoding="utf-8") for path in [*package.glob("*.py"), *package.parent.glob("*.py")]
    )
    for option in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
        # Some parsers make their options from the fields of a dataclass.
        field = option.strip("-").replace("-", "_")
        assert re.search(rf'"{option}"|^    {field}: ', sources, re.MULTILINE), f"{module} has no option {option}"


def model_types() -> Counter[str]:
    """Return the number of types by verdict, from the table of the page of model types."""
    rows = [row for table in tables(read(ROOT / "docs" / "model-types.md")) for row in table if len(row) == 3]
    return Counter(row[1] for row in rows if row[1] in ("measured", "refused", "failed"))


def required(package: str) -> str:
    (version,) = (line.partition(">=")[2] for line in PROJECT["dependencies"] if line.startswith(f"{package}>="))
    return str(version)


def of_types(pattern: str) -> str:
    """Return a number of the page of model types: of a verdict, or of all types."""
    counts = model_types()
    return str(counts[pattern] if pattern else counts.total())


def page_version() -> str:
    """Return the release of transformers on the page of model types, without its last number."""
    return re.search(r"With transformers (\d+\.\d+)", read(ROOT / "docs" / "model-types.md"))[1]  # type: ignore[index]


# A sentence that states facts, and the value of each group in it. Line breaks count as blanks.
FACTS = {
    r"Python (\d+\.\d+), torch (\d+\.\d+) and transformers (\d+\.\d+) or newer": lambda: (
        PROJECT["requires-python"].removeprefix(">="),
        required("torch"),
        required("transformers"),
    ),
    r"Python (\d+\.\d+) or newer": lambda: (PROJECT["requires-python"].removeprefix(">="),),
    r"(\d+) of (?:the )?(\d+) (?:vision-language )?(?:model )?types(?: measured)?": lambda: (
        of_types("measured"),
        of_types(""),
    ),
    r"of the (\d+) vision-language types of transformers (\d+\.\d+), (\d+) are measured": lambda: (
        of_types(""),
        page_version(),
        of_types("measured"),
    ),
    r"declared number of assertions: (\d+), four pairs": lambda: (str(DECLARED_ASSERTIONS),),
    r"four pairs of (\d+)": lambda: (str(DECLARED_ASSERTIONS // DECLARED_PAIRS),),
    r"(\d+) MB (?:wheel )?from the package index": lambda: (
        re.search(r"\{REQUIREMENT\}, (\d+) MB", read(ROOT / "harness/models/bundled/language.py"))[1],  # type: ignore[index]
    ),
}


@pytest.mark.parametrize("sentence", FACTS)
def test_a_fact_agrees_with_its_source_in_every_page(sentence: str) -> None:
    stated = 0
    for page in PAGES:
        # These pages state facts of earlier versions.
        if page.name in ("CHANGELOG.md", "versions.md"):
            continue
        for match in re.finditer(sentence, " ".join(prose(read(page)).split()), re.IGNORECASE):
            stated += 1
            assert match.groups() == FACTS[sentence](), f"{page_name(page)}: {match[0]}"
    assert stated, "no page states this fact: remove its row"


def test_the_data_sets_are_those_of_the_table() -> None:
    (table, *_) = tables(read(ROOT / "docs" / "datasets.md"))
    rows = {row[0].strip("`"): row[1] for row in table[1:]}
    assert list(rows) == list(DATASETS)
    for name, text in rows.items():
        assert int(text.split()[0]) == DATASETS[name].samples
    models = {name: entry.samples["scenes"] for name, entry in MODELS.items() if "scenes" in entry.samples}
    assert re.findall(r"(\d+) for `([\w-]+)`", rows["scenes"]) == [(str(n), name) for name, n in models.items()]


@each_page
def test_a_table_of_measured_numbers_has_its_command(page: Path) -> None:
    text = read(page)
    whole = bool(re.search(r"generates? the (page|tables|sections)|generates this page", text))
    for section in sections(text):
        cells = [cell for table in tables(section.text) for row in table[1:] for cell in row]
        measured = [cell for cell in cells if re.match(r"[<≤+-]?\s*\d+\.\d+", cell)]
        if len(measured) > 3 and not whole:
            assert list(commands(section.text)), f"{page_name(page)}: {section.title}: no command beside the numbers"
