"""Matplotlib's fonts for PDF files, without the tables that a PDF does not use."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from matplotlib.font_manager import fontManager

#: The family of the copies. A name of its own keeps other figures on matplotlib's font.
PRINT_FAMILY = "Phase Print"
_FILES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
# Layout and hinting. Embedding spends most of its time on them, and matplotlib places each glyph itself.
_UNUSED = ("GSUB", "GPOS", "GDEF", "kern", "fpgm", "prep", "cvt ", "gasp")
# Entries of the name table with the family.
_FAMILY_NAMES = (1, 16)


@cache
def register_print_fonts() -> TemporaryDirectory[str]:
    """Register the copies with matplotlib, once per process, and return their directory, which must be kept."""
    directory = TemporaryDirectory(prefix="vlm-phase-fonts-")
    for name in _FILES:
        font = TTFont(Path(matplotlib.get_data_path(), "fonts", "ttf", name), lazy=True)
        for table in _UNUSED:
            if table in font:
                del font[table]
        for entry in font["name"].names:
            if entry.nameID in _FAMILY_NAMES:
                entry.string = PRINT_FAMILY
        path = Path(directory.name, name)
        font.save(path)
        font.close()
        fontManager.addfont(path)
    return directory
