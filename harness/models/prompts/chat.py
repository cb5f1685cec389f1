"""The words of a prompt: one image and one instruction in a processor's chat template, and where the instruction is."""

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
# How a list of parts looks where a template prints it as it is.
_PRINTED = ("'type': 'image'", '"type": "image"')


class PromptError(PhaseError):
    """A prompt could not be encoded, or its token groups could not be told apart."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in three parts: the template before the instruction, the instruction, and the template behind it."""

    before: str
    instruction: str
    after: str

    @property
    def text(self) -> str:
        """The whole prompt."""
        return self.before + self.instruction + self.after

    def find_instruction(self, text: str) -> int:
        """Where the instruction begins in what a processor made of the prompt; -1 where it is not there.

        A processor puts image tokens, their borders, BOS or line breaks into the prompt. Of several places where the
        instruction's words stand, its own is the one with most of the prompt's characters around it.
        """
        best, most = -1, -1
        at = text.find(self.instruction)
        while at >= 0 and self.instruction:
            around = _common(self.before[::-1], text[:at][::-1])
            around += _common(self.after, text[at + len(self.instruction) :])
            if around > most:
                best, most = at, around
            at = text.find(self.instruction, at + 1)
        return best


def prompt_text(processor: Any, instruction: str) -> str:
    """Return the prompt of one image and one instruction in the processor's own chat template.

    Raises:
        PromptError: as `write_prompt`.
    """
    return write_prompt(processor, instruction).text


def write_prompt(processor: Any, instruction: str) -> Prompt:
    """The prompt of one image and one instruction, by the chat template of the processor or else of its tokenizer.

    A template that knows messages of plain text only gets the image token and a line break before the instruction.

    Raises:
        PromptError: there is no chat template, it refuses the message, does not come to an end, leaves out, repeats or
            changes the instruction, or the instruction holds the image token.
    """
    template = _template(processor)
    for token in image_tokens(processor):
        if token in instruction:
            raise PromptError(
                f"the instruction {instruction!r} holds the image token {token}; leave it out: the chat template puts "
                "it where the image goes"
            )
    try:
        before, found, after = _rendered(processor, template, _PLACEHOLDER).partition(_PLACEHOLDER)
        text = _rendered(processor, template, instruction)
    except EndlessTemplateError as error:
        raise PromptError(f"the chat template of {type(processor).__name__} {error}") from error
    # Many templates strip what the user wrote.
    for kept in (instruction, instruction.strip()):
        # Comparing the whole prompt, not looking for the instruction: the template's own words may be the same.
        if found and text == before + kept + after:
            return Prompt(before, kept, after)
    raise PromptError(
        f"the chat template of {type(processor).__name__} does not contain the instruction {instruction!r} verbatim "
        "and once: let chat_template.jinja beside the checkpoint's config.json write the message's text as it is"
    )


def refuse_endless_template(processor: Any, source: str) -> None:
    """Assert that the chat template of a processor comes to an end with a prompt of one image and one instruction.

    Raises:
        PromptError: the template takes more than 10 s, 1 GB, or writes more than a million characters.
    """
    try:
        write_prompt(processor, "Describe the image.")
    except Exception as error:  # What else a template lacks is an error where a prompt is written.
        if isinstance(error.__cause__, EndlessTemplateError):
            raise PromptError(f"the chat template of {source} {error.__cause__}") from None


def template_date(processor: Any) -> str:
    """Return the date that the processor's chat template is given, as in 2024-07-26; empty where it asks for none."""
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
    """What stands for the image in the processor's prompts; no strings where it puts the image there by itself."""
    found = (getattr(owner, "image_token", None) for owner in (processor, processor.tokenizer))
    return list(dict.fromkeys(str(token) for token in found if token))


def _rendered(processor: Any, template: Any, instruction: str) -> str:
    parts = [{"type": "image"}, {"type": "text", "text": instruction}]
    problem = None
    try:
        text = _applied(processor, template, parts)
        if not any(printed in text for printed in _PRINTED):
            return text
    except (EndlessTemplateError, TemplateProcessError):
        raise
    except Exception as error:  # A template raises what it likes, and jinja2 what it meets.
        problem = error
    plain = "".join(f"{token}\n" for token in image_tokens(processor)[:1]) + instruction
    try:
        return _applied(processor, template, plain)
    except (EndlessTemplateError, TemplateProcessError):
        raise
    except Exception as error:
        said = first_line(problem or error, type(error).__name__)
        raise PromptError(
            f"the chat template of {type(processor).__name__} refuses a message of one image and one text ({said}); "
            "put one that takes it into chat_template.jinja beside the checkpoint's config.json"
        ) from error


def _applied(processor: Any, template: Any, content: Any) -> str:
    own, text = getattr(processor, "chat_template", None), chosen_template(template)
    # A processor's own code may render otherwise; it is trusted with everything.
    if text and text not in HARNESS_TEMPLATES and processor.apply_chat_template.__module__.startswith("transformers."):
        return render(with_fixed_date(text), processor.tokenizer.special_tokens_map, content)
    messages = [{"role": "user", "content": content}]
    # Named only where it is the tokenizer's, so that a processor with templates of several names chooses by itself.
    named = {} if own else {"chat_template": template}
    if asks_for_date(text):
        named = {"chat_template": with_fixed_date(text)}
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, **named))


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
