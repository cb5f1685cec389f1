"""The output of commands in the pages, made by running them.

`python -m harness.lab.docs.command_output docs/getting-started.md` runs the command of each block between the markers
`<!-- COMMAND: begin -->` and `<!-- COMMAND: end -->` of a page, in an empty directory, and writes its output into the
block. A measurement takes about a minute.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.errors import PhaseError, printable
from harness.lab.docs.pages import with_block
from harness.storage.files import write_atomically

_PROGRAM = "python -m harness.lab.docs.command_output"
_PROJECT = Path(__file__).parents[3]
_BEGIN = re.compile(r"^<!-- (vlm-phase [^\n]*): begin -->$", re.MULTILINE)
# The summary of a run; pytest's lines around it name the machine, its directories and times.
_SUMMARY = re.compile(r"^=+ phase diagram =+\n(.*?)^=", re.MULTILINE | re.DOTALL)


def page_commands(text: str) -> list[str]:
    """Return the commands whose output a page shows, in their order."""
    return _BEGIN.findall(text)


def command_output(command: str) -> str:
    """Return what a `vlm-phase` command prints in an empty directory; of a measurement only the summary.

    Raises:
        PhaseError: the command cannot be run; the message has the last line of its errors.
    """
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"PYTHONPATH": str(_PROJECT), "COLUMNS": "80", "NO_COLOR": "1"}
        words = [sys.executable, "-m", "harness", *shlex.split(command)[1:]]
        result = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode not in (0, 1):
        raise PhaseError(f"{command}: exit code {result.returncode}: {result.stderr.strip()[-500:]}")
    text = result.stdout.replace(f"{directory}/", "")
    summary = _SUMMARY.search(text)
    return (summary[1] if summary else text).strip()


def with_outputs(text: str) -> str:
    """Return a page with the output of each of its commands."""
    for command in page_commands(text):
        text = with_block(text, command, f"```text\n{command_output(command)}\n```")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the commands of the page and write their output into it; return 0, or 2 if that fails."""
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="Write the output of a page's commands into it.")
    parser.add_argument("page", type=Path, help="path of the page")
    page: Path = parser.parse_args(arguments).page
    try:
        write_atomically(page, with_outputs(page.read_text(encoding="utf-8")).encode())
    except (PhaseError, OSError, UnicodeDecodeError) as error:
        print(f"{_PROGRAM}: {printable(str(page))}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
