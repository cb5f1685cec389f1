"""The text of a prompt: one image and one instruction in a processor's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import PhaseError, first_line
from harness.models.prompts.chat_templates import (
    DATE,
    HARNESS_TEMPLATES,
    asks_for_date,
    chosen_template,
    with_fixed_date,
)
from harness.models.prompts.template_process import EndlessTemplateError, TemplateProcessError, render

_PLACEHOLDER = "instruction-goes-here"
# Signs of a template that prints the list of parts verbatim.
_PRINTED = ("'type': 'image'", '"type": "image"')


class PromptError(PhaseError):
    """A prompt cannot be encoded, or its token groups cannot be distinguished."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in three parts: the template before the instruction, the instruction, and the template after it."""

    before: str
    instruction: str
    after: str

    @property
    def text(self) -> str:
        """The complete prompt."""
        return self.before + self.instruction + self.after

    def find_instruction(self, text: str) -> int:
        """Return the index of the instruction in a processor's expansion of the prompt; -1 if it is missing.

        A processor adds image tokens, their delimiters, BOS or line breaks to the prompt. If the instruction's text
        occurs several times, the occurrence with the largest match of the surrounding prompt counts.
        """
        best, longest_match = -1, -1
        index = text.find(self.instruction)
        while index >= 0 and self.instruction:
            match = _common(self.before[::-1], text[:index][::-1])
            match += _common(self.after, text[index + len(self.instruction) :])
            if match > longest_match:
                best, longest_match = index, match
            index = text.find(self.instruction, index + 1)
        return best


def prompt_text(processor: Any, instruction: str) -> str:
    """Return the text of the prompt from `write_prompt`.

    Raises:
        PromptError: see `write_prompt`.
    """
    return write_prompt(processor, instruction).text


def write_prompt(processor: Any, instruction: str) -> Prompt:
    """Return the prompt of one image and one instruction in the chat template of the processor or its tokenizer.

    A template that accepts only plain text receives the image token, a line break and the instruction.

    Raises:
        PromptError: there is no chat template; it rejects the message, exceeds the limits of rendering, or omits,
            repeats or changes the instruction; or the instruction contains the image token.
    """
    template = _template(processor)
    for token in image_tokens(processor):
        if token in instruction:
            raise PromptError(
                f"the instruction {instruction!r} contains the image token {token}; remove it: the chat template "
                "inserts it at the position of the image"
            )
    try:
        before, separator, after = _rendered(processor, template, _PLACEHOLDER).partition(_PLACEHOLDER)
        text = _rendered(processor, template, instruction)
    except EndlessTemplateError as error:
        raise PromptError(f"the chat template of {type(processor).__name__} {error}") from error
    # Many templates strip the user's text.
    for candidate in (instruction, instruction.strip()):
        # Compare the complete prompt, because the template may contain the same words as the instruction.
        if separator and text == before + candidate + after:
            return Prompt(before, candidate, after)
    raise PromptError(
        f"the chat template of {type(processor).__name__} does not contain the instruction {instruction!r} verbatim "
        "and once: change chat_template.jinja beside the checkpoint's config.json to write the message's text verbatim"
    )


def refuse_endless_template(processor: Any, source: str) -> None:
    """Raise if the chat template of a processor exceeds the limits for a prompt of one image and one instruction.

    Raises:
        PromptError: the template takes more than 10 s, 1 GB, or writes more than a million characters.
    """
    try:
        write_prompt(processor, "Describe the image.")
    except Exception as error:  # `write_prompt` reports all other errors later.
        if isinstance(error.__cause__, EndlessTemplateError):
            raise PromptError(f"the chat template of {source} {error.__cause__}") from None


def template_date(processor: Any) -> str:
    """Return the date for the processor's chat template, as in 2024-07-26; empty if the template uses no date."""
    return DATE.date().isoformat() if asks_for_date(chosen_template(_template(processor))) else ""


def _template(processor: Any) -> Any:
    for owner in (processor, processor.tokenizer):
        if template := getattr(owner, "chat_template", None):
            return template
    raise PromptError(
        f"{type(processor).__name__} has no chat template, so the prompt's form is unknown: put a file "
        "chat_template.jinja beside the checkpoint's config.json, or set processor.chat_template."
    )


def image_tokens(processor: Any) -> Sequence[str]:
    """Return the image tokens of the processor's prompts; empty if the processor inserts the image by itself."""
    tokens = (getattr(owner, "image_token", None) for owner in (processor, processor.tokenizer))
    return list(dict.fromkeys(str(token) for token in tokens if token))


def _rendered(processor: Any, template: Any, instruction: str) -> str:
    parts = [{"type": "image"}, {"type": "text", "text": instruction}]
    problem = None
    try:
        text = _applied(processor, template, parts)
        if not any(printed in text for printed in _PRINTED):
            return text
    except (EndlessTemplateError, TemplateProcessError):
        raise
    except Exception as error:  # A template may raise any type.
        problem = error
    plain = "".join(f"{token}\n" for token in image_tokens(processor)[:1]) + instruction
    try:
        return _applied(processor, template, plain)
    except (EndlessTemplateError, TemplateProcessError):
        raise
    except Exception as error:
        reason = first_line(problem or error, type(error).__name__)
        raise PromptError(
            f"the chat template of {type(processor).__name__} rejects a message of one image and one text ({reason}); "
            "put a template that accepts it into chat_template.jinja beside the checkpoint's config.json"
        ) from error


def _applied(processor: Any, template: Any, content: Any) -> str:
    processor_template, text = getattr(processor, "chat_template", None), chosen_template(template)
    # A processor with its own code may render differently; that code is trusted.
    if text and text not in HARNESS_TEMPLATES and processor.apply_chat_template.__module__.startswith("transformers."):
        return render(with_fixed_date(text), processor.tokenizer.special_tokens_map, content)
    messages = [{"role": "user", "content": content}]
    # The template is passed only if it belongs to the tokenizer, so that a processor chooses among its own templates.
    named = {} if processor_template else {"chat_template": template}
    if asks_for_date(text):
        named = {"chat_template": with_fixed_date(text)}
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, **named))


def _common(left: str, right: str) -> int:
    """Return the length of the common prefix of two texts."""
    return next((k for k, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
