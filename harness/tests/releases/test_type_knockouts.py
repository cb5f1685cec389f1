"""Attention knockout of every measured type equals the complete model with an eager mask, or is refused."""

from __future__ import annotations

import contextlib
import warnings
from functools import cache

import numpy as np
import pytest

from harness.models.anatomy import find_anatomy
from harness.probe.answer_pass import Blocked, KnockoutError
from harness.probe.attention import AttentionError
from harness.probe.knockout import Knockout
from harness.releases.sweep.type_verdicts import vision_language_types
from harness.releases.tiny.prompts import tiny_prompt
from harness.releases.tiny.tiny_model import tiny_model
from harness.tests.support.blocked import answered_prompt, blocked_likelihoods, measure_answers
from harness.tests.support.documented_release import expecting_upstream_failures

TYPES = vision_language_types()
# Of the 100 types of transformers 5.24, 77 are measured; some of these have layers without softmax attention.
LEAST_EXACT = 60
_TOLERANCE = 2e-4


@cache
def outcome(model_type: str) -> str:
    """Return "exact", or the reason why a type is not measured, its knockout is refused, or is not exact."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = tiny_model(model_type, TYPES[model_type])
            anatomy = find_anatomy(model)
            prompt = tiny_prompt(model, anatomy)
        except Exception as error:  # Other tests decide on the types that cannot be measured at all.
            return f"not measured: {type(error).__name__}"
        prompts, run = answered_prompt(model, prompt)
        knockout = Knockout(anatomy, size=2)
        try:
            answers = measure_answers(model, anatomy, prompts, run, knockout)
            readings = knockout(answers, ("later", "answer", "instruction"))
        except (KnockoutError, AttentionError) as error:
            return str(error)
        plain = blocked_likelihoods(model, anatomy, run, prompts)
        expected = {}
        for path in ("later", "answer", "instruction"):
            queries, keys = knockout.masks(answers).of(path)
            losses = [
                plain - blocked_likelihoods(model, anatomy, run, prompts, Blocked(window, queries, keys))
                for window in knockout.windows
            ]
            expected[path] = np.stack(losses, 1)
    scale = max(1.0, float(np.abs(plain).max()))
    for path, losses in expected.items():
        difference = np.abs(getattr(readings, path) - losses).max() / scale
        if not difference <= _TOLERANCE:
            return f"{path}: off by {difference:.2g} from an eager mask"
    return "exact" if np.abs(expected["later"]).max() > 0.0 else "no loss"


@pytest.mark.types
@pytest.mark.parametrize("model_type", TYPES)
def test_a_type_is_exact_or_refused(model_type: str) -> None:
    with expecting_upstream_failures():
        result = outcome(model_type)
        if result.startswith("not measured"):
            pytest.skip(result)
        assert result == "exact" or "no softmax attention" in result


@pytest.mark.types
def test_enough_types_are_exact() -> None:
    exact = 0
    for model_type in TYPES:
        with contextlib.suppress(Exception):  # The test of the type reports it.
            exact += outcome(model_type) == "exact"
    assert exact >= LEAST_EXACT
