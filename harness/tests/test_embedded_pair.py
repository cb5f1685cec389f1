"""The stored baseline of a real pair: what must reproduce it, and the faults that must not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.baselines import Baseline, find_baseline, read_baseline
from harness.comparison import FAMILIES, compare, compare_boundaries
from harness.data.registry import DATASETS
from harness.data.sample import Dataset, Sample
from harness.data.scenes import scenes
from harness.data.words import content_words
from harness.measurement import measure
from harness.models.embedded.cache import default_cache
from harness.models.prompt import encode
from harness.models.registry import find_model
from harness.models.vlm import Vlm, load_vlm
from harness.probe.lens import LensTask, References, learn_block
from harness.probe.observation import observing
from harness.probe.vocabulary import Vocabulary
from harness.profile import Profile
from harness.tests.case_runs import ROOT, Fault, stretch_positions, swap_layers

BASELINE = ROOT / "baselines" / "scenes-llava" / "scenes.json"
FEW = 16
CACHE = default_cache()  # found before pytester gives its runs another home, where all would be fetched again


@pytest.fixture(scope="module")
def llava() -> Vlm:
    """The embedded model, loaded once; not to be modified."""
    return load_vlm(find_model("scenes-llava"), cache=CACHE, device="cpu")


@pytest.fixture(scope="module")
def stored() -> Baseline:
    return read_baseline(BASELINE)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(("batch_size", "cores"), [(1, 2), (4, 1), (4, 2), (16, 2)])
def test_batch_size_and_threads_reproduce_the_baseline(
    llava: Vlm, stored: Baseline, threads: Callable[[int], None], batch_size: int, cores: int
) -> None:
    threads(cores)
    profile = measure(llava, "scenes", controls=(), samples=FEW, batch_size=batch_size)
    assert_reproduces(profile, stored)


def assert_reproduces(profile: Profile, stored: Baseline) -> None:
    """All but the adjusted curve, which is made of all samples of a run and has no fewer of them to be held against."""
    for family in FAMILIES.values():
        for finding in compare(profile, stored, family).findings:
            if finding.measure.name != "inter_adjusted":
                assert finding.agreement.verdict == "reproduces", (finding.measure.name, finding.agreement)
    assert compare_boundaries(profile, stored).verdict == "reproduces"


def test_sdpa_and_eager_reproduce_the_baseline(llava: Vlm, stored: Baseline) -> None:
    llava.model.set_attn_implementation({"text_config": "eager"})
    try:
        profile = measure(llava, "scenes", controls=(), samples=FEW)
    finally:
        llava.model.set_attn_implementation({"text_config": "sdpa"})
    assert profile.environment.attention == "eager"
    assert_reproduces(profile, stored)


def test_pruned_hits_are_the_dense_ones_on_64_scenes(llava: Vlm) -> None:
    samples = scenes(64, 1)
    size = len(llava.anatomy.unembedding.weight)
    vocabulary = Vocabulary(llava.processor.tokenizer, size)
    block: tuple[int, ...] = ()
    for start in range(0, 64, 8):
        part = samples[start : start + 8]
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
    batch = encode(vlm.processor, samples, vlm.anatomy.image_token_id)
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
        *("--phase-model", "scenes-llava", "--phase-dataset", "scenes", "--phase-cache", str(CACHE)),
        plugins=list(plugins),
    )


@pytest.mark.parametrize("damage", [swap_layers, stretch_positions])
def test_a_damaged_model_fails_the_suite(pytester: pytest.Pytester, damage: Callable[[Any], None]) -> None:
    result = run_cases(pytester, Fault(damage))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "E*inter-modal similarity of scenes-llava on scenes * residual point* *:",
            "E*mean difference*interval*margin*n = 32 paired*",
            "E*since the baseline: weights:*",
            f"E*baseline {BASELINE} (recorded with torch*",
            "E*meant? pytest cases/ --phase-model scenes-llava --phase-dataset scenes --phase-update",
        ]
    )


def test_images_of_other_samples_fail_the_suite_though_the_mean_does_not_move(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, llava: Vlm, stored: Baseline
) -> None:
    def exchanged(n: int, seed: int) -> list[Sample]:
        samples = scenes(n, seed)
        return [
            Sample(sample.id, samples[row - 1].picture, sample.instruction, sample.captions, sample.cluster)
            for row, sample in enumerate(samples)
        ]

    monkeypatch.setitem(DATASETS, "scenes", Dataset("scenes", "exchanged", exchanged))
    result = run_cases(pytester)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["E*the inputs changed: of 32 samples*0 have other token ids and 32 other pixels*"])
    profile = measure(llava, "scenes", controls=(), samples=32)
    then = stored.profile.select(profile.sample_ids)
    assert np.abs(profile["inter"].mean(0) - then["inter"].mean(0)).max() < 1e-5
    assert np.abs(profile["inter"] - then["inter"]).max() > 1e-3


def test_exchanged_images_with_the_same_hashes_do_not_reproduce(
    monkeypatch: pytest.MonkeyPatch, llava: Vlm, stored: Baseline
) -> None:
    """The samples themselves tell: the verdict does not rest on the hash of the pixels alone."""
    profile = measure(llava, "scenes", controls=(), samples=32)
    turned = {name: np.roll(array, 1, axis=0) for name, array in profile.arrays.items()}
    object.__setattr__(profile, "arrays", turned)
    comparison = compare(profile, stored, FAMILIES["inter"])
    first = comparison.findings[0].agreement
    assert comparison.inputs.changed == ""
    assert first.verdict != "reproduces"
    assert first.beyond > 16


def test_the_stored_baselines_are_the_nearest_for_this_pair(llava: Vlm, stored: Baseline) -> None:
    profile = measure(llava, "scenes", controls=(), samples=2)
    assert find_baseline(Path(ROOT / "baselines"), profile).path == stored.path
