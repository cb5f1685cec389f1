"""The files of figures are the same, whichever process draws them."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import re
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont

from harness.judgement.phases import phase_reading
from harness.report.drawn_figures import DrawnFigure, drawn_decoded, drawn_panel
from harness.report.figure_files import Draw, FigureFiles, Files, figure_files
from harness.report.write import write_report
from harness.tests.support.drawings import synthetic_drawing
from harness.tests.support.judged import judge_profiles
from harness.tests.support.synthetic_profiles import synthetic_profile


@pytest.fixture(scope="module")
def panel() -> partial[DrawnFigure]:
    """A panel with curves."""
    profile = synthetic_profile()
    return partial(drawn_panel, profile, "inter", phase_reading(profile))


@pytest.mark.slow
def test_another_process_writes_the_same_bytes_without_importing_torch(panel: partial[DrawnFigure]) -> None:
    # A word needs the sign for a space.
    words = partial(drawn_decoded, synthetic_drawing(text=" word"), phase_reading(synthetic_profile()))
    program = (
        "import sys; from harness.report.figure_files import draw_stream; "
        "draw_stream(sys.stdin.buffer, sys.stdout.buffer); sys.exit('torch' in sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(panel) + pickle.dumps(words), stdout=subprocess.PIPE
    )
    assert process.returncode == 0
    drawn = io.BytesIO(process.stdout)
    for draw in (panel, words):
        files = pickle.load(drawn)  # noqa: S301 - from our own process
        assert files == figure_files(draw)
        assert list(files) == ["csv", "svg", "png", "pdf"]


@pytest.mark.slow
def test_figures_come_from_another_process_that_ends_with_the_block(
    panel: partial[DrawnFigure], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = figure_files(panel)
    monkeypatch.setattr("harness.report.figure_files.figure_files", lambda _: pytest.fail("drawn here"))
    with FigureFiles(1) as drawn:
        drawn.add("panel", panel)
        future = drawn._waiting[0][2]
        assert future is not None
        assert future.exception(timeout=60) is None
        assert dict(drawn.files()) == {"panel": here}
    assert [process.returncode for process in drawn._processes] == [0]


@pytest.mark.slow
def test_figures_are_drawn_here_if_a_process_ends(panel: partial[DrawnFigure], monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"panel": figure_files(panel)}
    for program in ("/bin/false", "/no/such/program"):
        monkeypatch.setattr(sys, "executable", program)
        with FigureFiles(1) as drawn:
            drawn.add("panel", panel)
            assert dict(drawn.files()) == here


@pytest.mark.parametrize("processes", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_error_of_a_figure_appears_here(panel: partial[DrawnFigure], processes: int) -> None:
    with FigureFiles(processes) as drawn:
        drawn.add("missing", partial(panel.func, panel.args[0], "no such panel", panel.args[2]))
        drawn.add("panel", panel)
        with pytest.raises(KeyError, match="no such panel"):
            dict(drawn.files())


@pytest.mark.slow
def test_a_report_of_many_pairs_is_the_same_with_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = [dataclasses.replace(synthetic_profile(), dataset=name) for name in ("curves", "others", "third")]
    profiles[0] = dataclasses.replace(profiles[0], drawings=(synthetic_drawing(),))
    session = judge_profiles(tmp_path / "kept", *profiles)
    convert, elsewhere = FigureFiles._convert, []

    def counted(drawn: FigureFiles, draw: Draw) -> Files:
        files = convert(drawn, draw)
        elsewhere.append(draw)
        return files

    monkeypatch.setattr(FigureFiles, "_convert", counted)
    written = []
    for processes in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda processes=processes: processes)
        elsewhere.clear()
        write_report(session, (), tmp_path / str(processes))
        assert bool(elsewhere) == (processes > 1)
        written.append({path.name: path.read_bytes() for path in (tmp_path / str(processes) / "figures").iterdir()})
    assert len(written[0]) == 4 * (3 * 9 + 3 + 2)
    assert written[1] == written[0]


def test_embedded_fonts_have_the_glyphs_without_layout_tables(panel: partial[DrawnFigure]) -> None:
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", figure_files(panel)["pdf"], re.DOTALL)
    contents = [zlib.decompress(stream) for stream in streams if stream[:1] == b"x"]
    fonts = [TTFont(io.BytesIO(content)) for content in contents if content.startswith(b"\x00\x01\x00\x00")]
    for font in fonts:
        assert not {"GDEF", "GPOS", "GSUB", "kern"} & set(font.keys())
    assert max(len(font.getGlyphOrder()) for font in fonts) > 20
