"""The stored baseline of a real pair: the exact lens, the nearest baseline, and suite runs with faults.

The tables of faults and harmless changes are in test_planted_faults.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.baselines.store import Baseline, find_baseline, read_baseline
from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.data.scenes import scenes
from harness.data.words import content_words
from harness.judgement.regression import compare, compare_boundaries
from harness.measurement.measure import measure
from harness.models.prompts.prompt import encode
from harness.models.registry import find_model
from harness.models.vlm import Vlm, load_vlm
from harness.probe.lens_task import LensTask, References, learn_block
from harness.probe.observation import observing
from harness.probe.vocabulary import Vocabulary
from harness.profile.measures import FAMILIES
from harness.profile.profile import Profile
from harness.storage.cache_directory import default_cache
from harness.tests.support.case_runs import ROOT, FaultPlugin
from harness.tests.support.faults import swap_layers

BASELINE = ROOT / "baselines" / "scenes-llava" / "scenes.json"
FEW = 8
CACHE = default_cache()  # resolved before pytester changes HOME, which would cause new downloads


@pytest.fixture(scope="module")
def llava() -> Vlm:
    """The bundled model, loaded once; not to be modified."""
    return load_vlm(find_model("scenes-llava"), cache=CACHE, device="cpu")


@pytest.fixture(scope="module")
def stored() -> Baseline:
    return read_baseline(BASELINE)


@pytest.fixture(scope="module")
def few(llava: Vlm) -> Iterator[Profile]:
    """A profile of few samples, measured on one thread in small batches."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield measure(llava, "scenes", controls=(), samples=FEW, batch_size=4)
    torch.set_num_threads(before)


@pytest.mark.slow
def test_another_batch_size_on_one_thread_reproduces_the_baseline(few: Profile, stored: Baseline) -> None:
    """The adjusted curve of fewer samples is not compared."""
    for family in FAMILIES.values():
        for finding in compare(few, stored, family).findings:
            assert finding.agreement.verdict == "reproduces", (finding.measure.name, finding.agreement)
    assert compare_boundaries(few, stored).verdict == "reproduces"


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 64])
def test_pruned_hits_equal_dense_hits_on_scenes(llava: Vlm, n: int) -> None:
    samples = scenes(n, 1)
    size = len(llava.anatomy.unembedding.weight)
    vocabulary = Vocabulary(llava.processor.tokenizer, size)
    block: tuple[int, ...] = ()
    batch_size = min(8, n // 2)
    for start in range(0, n, batch_size):
        part = samples[start : start + batch_size]
        words = tuple(vocabulary.references(content_words(sample.captions)) for sample in part)
        references = References(words, (*words[1:], words[0]))
        dense = observe(llava, part, LensTask(references, (), dense=True))
        if not block:
            block = learn_block(torch.from_numpy(dense.decoded), size)
        pruned = observe(llava, part, LensTask(references, block))
        assert np.array_equal(pruned.hits, dense.hits)
        assert np.array_equal(pruned.exit_agreement, dense.exit_agreement)
        assert dense.hits[:, -1, 0, 1].sum() > 0


def observe(vlm: Vlm, samples: Any, task: LensTask) -> Any:
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    ids = [sample.id for sample in samples]
    with (
        torch.inference_mode(),
        observing(vlm.model, vlm.anatomy, batch.groups, sample_ids=ids, lens=task, attention=False) as seen,
    ):
        vlm.model(**batch.inputs, use_cache=False, logits_to_keep=1)
        return seen.readings()


def run_cases(pytester: pytest.Pytester, *plugins: Any) -> pytest.RunResult:
    return pytester.runpytest_inprocess(
        str(ROOT / "cases"),
        *("-p", "no:cacheprovider", "-m", "regression", "--phase-no-cache", "--phase-samples", "32"),
        *("--phase-controls", "none", "-v"),
        *("--phase-model", "scenes-llava", "--phase-dataset", "scenes", "--phase-cache", str(CACHE)),
        plugins=list(plugins),
    )


@pytest.mark.slow
def test_a_damaged_model_fails_the_suite(pytester: pytest.Pytester) -> None:
    result = run_cases(pytester, FaultPlugin(swap_layers(3)))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "E*inter-modal similarity of scenes-llava on scenes *",
            "E         mean difference*",
            "E*n = 32 paired*",
            "E         since the baseline: *",
            f"E         baseline {BASELINE}",
            "E           (recorded with torch*",
            "E*intended? pytest */cases --phase-model scenes-llava --phase-dataset scenes --phase-update *TEXT",
        ]
    )
    result.stdout.re_match_lines_random([r"E .*weights: \w{16} -> \w{16}"])


@pytest.mark.slow
def test_exchanged_images_fail_the_suite_although_the_mean_is_unchanged(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, stored: Baseline
) -> None:
    profiles: list[Profile] = []

    def measure_and_keep(*arguments: Any, **options: Any) -> Profile:
        profiles.append(measure(*arguments, **options))
        return profiles[-1]

    def exchanged(n: int, seed: int, *_: object) -> list[Sample]:
        samples = scenes(n, seed)
        return [
            Sample(sample.id, samples[row - 1].load_image, sample.instruction, sample.captions, sample.cluster)
            for row, sample in enumerate(samples)
        ]

    monkeypatch.setitem(DATASETS, "scenes", Dataset("scenes", "exchanged", exchanged))
    monkeypatch.setattr("harness.measurement.measure.measure", measure_and_keep)
    result = run_cases(pytester)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["E*the inputs changed: of 32 samples*", "E*32 other pixels*"])
    (profile,) = profiles
    assert profile.n == 32
    baseline = stored.profile.select(profile.sample_ids)
    assert np.abs(profile["inter"].mean(0) - baseline["inter"].mean(0)).max() < 1e-5
    assert np.abs(profile["inter"] - baseline["inter"]).max() > 1e-3


@pytest.mark.slow
def test_the_stored_baselines_are_the_nearest_for_this_pair(few: Profile, stored: Baseline) -> None:
    assert find_baseline(Path(ROOT / "baselines"), few).path == stored.path
