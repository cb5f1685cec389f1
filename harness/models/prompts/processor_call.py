"""The call of a processor: tensors of pictures and prompts, texts that its tokenizer gets, and expected lengths."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.data.sample import Sample
from harness.errors import first_line
from harness.models.library_messages import printable_cause
from harness.models.prompts.chat import Prompt, PromptError

# What a processor gives for training; a model that gets it computes a loss.
_NOT_GIVEN = ("labels", "offset_mapping")
# Two sizes (height, width) that a processor of one resolution makes the same number of image tokens of.
_LIKE, _UNLIKE = [448, 448], [224, 1344]


class _Listening:
    """A tokenizer that keeps the texts it is given and what it makes of them.

    The texts are the prompts as the processor has expanded them, which the character offsets of the tokens refer to
    and which no processor hands out.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.heard: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        texts = [text] if isinstance(text, str) else list(text or ())
        bos = self._tokenizer.bos_token
        if bos is not None and texts and all(isinstance(one, str) and one.startswith(bos) for one in texts):
            # As apply_chat_template does: what the template has written is not written again.
            kwargs["add_special_tokens"] = False
        encoded = self._tokenizer(text, *args, **kwargs)
        if texts:
            self.heard += zip(texts, encoded.encodings or [None] * len(texts), strict=True)
        return encoded


def call_processor(
    processor: Any, samples: Sequence[Sample], prompts: Sequence[Prompt]
) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Return the processor's tensors, and what its tokenizer heard: each text with its encoding.

    Args:
        processor: called as it is; padding is on the left.
        samples: one picture each.
        prompts: of the samples, in their order.

    Raises:
        PromptError: it refuses the prompts, or gives no ids and mask of one row a prompt.
    """
    name = type(processor).__name__
    text: dict[str, Any] = {"padding_side": "left", "padding": True} if len(samples) > 1 else {}
    tensors = {"return_tensors": "pt"}
    # Told to each part: transformers before 5.10 tells none where one has arguments of its own.
    apart = {"images_kwargs": tensors, "text_kwargs": tensors | text}
    if text and processor.tokenizer.pad_token is None:
        raise PromptError(
            f"the tokenizer of {name} has no padding token, so prompts cannot be padded to one length; set it "
            "(processor.tokenizer.pad_token = processor.tokenizer.eos_token), or pad_token in tokenizer_config.json"
        )
    listening = copy.copy(processor)
    pictures = [sample.load_image() for sample in samples]
    problem: Exception | None = None
    # One list of pictures a prompt is the general form; some processors know only one picture a prompt.
    # A processor of a checkpoint's own code may know one set of arguments for all its parts.
    forms = (([[picture] for picture in pictures], apart), (pictures, apart), (pictures, tensors | text))
    for images, options in forms:
        listening.tokenizer = _Listening(processor.tokenizer)
        try:
            encoded = listening(images=images, text=[prompt.text for prompt in prompts], **options)
            inputs = {key: value for key, value in encoded.items() if key not in _NOT_GIVEN}
            _refuse_shapes(name, inputs, len(samples))
            break
        except Exception as error:  # A processor raises what it likes.
            problem = problem or error
    else:
        if isinstance(problem, PromptError):
            raise problem
        raise PromptError(
            f"{name} refuses the prompt {prompts[0].text!r} with its picture ({type(problem).__name__}: "
            f"{first_line(problem)}); {_remedy(problem)}"
        ) from (problem and printable_cause(problem))
    return inputs, listening.tokenizer.heard


def _remedy(problem: Exception | None) -> str:
    if isinstance(problem, ImportError):
        return "install the package that it names"
    if "image dimensions" in str(problem):
        return "its image processor is of another kind of model: use the one of this checkpoint (image_processor_type)"
    if isinstance(problem, (AttributeError, NameError, TypeError)):
        return (
            "processor(images=[...], text=[...], return_tensors='pt') must work: use the processor of this checkpoint"
        )
    return "its chat template must put the processor's image token where the image goes"


def _refuse_shapes(name: str, inputs: Mapping[str, Any], prompts: int) -> None:
    """Assert that ids and mask of the prompts are tensors of one row a prompt."""
    for key in ("input_ids", "attention_mask"):
        value = inputs.get(key)
        if value is None:
            raise PromptError(f"{name} gives no {key}, so it is unknown which tokens its prompts have")
        if not isinstance(value, torch.Tensor) or value.ndim != 2 or len(value) != prompts:
            shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
            raise PromptError(
                f"{name} gives {key} as {type(value).__name__}{shape} where {prompts} prompts need a tensor of shape "
                f"({prompts}, tokens): use the processor of this checkpoint, or let its __call__ keep to return_tensors"
            )


def expected_lengths(processor: Any, samples: Sequence[Sample]) -> list[int]:
    """Tokens of each sample's prompt, but for what all prompts share.

    The instruction's tokens, and where the processor makes more image tokens of larger pictures, those. It only serves
    to put prompts of like length beside each other: an estimate that is off costs padding, never a number.
    """
    instructions = {sample.instruction for sample in samples}
    words = {text: len(processor.tokenizer(text, add_special_tokens=False).input_ids) for text in instructions}
    lengths = [words[sample.instruction] for sample in samples]
    fixed = _image_tokens(processor, [_LIKE, _UNLIKE])
    if fixed is None or fixed[0] == fixed[1]:
        return lengths
    pictured = _image_tokens(processor, [_size(sample) for sample in samples])
    return lengths if pictured is None else [sum(pair) for pair in zip(lengths, pictured, strict=True)]


def _size(sample: Sample) -> Sequence[int]:
    """Height and width of a sample's picture; any where it cannot be had, which is said when it is encoded."""
    try:
        width, height = sample.load_image().size
    except Exception:  # A dataset's own code raises what it likes.
        return _LIKE
    return [height, width]


def _image_tokens(processor: Any, sizes: Sequence[Sequence[int]]) -> list[int] | None:
    """What the processor says of pictures of these sizes, (height, width) each; None where it says nothing."""
    try:
        told = processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
    except Exception:  # No public way leads there: what it lacks or cannot take differs from type to type.
        return None
    return list(told) if len(told) == len(sizes) else None
