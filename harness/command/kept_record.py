"""The sub-command `report`: the page of a record that an earlier run wrote with `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.command.usage_problem import PROGRAM, CommandParser, UsageProblem


def run_report(arguments: Sequence[str]) -> int:
    """Write the page of a record and print its path; return 0.

    Raises:
        UsageProblem: there is no such file, or the page cannot be written.
        RecordError: it is no record.
    """
    parser = CommandParser(
        prog=f"{PROGRAM} report",
        description="Write the page of a record, the JSON file that `vlm-phase measure --json FILE` writes.",
        allow_abbrev=False,
    )
    parser.add_argument("record", metavar="RECORD.json", type=Path, help="the JSON file, or the directory of a report")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="directory of the page; default: the record's path without .json"
    )
    options = parser.parse_args(list(arguments))
    record: Path = options.record.expanduser()
    if not record.exists():
        raise UsageProblem(
            f"there is no file {str(record)!r}: give a JSON file that {PROGRAM} measure --json FILE wrote"
        )
    directory: Path = (options.output or record.with_suffix("")).expanduser()
    if directory.exists() and not directory.is_dir():
        raise UsageProblem(f"{str(directory)!r} is a file: name a directory with --output DIR")
    from harness.report.recorded_results import report_from_record

    try:
        print(f"report {report_from_record(record, directory)}")
    except OSError as error:
        raise UsageProblem(f"{directory} cannot be written ({error.strerror or error})") from None
    return 0
