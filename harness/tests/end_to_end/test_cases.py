"""Complete runs of `pytest cases/` on a tiny pair: options, exit codes, messages, baselines, summary and JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import ImageOps

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.tests.support.case_runs import ACCEPT, REGRESSION, ROOT, Cases, FaultPlugin, find_arrays
from harness.tests.support.faults import Change, stretch_positions, swap_layers
from harness.tests.support.tiny import tiny_samples


def test_a_recorded_baseline_is_reproduced_with_the_same_json(recorded: Cases) -> None:
    stored = recorded.baselines / "tiny-llava" / "tiny.json"
    assert set(recorded.files()) == {f"tiny-llava/{path.name}" for path in (stored, find_arrays(stored))}
    first = recorded.run(*REGRESSION, "-v", "--phase-json", "first.json")
    first.assert_outcomes(passed=12)
    first.stdout.fnmatch_lines(
        [
            "tiny-llava-tiny: 64 samples, 6 layers",
            "  regression    reproduces: inter, intra, attention, lens, states, boundaries,",
            "                intervals",
            "*1 matched, 0 changed*",
        ]
    )
    again = recorded.run(*REGRESSION, "--phase-json", "again.json", "--phase-no-cache")
    again.assert_outcomes(passed=12)
    written = [(recorded.baselines.parent / name).read_bytes() for name in ("first.json", "again.json")]
    assert written[0] == written[1]
    content = json.loads(written[0])
    assert {line["verdict"] for line in content["verdicts"]} == {"reproduces"}
    assert len(content["pairs"]["tiny-llava-tiny"]["means"]["inter"]) == 7


def test_a_dataset_for_regression_only_has_no_claims_timing_and_controls(
    cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "tiny", replace(DATASETS["tiny"], regression_only=True))
    result = cases.run("--phase-update-new", "--phase-json", "all.json")
    result.assert_outcomes(passed=12, deselected=14)
    content = json.loads((cases.baselines.parent / "all.json").read_bytes())
    assert {line["kind"] for line in content["verdicts"]} == {"regression"}
    assert content["pairs"]["tiny-llava-tiny"]["controls"] == {}
    assert cases.run("-m", "replication").ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.slow
def test_an_update_writes_only_changed_baselines(recorded: Cases) -> None:
    before = recorded.files()
    unchanged = recorded.run(*REGRESSION, "--phase-update")
    unchanged.stdout.fnmatch_lines(["baselines: 1 matched, 0 changed, 0 new, 0 unused"])
    assert recorded.files() == before
    swapped = recorded.run(*REGRESSION, *ACCEPT, plugins=(FaultPlugin(swap_layers(3)),))
    swapped.stdout.fnmatch_lines(["baselines: 0 matched, 1 changed, 0 new, 0 unused", "*wrote *tiny.json (changed)"])
    assert recorded.files() != before
    not_updated = recorded.run(*REGRESSION, "--phase-update-new")
    assert not_updated.ret == pytest.ExitCode.TESTS_FAILED


def test_a_missing_baseline_is_an_error_with_the_command_to_record_it(cases: Cases) -> None:
    result = cases.run(*REGRESSION)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(errors=1, skipped=11)
    result.stdout.fnmatch_lines(["*no baseline for tiny-llava-tiny*--phase-update-new*"])
    assert not cases.baselines.exists()


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_truncated_baseline_is_named(recorded: Cases, suffix: str) -> None:
    stored = recorded.baselines / "tiny-llava" / "tiny.json"
    path = stored if suffix == "json" else find_arrays(stored)
    path.write_bytes(path.read_bytes()[:200])
    result = recorded.run(*REGRESSION)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"*{path.name}*restore it from version control*"])


def test_a_baseline_of_too_few_samples_is_not_written(cases: Cases) -> None:
    result = cases.run(*REGRESSION, "--phase-update-new", "--phase-samples", "16")
    result.stdout.fnmatch_lines(["*needs at least 64 samples, not 16*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert not cases.baselines.exists()


@pytest.mark.slow
def test_a_failed_write_of_baselines_leaves_no_files(cases: Cases) -> None:
    cases.baselines.write_text("a file where the directory should be")
    result = cases.run(*REGRESSION, "--phase-update-new")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*cannot be written*--phase-baselines*"])
    assert cases.baselines.read_text() == "a file where the directory should be"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--phase-model", "gpt-17"), "*unknown model 'gpt-17'*known models: *"),
        (("--phase-dataset", "imagenet"), "*'imagenet'*scenes*"),
        (("--phase-samples", "one"), "*'one' is not a whole number of at least 2*"),
        (("--phase-seed", "-1"), "*'-1' is not a whole number*"),
        (("--phase-device", "abacus"), "*'abacus' is no device; use auto, cpu*"),
        (("--phase-dtype", "int3"), "*'int3' is no dtype; use one of auto, fp32, bf16, fp16, float32*"),
        (("--phase-batch-size", "0"), "*'0' is not a whole number of at least 1*"),
        (("--phase-update", "--phase-update-new"), "*exclude each other*"),
        (("--phase-cache", "/dev/null/kept"), "*--phase-cache: /dev/null/kept is not writable*choose another*"),
        (("--phase-json", "/dev/null/record.json"), "*--phase-json: /dev/null is not writable*"),
    ],
)
def test_an_invalid_option_is_a_usage_error_without_traceback(
    cases: Cases, arguments: tuple[str, ...], sentence: str
) -> None:
    result = cases.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = result.stderr.str().splitlines() + result.stdout.str().splitlines()
    pytest.LineMatcher([line for line in lines if line.strip()]).fnmatch_lines([sentence])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_on_a_machine_without_it_is_a_usage_error(cases: Cases) -> None:
    result = cases.run("--phase-device", "cuda")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*sees no CUDA device here; use cpu or auto*"])


@pytest.mark.parametrize(
    ("damage", "change"),
    [
        (swap_layers(3), "weights: * -> *"),
        (stretch_positions(1.02), "model.language_model.rotary_emb.inv_freq:*"),
    ],
    ids=["layers", "positions"],
)
def test_a_changed_model_fails_with_an_explanation(recorded: Cases, damage: Change, change: str) -> None:
    result = recorded.run(*REGRESSION, "-v", plugins=(FaultPlugin(damage),))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "E*inter-modal similarity of tiny-llava on tiny *",
            "E         mean difference*",
            "E*n = 64 paired*",
            f"E         since the baseline: {change}",
            "E         baseline *tiny.json",
            "E           (recorded with torch*",
            "E         intended? pytest */cases --phase-model tiny-llava --phase-dataset tiny --phase-update *TEXT",
        ]
    )


@pytest.mark.slow
def test_exchanged_images_are_detected(recorded: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    def exchanged(n: int, *_: object) -> list[Sample]:
        samples = tiny_samples(n)
        pictures = [sample.load_image for sample in samples]
        return [
            Sample(sample.id, pictures[(row + 1) % n], sample.instruction, sample.captions, sample.cluster)
            for row, sample in enumerate(samples)
        ]

    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", exchanged))
    result = recorded.run(*REGRESSION, "-v")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["E*the inputs changed: of 64 samples*", "E*64 other pixels*"])


@pytest.mark.slow
def test_changed_inputs_are_reported_first(recorded: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    def inverted(n: int, *_: object) -> list[Sample]:
        return [
            Sample(
                sample.id,
                lambda sample=sample: ImageOps.invert(sample.load_image()),
                sample.instruction,
                sample.captions,
                sample.cluster,
            )
            for sample in tiny_samples(n)
        ]

    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", inverted))
    result = recorded.run(*REGRESSION, "-v")
    result.stdout.fnmatch_lines(["E*the inputs changed*", "E*64 other*", "E*look at*"])


@pytest.mark.slow
def test_a_known_difference_is_a_strict_expected_failure(recorded: Cases) -> None:
    plain = recorded.run("-m", "replication")
    failed = {report.partition("::")[2] for report in plain.stdout.str().splitlines() if report.startswith("FAILED")}
    assert any("test_intra_modal_encoding" in name or "test_four_phases" in name for name in failed), failed
    known = "[tiny-llava-tiny]\n" + "".join(
        f'{claim} = "a random model"\n'
        for claim in ("four-phases", "alignment", "intra-modal", "inter-modal", "output-preparation")
    )
    (recorded.baselines / "known_differences.toml").write_text(known)
    listed = recorded.run("-m", "replication")
    outcomes = listed.parseoutcomes()
    assert outcomes.get("failed", 0) == plain.parseoutcomes().get("passed", 0)
    if outcomes.get("failed"):
        listed.stdout.fnmatch_lines(["*XPASS(strict)*a random model*"])


def test_a_damaged_list_of_known_differences_is_a_usage_error(recorded: Cases) -> None:
    (recorded.baselines / "known_differences.toml").write_text("[tiny\n")
    result = recorded.run("-m", "replication")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*known_differences.toml cannot be read*"])


def test_a_subset_of_the_samples_reproduces(recorded: Cases) -> None:
    result = recorded.run(*REGRESSION, "--phase-samples", "24", "-k", "test_reproduces")
    result.assert_outcomes(passed=5)


@pytest.mark.slow
def test_other_samples_are_compared_unpaired(recorded: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", lambda n, *_: tiny_samples(64 + n)[64:]))
    result = recorded.run(*REGRESSION, "-k", "test_reproduces", "-rs")
    result.assert_outcomes(skipped=5)
    result.stdout.fnmatch_lines(["SKIPPED*not compared sample by sample:", "    no sample is in the baseline*"])


@pytest.mark.slow
def test_strict_evidence_fails_inconclusive_verdicts(recorded: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", lambda n, *_: tiny_samples(64 + n)[64:]))
    few = ("--phase-samples", "8", *REGRESSION, "-k", "test_boundaries_stay")
    lenient = recorded.run(*few)
    lenient.assert_outcomes(xfailed=1)
    lenient.stdout.fnmatch_lines(["PHASES INCONCLUSIVE: *verdicts are inconclusive, more than a quarter*"])
    assert lenient.ret == pytest.ExitCode.TESTS_FAILED
    recorded.run(*few, "--phase-strict-evidence").assert_outcomes(failed=1)


@pytest.mark.slow
def test_timing_is_stored_in_the_baseline_but_not_in_the_json(recorded: Cases) -> None:
    skipped = recorded.run("-m", "timing", "-rs")
    skipped.stdout.fnmatch_lines(["*no ratio is stored for this device, dtype and attention*"])
    outputs = ("--phase-json", "record.json", "--benchmark-json", "times.json")
    updated = recorded.run("-m", "timing", "--phase-update", *outputs)
    updated.assert_outcomes(passed=4)
    updated.stdout.fnmatch_lines(["baselines: 0 matched, 1 changed, 0 new, 0 unused"])
    stored = json.loads((recorded.baselines / "tiny-llava" / "tiny.json").read_text())
    assert len(stored["timing"]) == 1
    assert "hooked" not in (recorded.baselines.parent / "record.json").read_text()
    times = json.loads((recorded.baselines.parent / "times.json").read_text())["benchmarks"]
    assert [row["extra_info"]["times_plain"] > 0 for row in times if "attention" in row["name"]] == [True]


@pytest.mark.slow
def test_collecting_imports_no_torch() -> None:
    program = (
        "import sys, pytest\n"
        "code = pytest.main(['cases', '--co', '-q', '-p', 'no:cacheprovider'])\n"
        "assert code == 0, code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "test_four_phases[scenes-llava-scenes]" in result.stdout
