"""A synthetic profile with its own phase diagram, and a function that replaces its arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.profile.environment import Environment
from harness.profile.measures import CURVES, MEASURES, SHARE_GROUPS
from harness.profile.profile import Profile

N, L = 64, 12
ENVIRONMENT = Environment("2.15.0", "5.23.0", "cpu", "a processor", "float32", "sdpa")


def synthetic_profile(seed: int = 0, environment: Environment = ENVIRONMENT) -> Profile:
    rng = np.random.default_rng(seed)
    wave = np.interp(np.arange(L + 1), [0, 2, 5, 10, 12], [0.1, 0.5, 0.2, 0.8, 0.3])
    level = 0.02 * rng.standard_normal((N, 1))

    def curve(shift: float) -> Any:
        return (wave + shift + level + 0.004 * rng.standard_normal((N, L + 1))).astype(np.float32)

    arrays: dict[str, Any] = {name: curve(0.01 * index) for index, name in enumerate(CURVES)}
    arrays |= {f"post_norm_{name}": arrays[name][:, -1] for name in CURVES if name != "inter_adjusted"}
    for kind in ("norm", "weight"):
        shares = rng.dirichlet([40.0, 20.0, 30.0, 10.0], size=(N, L))
        arrays |= {
            f"{kind}_{group}": shares[:, :, index].astype(np.float32) for index, group in enumerate(SHARE_GROUPS)
        }
    words = np.full(N, 6, dtype=np.int32)
    hits = np.minimum.accumulate(rng.integers(0, 6, (N, L + 1, 2))[:, ::-1], axis=1)[:, ::-1].astype(np.int32)
    arrays |= {"hits": hits, "chance_hits": np.zeros_like(hits), "words": words, "chance_words": words}
    arrays["exit_agreement"] = (np.arange(L + 1) > 9).astype(np.int32) * np.ones((N, 1), dtype=np.int32)
    arrays["sink_share"] = arrays["weight_image"] - arrays["norm_image"]
    arrays["instruction_share"] = arrays["weight_image"][::-1]
    arrays["norm_ratio"] = (np.geomspace(20.0, 1.0, L + 1) * np.exp(curve(0.0) / 10)).astype(np.float32)
    arrays["step_image"], arrays["step_text"] = 1.0 - curve(0.0)[:, 1:] / 10, 0.98 - curve(0.0)[:, 1:] / 10
    arrays["visual_integration"] = curve(0.0) - curve(0.0)[:, :1] + np.linspace(0.0, 0.5, L + 1).astype(np.float32)
    arrays |= {name: losses for name, losses in synthetic_losses(rng).items() if name in MEASURES}
    ids = tuple(f"sample-{row}" for row in range(N))
    return Profile("made", "curves", ids, ids, ids, ids, arrays, {"prompt": "p"}, environment, "0123456789abcdef")


def with_knockout(profile: Profile, **losses: Any) -> Profile:
    """Return the profile as measured with a knockout in windows of 3 layers, noise and other tokens blocked.

    Of 40 nats it loses 30 in layers 7-9 and 6 in layers 1-3. `losses` replaces means by window, by name of the array.
    """
    arrays = synthetic_losses(np.random.default_rng(5), **losses)
    return dataclasses.replace(
        profile, arrays={**profile.arrays, **arrays}, declared={**profile.declared, "knockout_window": 3}
    )


def synthetic_losses(rng: np.random.Generator, **means: Sequence[float]) -> dict[str, Any]:
    means = {
        "knockout": (6.0, 0.0, 30.0, 0.1),
        "knockout_answer": (3.0, 0.0, 30.0, 0.1),
        "knockout_instruction": (1.0, 0.0, 0.0, 0.0),
        "knockout_noise": (0.0,) * 4,
        "knockout_noise_instruction": (0.0,) * 4,
        "knockout_other": (2.0,) * 4,
        "knockout_onward": (40.0, 34.0, 32.0, 5.0, 0.1, 0.05, 0.0),
        **means,
    }
    drawn = {name: np.array(mean) + 0.1 * rng.standard_normal((N, len(mean))) for name, mean in means.items()}
    arrays = {name: losses.astype(np.float32) for name, losses in drawn.items()}
    arrays = {name: losses.repeat(3, axis=1) if len(losses[0]) == 4 else losses for name, losses in arrays.items()}
    for name in ("knockout_noise", "knockout_noise_instruction", "knockout_other"):
        arrays[name][N // 2 :] = np.nan
    arrays["knockout_caption_tokens"] = np.full(N, 10.0, dtype=np.float32)
    arrays["knockout_likelihood"] = np.full(N, -5.0, dtype=np.float32)
    return arrays


def replace_arrays(profile: Profile, **arrays: Any) -> Profile:
    return dataclasses.replace(profile, arrays={**profile.arrays, **arrays})


def join_lines(error: BaseException) -> str:
    """Return a message without line breaks."""
    return " ".join(str(error).split())
