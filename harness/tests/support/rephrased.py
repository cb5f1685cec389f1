"""A synthetic profile under a second instruction, and the dataset `tiny-same`, which declares one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.data.sample import Dataset, Sample
from harness.profile.profile import Profile
from harness.tests.support.synthetic_profiles import replace_arrays
from harness.tests.support.tiny import tiny_samples

ORIGINAL, SECOND = "describe the image please", "what is in the picture?"


def rephrased_profile(profile: Profile, **arrays: Any) -> Profile:
    """Return the profile with other prompts, a little noise, and replaced arrays."""
    noise = 0.001 * np.random.default_rng(7).standard_normal(profile["inter"].shape)
    changed = replace_arrays(profile, **({"inter": (profile["inter"] + noise).astype(np.float32)} | arrays))
    hashes = tuple(f"other {sample}" for sample in profile.sample_ids)
    return dataclasses.replace(
        changed, token_hashes=hashes, declared={**profile.declared, "instruction": SECOND}, controls={}
    )


def draw_same(n: int, *_: object) -> Sequence[Sample]:
    return [dataclasses.replace(sample, instruction=ORIGINAL) for sample in tiny_samples(n)]


SAME = Dataset("tiny-same", "tiny pictures with one instruction", draw_same, rephrasing=SECOND)
