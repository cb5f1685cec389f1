"""Unusual names of models and samples, and huge texts: figures stay separate, and the report stays small."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.baselines.store import BaselineError, find_baseline, write_baseline
from harness.baselines.stored_files import model_directory
from harness.judgement.phases import phases_of
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.report.figures import PANELS
from harness.report.markdown import markdown_summary
from harness.report.outcomes import pair_outcomes
from harness.report.page import PAGE_IDS
from harness.report.summary import summary_lines
from harness.report.write import write_report
from harness.run.session_results import SessionResults
from harness.storage.file_names import LONGEST_NAME, LONGEST_SHOWN
from harness.tests.support.case_runs import REGRESSION, Cases
from harness.tests.support.drawings import synthetic_drawing
from harness.tests.support.judged import judge_profiles
from harness.tests.support.synthetic_profiles import synthetic_profile
from harness.tests.support.tiny import tiny_vlm

KINDS = ("svg", "png", "pdf", "csv")
# Without controls there is no difference to them, and no knockout was measured.
DRAWN, MAPS = len(PANELS) - 2, 3


def named(model: str, *samples: str) -> Profile:
    drawings = tuple(map(synthetic_drawing, samples))
    return dataclasses.replace(synthetic_profile(), model=model, drawings=drawings)


def report_of(tmp_path: Path, *profiles: Profile) -> tuple[str, list[str]]:
    """Return the page of judged profiles, and the file names of its figures."""
    page = write_report(judge_profiles(tmp_path / "kept", *profiles), (), tmp_path / "report")
    return page.read_text(encoding="utf-8"), [path.name for path in (page.parent / "figures").iterdir()]


def assert_ids_unique(text: str) -> None:
    """Assert that every id is unique, and that every link leads to an id."""
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    links = re.findall(r'href="#([^"]*)"', text) + re.findall(r"url\(#([^)]*)\)", text)
    assert set(links) <= set(ids)


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
@pytest.mark.parametrize(
    "models",
    [
        ("\u6a21\u578b-\u7532", "\u6a21\u578b-\u4e59"),
        ("LLaVA", "llava"),
        ("m.1", "m-1"),
        ("a\u202eb", "a-b"),
        ("x" * 299 + "y", "x" * 299 + "z"),
    ],
    ids=ascii,
)
def test_two_models_never_share_a_figure(tmp_path: Path, models: tuple[str, str]) -> None:
    text, files = report_of(tmp_path, *(named(model, "one") for model in models))
    assert_ids_unique(text)
    # Two figures of all pairs; for each pair its panels, and the maps of its sample.
    assert len(files) == len(KINDS) * (2 + 2 * (DRAWN + MAPS))
    assert len({name.casefold() for name in files}) == len(files)
    drawings = {(tmp_path / "report" / "figures" / name).read_bytes() for name in files if "-inter" in name}
    assert len(drawings) == len(KINDS)
    anchors = re.findall(r'<th scope="row"><a href="#([^"]*)">', text)
    headings = re.findall(r'<article aria-labelledby="([^"]*)">\n<h2 id="([^"]*)">', text)
    assert headings == [(anchor, anchor) for anchor in anchors]
    assert len(set(anchors)) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
@pytest.mark.parametrize("model", ["NUL", "aux.7b", "x" * 300, "\u7532" * 250])
def test_a_name_that_is_invalid_for_files_still_gets_report_and_baseline(tmp_path: Path, model: str) -> None:
    profile = named(model, "s" * 5_000)
    text, files = report_of(tmp_path, profile)
    assert_ids_unique(text)
    assert all(len(name) <= LONGEST_NAME and name.isascii() for name in files)
    assert len(files) == len(KINDS) * (2 + DRAWN + MAPS)
    stored = find_baseline(tmp_path / "kept", profile)
    assert stored.profile.model == model
    assert all(len(part.encode()) <= LONGEST_NAME for part in stored.path.relative_to(tmp_path).parts)


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_samples_with_similar_names_have_separate_figures(tmp_path: Path) -> None:
    samples = ("a/b", "a-b", "A-B", "a-b", "\u7532", "")
    text, files = report_of(tmp_path, named("m", *samples))
    assert_ids_unique(text)
    assert len({name.casefold() for name in files}) == (len(KINDS) * (2 + DRAWN + MAPS * len(samples)))


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_valid_names_are_used_unchanged_in_file_names(tmp_path: Path) -> None:
    text, files = report_of(tmp_path, named("llava-1.5-7b", "coco-42"))
    assert "llava-1.5-7b-curves-inter.svg" in files
    assert "llava-1.5-7b-curves-coco-42-picture.png" in files
    assert '<h2 id="pair-llava-1.5-7b-curves">' in text
    assert model_directory(tmp_path, "\u6a21\u578b-\u7532") == tmp_path / "\u6a21\u578b-\u7532"


@pytest.mark.slow
def test_unusual_names_are_drawn_in_every_format(tmp_path: Path) -> None:
    _, files = report_of(tmp_path, named("\u6a21\u578b-a\u202eb-" + "x" * 300, "s" * 5_000 + "\u7532"))
    headers = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    for name in files:
        content = (tmp_path / "report" / "figures" / name).read_bytes()
        assert content.startswith(headers.get(Path(name).suffix[1:], b"")), name


def test_the_ids_of_the_template_are_reserved() -> None:
    template = Path(write_report.__code__.co_filename).with_name("page.html.jinja").read_text(encoding="utf-8")
    assert set(re.findall(r'\bid="([a-z-]+)"', template)) == set(PAGE_IDS)


def test_a_baseline_in_a_shared_directory_belongs_to_one_model(tmp_path: Path) -> None:
    """The link simulates a file system that ignores case."""
    mine, other = named("LLaVA"), named("llava")
    path = write_baseline(tmp_path, mine, {}, phases_of(mine))
    (tmp_path / "llava").symlink_to(tmp_path / "LLaVA")
    before = path.read_bytes()
    with pytest.raises(BaselineError, match=r"is of the model LLaVA, not of llava: rename the checkpoint's directory"):
        find_baseline(tmp_path, other)
    with pytest.raises(BaselineError, match="is of the model LLaVA, not of llava"):
        write_baseline(tmp_path, other, {}, phases_of(other))
    assert path.read_bytes() == before
    assert find_baseline(tmp_path, mine).profile.model == "LLaVA"


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_a_long_name_is_shortened_in_output_and_complete_in_the_record(tmp_path: Path) -> None:
    model = "x" * 300
    session = judge_profiles(tmp_path / "kept", named(model, "s" * 5_000))
    page = write_report(session, (), tmp_path / "report").read_text(encoding="utf-8")
    lines = [
        line.text for level in (0, 1) for line in summary_lines(session, pair_outcomes(session), 80, verbosity=level)
    ]
    # Paths are not shortened, because users copy them.
    stored = model_directory(Path(), model).name
    seen = [re.sub("<[^>]*>", "", page), *re.findall('aria-label="[^"]*"', page), markdown_summary(session), *lines]
    for text in seen:
        assert max(map(len, re.findall("x+|s+", text.replace(stored, ""))), default=0) <= LONGEST_SHOWN
    record = json.loads((tmp_path / "report" / "phase.json").read_text(encoding="utf-8"))
    assert list(record["pairs"]) == [f"{model}-curves"]
    assert record["pairs"][f"{model}-curves"]["drawn"][0]["sample_id"] == "s" * 5_000


HUGE = "x" * 48_000_000


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
@pytest.mark.parametrize(
    ("fields", "drawn"),
    [
        ({}, {"captions": (HUGE,)}),
        ({}, {"captions": ("a word",) * 500_000}),
        ({}, {"instruction": HUGE}),
        ({}, {"tokens": (HUGE[:1_000_000],) * 12}),
        ({}, {"image_tokens": ((HUGE[:1_000_000],) * 6,) * 13, "last_token": ((HUGE[:1_000_000],) * 5,) * 13}),
        ({"declared": {"prompt": HUGE}}, {}),
        ({"left_out": {f"coco-{number}": f"{number} is broken" for number in range(20_000)}}, {}),
        ({"configuration": {f"setting_{number}": number for number in range(20_000)}}, {}),
    ],
    ids=["caption", "captions", "instruction", "prompt", "tokens", "declared", "reasons", "settings"],
)
def test_huge_texts_do_not_make_a_large_page(tmp_path: Path, fields: dict[str, Any], drawn: dict[str, Any]) -> None:
    made = synthetic_profile()
    drawing = dataclasses.replace(synthetic_drawing(), **drawn)
    profile = dataclasses.replace(made, drawings=(drawing,), **fields)
    session: SessionResults = judge_profiles(tmp_path / "kept", made, configuration={"setting": 1})
    session.profiles[Pair(made.model, made.dataset)] = profile
    page = write_report(session, (), tmp_path / "report")
    assert page.stat().st_size < 700_000
    assert len(markdown_summary(session)) < 100_000
    if drawn:
        assert (page.parent / "phase.json").stat().st_size < 1_000_000


@pytest.mark.slow
def test_checkpoints_with_similar_names_are_measured_and_recorded_separately(cases: Cases, tmp_path: Path) -> None:
    """A complete run with names that differ only outside ASCII, and a name that is too long for a table."""
    models = [tmp_path / name for name in ("\u6a21\U0001f600", "\u6a21\U0001f389", "LLaVA", "llava", "x" * 250)]
    for seed, directory in enumerate(models):
        vlm = tiny_vlm(layers=4, seed=seed)
        vlm.model.save_pretrained(directory)
        vlm.processor.save_pretrained(directory)
    pair = (*(part for model in models for part in ("--phase-model", str(model))), "--phase-dataset", "tiny")
    options = ("--phase-controls", "none", "--phase-report", "out", "--phase-json", "out.json", "--junitxml", "out.xml")
    first = cases.run("--phase-update-new", "--phase-samples", "64", *REGRESSION, *options, pair=pair)
    assert "new" in first.stdout.str()
    assert_ids_unique(Path("out/index.html").read_text(encoding="utf-8"))
    files = [path.name.casefold() for path in Path("out/figures").iterdir()]
    # No visual integration without the blank control.
    assert len(set(files)) == len(KINDS) * (2 + len(models) * (DRAWN - 1 + 2 * MAPS))
    assert len({path.parent.name for path in cases.baselines.glob("*/tiny.json")}) == len(models)
    again = cases.run("--phase-samples", "64", *REGRESSION, *options, pair=pair)
    assert f"baselines: {len(models)} matched, 0 changed, 0 new, 0 unused" in again.stdout.str()
    record = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert len(record["pairs"]) == len(models)
    assert {line["verdict"] for line in record["verdicts"]} == {"reproduces"}
