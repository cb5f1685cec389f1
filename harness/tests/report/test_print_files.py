"""The files for print are the same, whichever process converts the figures."""

from __future__ import annotations

import io
import re
import sys
import zlib

import pytest
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure

from harness.judgement.phases import phase_reading
from harness.report.drawn_figures import drawn_decoded, drawn_panel
from harness.report.print_files import PrintFiles
from harness.report.svg import figure_settings, to_pdf
from harness.tests.support.drawings import synthetic_drawing
from harness.tests.support.synthetic_profiles import synthetic_profile


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    """A panel with curves and a map of decoded words, of which one needs the sign for a space."""
    profile = synthetic_profile()
    reading = phase_reading(profile)
    with figure_settings():
        return {
            "panel": drawn_panel(profile, "inter", reading).figure,
            "lens": drawn_decoded(synthetic_drawing(text=" word"), reading).figure,
        }


def converted(figures: dict[str, Figure], processes: int) -> dict[str, bytes]:
    """Return the files of the figures by name."""
    with PrintFiles(processes) as printed:
        for name, figure in figures.items():
            printed.add(name, figure)
        files = dict(printed.files())
    assert [process.returncode for process in printed._processes] == [0] * len(printed._processes)
    assert bool(printed._processes) == bool(processes)
    return files


@pytest.mark.slow
def test_other_processes_write_the_same_bytes(figures: dict[str, Figure]) -> None:
    here = converted(figures, 0)
    assert list(here) == ["panel.png", "panel.pdf", "lens.png", "lens.pdf"]
    assert converted(figures, 2) == here


@pytest.mark.slow
def test_figures_are_converted_here_if_a_process_ends(
    figures: dict[str, Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = {"panel": figures["panel"]}
    here = converted(panel, 0)
    for program in ("/bin/false", "/no/such/program"):
        monkeypatch.setattr(sys, "executable", program)
        with PrintFiles(1) as printed:
            printed.add("panel", panel["panel"])
            assert dict(printed.files()) == here


def test_embedded_fonts_have_the_glyphs_without_layout_tables(figures: dict[str, Figure]) -> None:
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", to_pdf(figures["panel"]), re.DOTALL)
    contents = [zlib.decompress(stream) for stream in streams if stream[:1] == b"x"]
    fonts = [TTFont(io.BytesIO(content)) for content in contents if content.startswith(b"\x00\x01\x00\x00")]
    for font in fonts:
        assert not {"GDEF", "GPOS", "GSUB", "kern"} & set(font.keys())
    assert max(len(font.getGlyphOrder()) for font in fonts) > 20
