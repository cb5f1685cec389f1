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
ASKING = "what is it?"


def dated(vlm: Vlm, template: Any) -> Any:
    processor = copy.copy(vlm.processor)
    processor.chat_template = template
    return processor


def let_it_be(day: datetime.datetime, monkeypatch: pytest.MonkeyPatch) -> None:
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
    processor = dated(vlm, form + REST)
    ours = prompt_text(processor, ASKING)
    let_it_be(DATE, monkeypatch)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ASKING}]}
    assert ours == processor.apply_chat_template([message], add_generation_prompt=True)


def test_a_template_without_date_is_unchanged(vlm: Vlm) -> None:
    assert with_fixed_date(REST) == REST
    assert template_date(dated(vlm, REST)) == ""


def test_the_default_template_and_that_of_the_tokenizer_get_the_fixed_day(vlm: Vlm) -> None:
    asking = "{{ strftime_now('%Y') }}" + REST
    several = dated(vlm, {"default": asking, "rag": REST})
    of_tokenizer = dated(vlm, None)
    of_tokenizer.tokenizer = copy.deepcopy(of_tokenizer.tokenizer)
    of_tokenizer.tokenizer.chat_template = asking
    for processor in (several, of_tokenizer):
        assert prompt_text(processor, ASKING).startswith("2024USER")
        assert template_date(processor) == "2024-07-26"


def test_a_dated_template_is_tried_with_the_fixed_day(vlm: Vlm) -> None:
    refuse_endless_template(dated(vlm, "{{ strftime_now('%Y') }}" + REST), "here")


@pytest.mark.usefixtures("tiny_data")
def test_a_baseline_holds_on_another_day(fresh_vlm: Vlm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh_vlm.processor.chat_template = "Today is {{ strftime_now('%d %b %Y') }}. " + REST

    def on(day: int) -> Profile:
        let_it_be(datetime.datetime(2026, 12, day), monkeypatch)
        return tiny_profile(fresh_vlm, samples=64, batch_size=16)

    first, second = on(1), on(2)
    assert have_same_numbers(first, second)
    assert first.declared["template_date"] == "2024-07-26"
    assert first.declared["prompt"].startswith("Today is 26 Jul 2024. USER")
    write_baseline(tmp_path, first, {}, {})
    assert find_baseline(tmp_path, second).profile.declared == first.declared
