"""Chat templates that ask for the day: they are given a fixed one, which is declared."""

from __future__ import annotations

import copy
import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from harness.baselines.store import find_baseline, write_baseline
from harness.models.prompts.chat import prompt_text, refuse_endless_template, template_date
from harness.models.prompts.chat_templates import DATE, with_fixed_date
from harness.models.vlm import Vlm
from harness.profile.profile import Profile
from harness.tests.support.tiny import have_same_numbers, tiny_profile

REST = "USER: <image>\n{{ messages[0]['content'][1]['text'] }} ASSISTANT:"
INSTRUCTION = "what is it?"


def with_template(vlm: Vlm, template: Any) -> Any:
    processor = copy.copy(vlm.processor)
    processor.chat_template = template
    return processor


def set_current_day(day: datetime.datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transformers' own function see another day."""

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return day

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    chat_template_utils._compile_jinja_template.cache_clear()


@pytest.mark.parametrize(
    "form",
    [
        "Today is {{ strftime_now('%d %b %Y') }}. ",
        "\n\n  {% if true %}\n  x{% endif %}\n{{ strftime_now('%-d.%-m.%y %H:%M:%S %% %A %B %j %c %%d') + '!' }}",
        "{%- set day = strftime_now('%Y-%m-%d') if strftime_now is defined else 'no day' %}{{ day }}",
        "{% macro day(form) %}{{ strftime_now(form) }}{% endmacro %}{{ day('%a') }}",
        "   {%- if strftime_now(format='%I')[:2] | int > 3 %}afternoon{% endif %}",
    ],
    ids=["plain", "all kinds", "asks whether it can", "in a macro", "as a number"],
)
def test_the_fixed_day_is_written_as_transformers_would(vlm: Vlm, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = with_template(vlm, form + REST)
    rendered = prompt_text(processor, INSTRUCTION)
    set_current_day(DATE, monkeypatch)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": INSTRUCTION}]}
    assert rendered == processor.apply_chat_template([message], add_generation_prompt=True)


def test_a_template_without_date_is_unchanged(vlm: Vlm) -> None:
    assert with_fixed_date(REST) == REST
    assert template_date(with_template(vlm, REST)) == ""


def test_the_default_template_and_that_of_the_tokenizer_get_the_fixed_day(vlm: Vlm) -> None:
    dated_template = "{{ strftime_now('%Y') }}" + REST
    named_templates = with_template(vlm, {"default": dated_template, "rag": REST})
    tokenizer_only = with_template(vlm, None)
    tokenizer_only.tokenizer = copy.deepcopy(tokenizer_only.tokenizer)
    tokenizer_only.tokenizer.chat_template = dated_template
    for processor in (named_templates, tokenizer_only):
        assert prompt_text(processor, INSTRUCTION).startswith("2024USER")
        assert template_date(processor) == "2024-07-26"


def test_a_dated_template_is_tried_with_the_fixed_day(vlm: Vlm) -> None:
    refuse_endless_template(with_template(vlm, "{{ strftime_now('%Y') }}" + REST), "here")


@pytest.mark.usefixtures("tiny_data")
def test_a_baseline_holds_on_another_day(fresh_vlm: Vlm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh_vlm.processor.chat_template = "Today is {{ strftime_now('%d %b %Y') }}. " + REST

    def measure_on(day: int) -> Profile:
        set_current_day(datetime.datetime(2026, 12, day), monkeypatch)
        return tiny_profile(fresh_vlm, samples=64, batch_size=16)

    first, second = measure_on(1), measure_on(2)
    assert have_same_numbers(first, second)
    assert first.declared["template_date"] == "2024-07-26"
    assert first.declared["prompt"].startswith("Today is 26 Jul 2024. USER")
    write_baseline(tmp_path, first, {}, {})
    assert find_baseline(tmp_path, second).profile.declared == first.declared
