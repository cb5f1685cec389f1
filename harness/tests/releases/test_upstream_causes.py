"""Known causes of changes: which steps name them."""

from __future__ import annotations

from packaging.version import Version

from harness.releases.diff.upstream_causes import KNOWN_CAUSES, causes_of


def test_a_step_has_the_causes_after_its_older_release_up_to_its_newer_one() -> None:
    assert [text.split(":")[0] for text in causes_of("qwen2_5_vl", "5.2.0", "5.4.0")] == ["5.3.0", "5.3.0"]
    assert [text.split(":")[0] for text in causes_of("qwen2_5_vl", "5.3.0", "5.5.4")] == ["5.5.4"]
    assert causes_of("qwen2_5_vl", "5.5.4", "5.24.0") == []
    assert causes_of("blip-2", "5.0.0", "5.24.0") == []


def test_a_step_back_has_the_same_causes() -> None:
    assert causes_of("paligemma", "5.9.0", "5.8.1") == causes_of("paligemma", "5.8.1", "5.9.0") != []


def test_a_checkout_has_no_known_cause() -> None:
    assert causes_of("paligemma", "5.8.1", "/home/user/transformers") == []


def test_every_cause_names_its_source_and_occurs_once() -> None:
    assert len(set(KNOWN_CAUSES)) == len(KNOWN_CAUSES)
    assert [cause.release for cause in KNOWN_CAUSES] == sorted((cause.release for cause in KNOWN_CAUSES), key=Version)
    assert all("transformers " in cause.text or ".py)" in cause.text for cause in KNOWN_CAUSES)
