"""The page is self-contained, escapes all texts, and shows the numbers of the JSON file."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.judgement.known_differences import KNOWN_DIFFERENCES
from harness.report.figures import PANELS
from harness.report.write import write_report
from harness.storage.files import write_atomically
from harness.tests.support.drawings import HOSTILE, synthetic_drawing, without_raster_and_pdf
from harness.tests.support.html_page import Page
from harness.tests.support.judged import judge_profiles, make_differing_profile
from harness.tests.support.synthetic_profiles import L, synthetic_profile


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two pairs with drawn samples: one pair reproduces its baseline, the other differs."""
    same = dataclasses.replace(synthetic_profile(), drawings=(synthetic_drawing(), synthetic_drawing("b", grid=False)))
    other = dataclasses.replace(make_differing_profile(), dataset="others", drawings=(synthetic_drawing("c"),))
    folder = tmp_path_factory.mktemp("page")
    session = judge_profiles(folder / "kept", same, other)
    known = "".join(f'[{pair}]\nintra-modal = "the texts fall apart"\n' for pair in session.profiles)
    (folder / "kept" / KNOWN_DIFFERENCES).write_text(known, encoding="utf-8")
    with without_raster_and_pdf():
        write_report(session, (), folder / "report")
    return folder / "report"


@pytest.fixture(scope="module")
def text(report: Path) -> str:
    """The page as HTML."""
    return (report / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def record(report: Path) -> dict[str, Any]:
    """The JSON file of the report."""
    content: dict[str, Any] = json.loads((report / "phase.json").read_text(encoding="utf-8"))
    return content


def test_the_page_is_well_formed_and_needs_no_other_file(text: str, report: Path) -> None:
    page = Page(text)
    assert (page.crossed, page.open) == ([], [])
    assert "script" not in {tag for tag, _ in page.elements}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                assert value is not None
                # Links to the files of figures may lead nowhere if the page is sent alone; nothing loads them.
                assert value.startswith(("#", "data:") + (("figures/",) if tag == "a" else ())), (tag, value)
                assert not value.startswith("#") or value[1:] in ids
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    # Names of XML namespaces, which browsers do not fetch.
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert str(report.parent) not in text


def test_every_figure_is_described_and_saved_as_svg_and_png(text: str, report: Path) -> None:
    page = Page(text)
    expected = {"phase-diagram", "recall-by-model"}
    # Without controls there is no difference to them.
    panels = [panel for panel in PANELS if panel not in ("controls", "flow")]
    expected |= {f"made-{data}-{panel}" for data in ("curves", "others") for panel in panels}
    expected |= {
        f"made-{sample}-{kind}" for sample in ("curves-sample-0", "others-c") for kind in ("picture", "lens", "tokens")
    }
    expected |= {"made-curves-b-lens", "made-curves-b-tokens"}
    assert {figure["id"] for figure in page.all("figure")} == expected
    drawn = [svg for svg in page.all("svg") if svg.get("class") == "figure"]
    assert len(drawn) == len(expected)
    for svg in drawn:
        assert svg["role"] == "img"
        assert len(svg["aria-label"] or "") > 40
    assert len({svg["aria-label"] for svg in drawn}) == len(drawn)
    files = {path.name for path in (report / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in expected for kind in ("svg", "png", "pdf", "csv")}
    linked = {link["href"] for link in page.all("a") if (link["href"] or "").startswith("figures/")}
    assert linked == {f"figures/{file}" for file in files}
    for path in (report / "figures").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")  # noqa: S314 - our own file


def test_headings_go_down_by_one_and_tables_name_their_columns(text: str) -> None:
    page = Page(text)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"


def test_phases_and_their_certainty_agree_with_the_json(text: str, record: dict[str, Any]) -> None:
    page = Page(text)
    bounds, certainty = page.texts_of_class(text, "bounds"), page.texts_of_class(text, "certainty")
    assert len(bounds) == len(certainty) == len(record["pairs"]) == 2
    for sentence, sure, pair in zip(bounds, certainty, record["pairs"].values(), strict=True):
        layers = [int(layer) for layer in re.findall(r"ends at layer (\d+)", sentence)]
        assert layers == [point[0] for point in pair["phases"]["turning_points"]]
        assert f"of {pair['depth']} layers" in sentence
        assert f"From {pair['n']} samples" in sure
        assert f"{pair['phases']['level']:.0%} interval" in sure


def test_the_first_screen_answers_with_changes_claims_and_phases(text: str) -> None:
    banner, matrix = text.split('class="banner')[1].split('<table class="cards matrix">')[:2]
    assert '<span class="verdict" data-sign="!">CHANGED: made-others, first changed layer: 6</span>' in banner
    assert "<p>made-curves: nothing changed since its baseline of transformers 5.23.0, torch 2.15.0.</p>" in banner
    assert "claims on each of 2 pairs: 8 hold, 2 fail as expected.</p>" in banner
    rows = matrix.split("</table>")[0].split("<tr>")[2:]
    for row, changed in zip(rows, ("nothing changed", "changed at layers 6-8"), strict=True):
        cells = re.findall(r'data-sign="(.)">([^<]*)<', row)
        assert cells[:5] == [*[("+", "holds")] * 2, ("\N{MINUS SIGN}", "fails as expected"), *[("+", "holds")] * 2]
        assert cells[5][1] == changed
        anchor = re.findall(r'<th scope="row"><a href="#([^"]*)">', row)[0]
        assert f'href="#{anchor}:intra-modal"' in row
    assert text.index("<figure ") == text.index('<figure id="phase-diagram">')


def test_figures_are_numbered_in_reading_order_with_the_papers_figure(text: str) -> None:
    numbers = re.findall(r"<figcaption><b>Figure (\d+)</b>", text)
    assert list(map(int, numbers)) == list(range(1, text.count("<figure ") + 1))
    captions = dict(re.findall(r'<figure id="([^"]*)">.*?<figcaption><b>Figure \d+</b>(.{24})', text, re.DOTALL))
    assert captions["phase-diagram"].startswith(" (paper's figure 2). ")
    assert captions["made-curves-inter"].startswith(" (paper's figure 1). ")
    assert captions["made-curves-segments"].startswith(". ")
    assert 'href="figures/made-curves-inter.csv"' in text


def test_changes_are_listed_with_layers_and_numbers(text: str, record: dict[str, Any]) -> None:
    numbers = next(
        line["numbers"]["inter"]
        for line in record["verdicts"]
        if (line["pair"], line["question"]) == ("made-others", "inter")
    )
    assert (numbers["verdict"], numbers["layers"]) == ("differs", [6, 7, 8])
    same, changed = (article.split("</article>")[0] for article in text.split("<article")[1:])
    assert 'class="answers changes"' not in same
    listed = html.unescape(changed.split('class="answers changes"')[1].split("</dl>")[0])
    assert "<dd>first changed layer: 6</dd>" in listed
    assert "<dd>residual point 5</dd>" in listed
    assert "weights changed; torch 2.15.0 -> 2.16.0" in listed
    assert f"<li>inter-modal similarity {numbers['effect']:+.2g} at residual point" in listed
    # Sentences agree with the signs of the effects.
    assert f'data-label="effect">{numbers["effect"]:+.3g}<' in changed
    assert "at residual points 6-8; higher by the most at" in changed


def test_the_page_unfolds_only_what_changed(text: str) -> None:
    same, changed = (article.split("</article>")[0] for article in text.split("<article")[1:])
    assert '<details class="pair">' in same
    assert '<details class="pair" open>' in changed
    assert re.search(r"<details open[^>]*>\s*<summary><span class=\"verdict differs\"", changed)
    # The verdicts that reproduce, the samples and the provenance stay folded.
    assert not re.search(r"<details open[^>]*>\s*<summary><span class=\"verdict reproduces\"", changed)
    assert "<details>\n<summary>Tokens that LogitLens decodes" in changed
    assert "<details>\n<summary>Provenance" in changed


def test_every_verdict_of_the_record_is_on_the_page_with_its_numbers(text: str, record: dict[str, Any]) -> None:
    for line in record["verdicts"]:
        section = text.split(f'<h2 id="pair-{line["pair"]}"')[1].split("<article")[0]
        if line["kind"] == "replication":
            for part in line["numbers"]["parts"]:
                row = re.search(rf"<tr>\n<td>{re.escape(html.escape(part['name']))}</td>.*?</tr>", section, re.DOTALL)
                assert row is not None, part["name"]
                assert html.escape(part["statement"][1:]) in row[0]
                assert f'data-label="n">{part["n"]}<' in row[0]
                assert part["verdict"] in row[0]
        elif line["question"] == "boundaries":
            for shift in line["numbers"].values():
                low, high = shift["interval"]
                assert f"{low:+.3g} to {high:+.3g}" in section
                assert f'data-label="n">{shift["n"]} paired<' in section
        elif line["question"] in ("inter", "intra", "attention", "lens"):
            measures = [name for name, numbers in line["numbers"].items() if isinstance(numbers, dict)]
            assert section.count('data-label="margin"') >= len(measures)
            for name in measures:
                low, high = line["numbers"][name]["interval"]
                assert f"{low:+.3g} to {high:+.3g}" in section
    assert "took 1.50 times the time of a plain one" in text


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_a_run_without_baseline_states_that_none_was_compared(tmp_path: Path) -> None:
    session = judge_profiles(tmp_path / "kept", synthetic_profile())
    session.verdicts[:] = [result for result in session.verdicts if result.kind == "replication"]
    session.baselines.clear()
    session.ratios.clear()
    text = write_report(session, (), tmp_path / "report").read_text()
    assert "made-curves: measured, not compared with a baseline" in text
    assert "Compared with the baseline" not in text
    assert "times the time of a plain one" not in text
    assert "Open dots" not in text


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_the_answer_lists_the_first_changed_settings_and_the_provenance_all(tmp_path: Path) -> None:
    before = {"vision_feature_layer": -2, **{f"text_config.field_{index}": HOSTILE for index in range(8)}}
    after = {"vision_feature_layer": -1, **{f"text_config.field_{index}": index for index in range(8)}}
    profile = dataclasses.replace(make_differing_profile(), configuration=after)
    session = judge_profiles(tmp_path, profile, configuration=before)
    text = write_report(session, (), tmp_path / "report").read_text("utf-8")
    page = Page(text)
    assert "<script" not in text.lower()
    cause = html.unescape(text.split('class="banner')[1].split("<p>Cause: ")[1].split("</p>")[0])
    assert cause.startswith("vision_feature_layer -2 -> -1; text_config.field_0 ")
    assert "; 3 more settings; weights changed; torch 2.15.0 -> 2.16.0" in cause
    assert "text_config.field_7" not in cause
    assert len([content for _, content in page.texts if re.match(r"text_config\.field_\d: .* -> \d$", content)]) == 8


@pytest.mark.usefixtures("svg_only")
def test_markup_in_data_is_escaped_on_the_page(tmp_path: Path) -> None:
    drawing = synthetic_drawing(HOSTILE, text=HOSTILE, captions=(HOSTILE, "a word"))
    profile = dataclasses.replace(
        synthetic_profile(),
        drawings=(drawing,),
        declared={"prompt": HOSTILE, "instruction": HOSTILE},
        revision=HOSTILE,
        left_out={HOSTILE: HOSTILE},
        environment=dataclasses.replace(synthetic_profile().environment, device_name=HOSTILE),
    )
    session = judge_profiles(tmp_path / "kept", synthetic_profile())
    (pair,) = session.profiles
    session.profiles[pair] = profile
    text = write_report(session, (), tmp_path / "report").read_text(encoding="utf-8")
    page = Page(text)
    assert (page.crossed, page.open) == ([], [])
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "img", "iframe", "object"})
    assert "<script" not in text.lower()
    # Template syntax in texts is not evaluated.
    assert text.count("{{ 7 * 7 }}") > 2 * (L + 1)
    assert "\u202e" not in text
    lines = [content for _, content in page.texts if "alert(1)" in content]
    assert len(lines) > 2 * (L + 1)
    for path in (tmp_path / "report" / "figures").iterdir():
        assert re.fullmatch(r"[A-Za-z0-9._~-]+\.(svg|png|pdf|csv)", path.name)


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_winoground_scores_list_their_number_of_items(tmp_path: Path) -> None:
    made = synthetic_profile()
    arrays = {**made.arrays, "likelihood_own": np.zeros(made.n), "likelihood_other": np.full(made.n, -1.0)}
    paired = dataclasses.replace(made, clusters=made.sample_ids[: made.n // 2] * 2, arrays=arrays)
    write_report(judge_profiles(tmp_path / "kept", paired), (), tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count('data-label="items">32</td>') == 3


def test_the_page_is_small(text: str) -> None:
    # Two pairs with three samples. Four real pairs with eight samples should stay below 5 MB.
    assert len(text.encode()) < 1_500_000


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_page_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = judge_profiles(tmp_path / "kept", synthetic_profile())
    (tmp_path / "report").mkdir()
    index = tmp_path / "report" / "index.html"
    index.write_text("before")

    def full(path: Path, content: bytes, *, durable: bool = True) -> None:
        if path.suffix == ".png":
            raise OSError(28, "No space left on device")
        write_atomically(path, content, durable=durable)

    monkeypatch.setattr("harness.report.write.write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(session, (), tmp_path / "report")
    assert index.read_text() == "before"
    assert json.loads((tmp_path / "report" / "phase.json").read_text())["pairs"]
