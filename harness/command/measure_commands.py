"""The sub-commands that measure: `measure`, `compare`, `flow` and `accept-claims`."""

from __future__ import annotations

from collections.abc import Sequence

from harness.command.case_session import run_cases
from harness.command.measure_arguments import OWN_OPTIONS, parse_arguments
from harness.command.usage_problem import PROGRAM, UsageProblem
from harness.interface import in_current_words
from harness.report.layout import fold, terminal_width

_MEASURE = f"{PROGRAM} measure [MODEL ...] [options] [options of pytest]"
_COMPARE = f"{PROGRAM} compare A B [options] [options of pytest]"
_FLOW = f"{PROGRAM} flow MODEL [options] [options of pytest]"
_ACCEPT = f"{PROGRAM} accept-claims MODEL [options] [options of pytest]"


def run_measure(arguments: Sequence[str]) -> int:
    """Measure the named models, or all known ones, and return pytest's exit code."""
    if _prints_help(
        arguments,
        _MEASURE,
        "Measures each model on its datasets, checks the paper's claims and compares the result with the stored "
        "baseline. Without MODEL, measures every known model that is available. Does what `pytest cases/` does in a "
        "clone of the project.",
    ):
        return 0
    return run_cases(parse_arguments(arguments))


def run_compare(arguments: Sequence[str]) -> int:
    """Measure a model against another and return pytest's exit code."""
    if _prints_help(
        arguments,
        _COMPARE,
        "Measures both models on the same samples and compares A with B instead of a stored baseline. Exit code 1 "
        "means that they differ; the output names the layers.",
    ):
        return 0
    parsed = parse_arguments(arguments)
    if len(parsed.models) != 2:
        raise UsageProblem(f"two models are needed, not {len(parsed.models)}: write {PROGRAM} compare A B")
    if parsed.models[0] == parsed.models[1]:
        raise UsageProblem(f"{parsed.models[0]} is named twice: name two different models")
    parsed.add("--against", parsed.models.pop())
    return run_cases(parsed)


def run_flow(arguments: Sequence[str]) -> int:
    """Measure where the image enters the named models, judge the causal claims, and return pytest's exit code."""
    if _prints_help(
        arguments,
        _FLOW,
        "Measures by attention knockout in which layers the image enters, and from which layer on the image tokens can "
        "be dropped. A caption's likelihood is computed again with a window of layers unable to attend to the image.",
    ):
        return 0
    return _run_on_named_models(arguments, "flow", "--knockout", "causal and replication")


def run_accept_claims(arguments: Sequence[str]) -> int:
    """Store the claims that the named models fail as known differences; return pytest's exit code."""
    if _prints_help(
        arguments,
        _ACCEPT,
        "Measures the models and stores the claims that they fail, each with its measured reason, as known differences "
        "in known_differences.toml of the baselines.",
    ):
        return 0
    return _run_on_named_models(arguments, "accept-claims", "--accept-claims", "replication")


def _run_on_named_models(arguments: Sequence[str], command: str, option: str, markers: str) -> int:
    """Run the cases with these markers and with `option`, and return pytest's exit code.

    Raises:
        UsageProblem: no model is named.
    """
    parsed = parse_arguments(arguments)
    if not parsed.models:
        raise UsageProblem(f"a model is needed: write {PROGRAM} {command} MODEL")
    if option not in parsed.own:
        parsed.add(option)
    return run_cases(parsed, "-m", markers)


def _prints_help(arguments: Sequence[str], usage: str, description: str) -> bool:
    """Print the help and return True if it is requested."""
    if not {"-h", "--help"} & set(arguments):
        return False
    width = min(100, terminal_width())
    lines = [f"usage: {usage}", "", *fold(description, width, hanging_indent=0), "", "options:"]
    for name, option in OWN_OPTIONS.items():
        usual = option.default or (option.ini if isinstance(option.ini, str) else "")
        default = f". Default: {usual}" if usual else ""
        lines.append(f"  {name} {option.metavar}".rstrip())
        lines += fold(f"      {in_current_words(option.text)}{default}", width, hanging_indent=0)
    more = (
        "Other options are those of pytest, such as -m regression, -k scenes, -v, -x, -n 4 and --junit-xml FILE; "
        "`pytest --help` lists them. Name the models before them."
    )
    print("\n".join([*lines, "", *fold(more, width, hanging_indent=0)]))
    return True
