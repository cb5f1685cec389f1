"""`--phase-model fixture:NAME`: a model in memory, for the delivered cases and in a user's project."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.tests.support.case_runs import REGRESSION, ROOT, Cases, find_arrays

QUICK = ("--phase-samples", "32", "--phase-controls", "none")
PAIR = ("--phase-model", "fixture:my_vlm", "--phase-dataset", "tiny")
PLUGIN = """
import dataclasses
import pytest
from harness.tests.support.tuned_models import make_tuned_vlm
from harness.tests.support.tiny import tiny_vlm

built = []

@pytest.fixture(scope="session")
def my_vlm():
    built.append("my_vlm")
    return tiny_vlm(layers=6)

@pytest.fixture(scope="session")
def my_tuned():
    built.append("my_tuned")
    return make_tuned_vlm(2.0)

@pytest.fixture
def short_lived():
    return tiny_vlm()

@pytest.fixture(scope="session")
def from_nowhere():
    from transformers import AutoProcessor
    return AutoProcessor.from_pretrained("/no/such/directory")

@pytest.fixture(scope="session")
def the_model_alone():
    return tiny_vlm().model

def pytest_phase_model_loaded(vlm):
    built.append(f"loaded {vlm.name}")

def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"built: {built}")
"""


@pytest.fixture
def cases_with_plugin(cases: Cases, pytester: pytest.Pytester) -> Cases:
    """The delivered cases and a plugin with fixtures."""
    pytester.makepyfile(my_plugin=PLUGIN)
    pytester.syspathinsert()
    return cases


@pytest.mark.slow
def test_the_delivered_cases_measure_a_model_from_a_plugin(cases_with_plugin: Cases) -> None:
    named = ("-p", "my_plugin", *REGRESSION, "-k", "test_inter_similarity", "--phase-controls", "none")
    cases_with_plugin.run(*named, "--phase-update-new", pair=PAIR).assert_outcomes(passed=2)
    stored = cases_with_plugin.baselines / "my_vlm" / "tiny.json"
    assert set(cases_with_plugin.files()) == {f"my_vlm/{path.name}" for path in (stored, find_arrays(stored))}
    again = cases_with_plugin.run(*named, pair=PAIR)
    again.assert_outcomes(passed=2)
    again.stdout.fnmatch_lines(["my_vlm-tiny, 64 samples: reproduces its baseline"])
    again.stdout.fnmatch_lines(["built: ['my_vlm', 'loaded my_vlm']"])


def test_the_markers_are_registered_without_settings_of_the_project(cases: Cases) -> None:
    """An unknown marker is an error here."""
    result = cases.run("--co", "-q", "-o", "markers=", "--strict-markers", "-m", "regression or replication")
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()


@pytest.mark.slow
def test_two_fixture_models_are_compared(cases_with_plugin: Cases) -> None:
    pair = ("--phase-model", "fixture:my_tuned", "--phase-against", "fixture:my_vlm", "--phase-dataset", "tiny")
    result = cases_with_plugin.run(
        "-p", "my_plugin", "-k", "test_intra_similarity or test_ratio", "-rs", *QUICK, pair=pair
    )
    result.assert_outcomes(skipped=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "my_tuned against my_vlm on tiny: 32 samples, paired",
            "weights differ in layers 5-6; the same in layers 1-4,*",
            "SKIPPED*with --phase-against no stored ratio is read*",
        ]
    )
    result.stdout.fnmatch_lines(["built: ['my_vlm', 'loaded my_vlm', 'my_tuned', 'loaded my_tuned']"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fixture:my_vml",), "*fixture:my_vml: *has no fixture 'my_vml'; define it in a conftest.py*"),
        (("fixture:short_lived",), "*fixture:short_lived: the fixture has scope 'function'*scope='session'*"),
        (("fixture:",), "*'fixture:' names no fixture: use fixture:NAME, such as fixture:my_vlm"),
        (("fixture:a-b",), "*'fixture:a-b' names no fixture*"),
        (("fixture:my_vlm", "--phase-calibrate"), "*--phase-calibrate loads a model again*pass its directory*"),
        (("tiny-llava", "--phase-against", "fixture:my_vml"), "*has no fixture 'my_vml'*"),
    ],
)
def test_an_unusable_fixture_is_a_usage_error(
    cases_with_plugin: Cases, arguments: tuple[str, ...], message: str
) -> None:
    model, *others = arguments
    result = cases_with_plugin.run("-p", "my_plugin", *others, pair=("--phase-model", model, "--phase-dataset", "tiny"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in (*result.stderr.lines, *result.stdout.lines) if line.strip()]
    pytest.LineMatcher(lines).fnmatch_lines([message])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fixture:the_model_alone",), "*the fixture the_model_alone returns 'LlavaForConditionalGeneration'*Vlm*"),
        (("fixture:from_nowhere",), "the fixture from_nowhere raised *Error: * (my_plugin.py, line *)"),
        (
            ("fixture:my_vlm", "--phase-dtype", "bf16"),
            "*--phase-dtype bf16: the fixture my_vlm returns * in float32*",
        ),
        (
            ("fixture:my_vlm", "--phase-device", "mps"),
            "*--phase-device mps: the fixture my_vlm returns * on cpu*",
        ),
    ],
)
def test_a_fixture_that_fails_or_returns_another_type_is_an_error_without_traceback(
    cases_with_plugin: Cases, arguments: tuple[str, ...], message: str
) -> None:
    model, *others = arguments
    pair = ("--phase-model", model, "--phase-dataset", "tiny")
    result = cases_with_plugin.run("-p", "my_plugin", "-k", "test_alignment", *QUICK, *others, pair=pair)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])
    assert "Traceback" not in result.stdout.str()
    assert len(result.stdout.lines) < 40


@pytest.mark.slow
def test_collecting_for_a_fixture_imports_no_torch() -> None:
    program = (
        "import sys, pytest\n"
        "code = pytest.main(['cases', '--co', '-q', '-p', 'no:cacheprovider', '--phase-model', 'fixture:my_vlm', "
        "'--phase-against', 'fixture:other', '--phase-dataset', 'scenes'])\n"
        "assert code == 0, code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "test_four_phases[my_vlm-scenes]" in result.stdout
