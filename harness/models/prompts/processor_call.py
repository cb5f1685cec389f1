"""Calls of a processor: its tensors, the texts that its tokenizer receives, and expected prompt lengths."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.data.sample import Sample
from harness.errors import first_line
from harness.models.library_messages import printable_cause
from harness.models.prompts.chat import Prompt, PromptError

# Outputs of a processor for training; with labels, a model would compute a loss.
_TRAINING_OUTPUTS = ("labels", "offset_mapping")
# Two sizes (height, width) with equal numbers of image tokens only for a processor with a fixed resolution.
_SQUARE, _WIDE = [448, 448], [224, 1344]


class _RecordingTokenizer:
    """A tokenizer that records the texts it receives and their encodings.

    The texts are the prompts as expanded by the processor. The character offsets of tokens refer to these texts, which
    no processor returns.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.received: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        texts = [text] if isinstance(text, str) else list(text or ())
        bos = self._tokenizer.bos_token
        if bos is not None and texts and all(isinstance(item, str) and item.startswith(bos) for item in texts):
            # Like apply_chat_template: the template has already written the special tokens.
            kwargs["add_special_tokens"] = False
        encoded = self._tokenizer(text, *args, **kwargs)
        if texts:
            self.received += zip(texts, encoded.encodings or [None] * len(texts), strict=True)
        return encoded


def call_processor(
    processor: Any, samples: Sequence[Sample], prompts: Sequence[Prompt]
) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Return the processor's tensors, and each text that its tokenizer received with its encoding.

    Args:
        processor: the processor, which pads on the left.
        samples: samples of one image each.
        prompts: the prompts of the samples, in the same order.

    Raises:
        PromptError: the processor rejects the prompts, or does not return ids and mask with one row per prompt.
    """
    name = type(processor).__name__
    text: dict[str, Any] = {"padding_side": "left", "padding": True} if len(samples) > 1 else {}
    tensors = {"return_tensors": "pt"}
    # Passed to each part: transformers before 5.10 ignores common arguments if one part has its own.
    separate = {"images_kwargs": tensors, "text_kwargs": tensors | text}
    if text and processor.tokenizer.pad_token is None:
        raise PromptError(
            f"the tokenizer of {name} has no padding token, so prompts cannot be padded to one length; set it "
            "(processor.tokenizer.pad_token = processor.tokenizer.eos_token), or pad_token in tokenizer_config.json"
        )
    recorder = copy.copy(processor)
    images = [sample.load_image() for sample in samples]
    problem: Exception | None = None
    # A list of images per prompt is the general form; some processors accept only one image per prompt.
    # A processor from a checkpoint's own code may accept only one set of arguments for all its parts.
    forms = (([[image] for image in images], separate), (images, separate), (images, tensors | text))
    for image_argument, options in forms:
        recorder.tokenizer = _RecordingTokenizer(processor.tokenizer)
        try:
            encoded = recorder(images=image_argument, text=[prompt.text for prompt in prompts], **options)
            inputs = {key: value for key, value in encoded.items() if key not in _TRAINING_OUTPUTS}
            _refuse_shapes(name, inputs, len(samples))
            break
        except Exception as error:  # A processor may raise any type.
            problem = problem or error
    else:
        if isinstance(problem, PromptError):
            raise problem
        raise PromptError(
            f"{name} rejects the prompt {prompts[0].text!r} with its image ({type(problem).__name__}: "
            f"{first_line(problem)}); {_remedy(problem)}"
        ) from (problem and printable_cause(problem))
    return inputs, recorder.tokenizer.received


def _remedy(problem: Exception | None) -> str:
    if isinstance(problem, ImportError):
        return "install the package that it names"
    if "image dimensions" in str(problem):
        return "its image processor belongs to another model type: use that of this checkpoint (image_processor_type)"
    if isinstance(problem, (AttributeError, NameError, TypeError)):
        return (
            "processor(images=[...], text=[...], return_tensors='pt') must work: use the processor of this checkpoint"
        )
    return "its chat template must write the processor's image token at the position of the image"


def _refuse_shapes(name: str, inputs: Mapping[str, Any], prompts: int) -> None:
    """Raise unless ids and mask of the prompts are tensors with one row per prompt."""
    for key in ("input_ids", "attention_mask"):
        value = inputs.get(key)
        if value is None:
            raise PromptError(f"{name} returns no {key}, so the tokens of its prompts are unknown")
        if not isinstance(value, torch.Tensor) or value.ndim != 2 or len(value) != prompts:
            shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
            raise PromptError(
                f"{name} returns {key} as {type(value).__name__}{shape}, but {prompts} prompts need a tensor of shape "
                f"({prompts}, tokens): use the processor of this checkpoint, or let its __call__ respect return_tensors"
            )


def expected_lengths(processor: Any, samples: Sequence[Sample]) -> list[int]:
    """Return the expected number of tokens of each sample's prompt, without the tokens that all prompts share.

    It counts the instruction's tokens, and the image tokens if their number depends on the image size. It is only used
    to batch prompts of similar length: a wrong estimate costs padding and changes no reading.
    """
    instructions = {sample.instruction for sample in samples}
    instruction_lengths = {
        text: len(processor.tokenizer(text, add_special_tokens=False).input_ids) for text in instructions
    }
    lengths = [instruction_lengths[sample.instruction] for sample in samples]
    fixed = _image_tokens(processor, [_SQUARE, _WIDE])
    if fixed is None or fixed[0] == fixed[1]:
        return lengths
    image_lengths = _image_tokens(processor, [_size(sample) for sample in samples])
    return lengths if image_lengths is None else [sum(pair) for pair in zip(lengths, image_lengths, strict=True)]


def even_groups(processor: Any, samples: Sequence[Sample]) -> list[list[int]]:
    """Group sample indices by instruction and expected prompt length, in order of first appearance.

    Prompts of a group need no padding. The instruction matters because a second text encoder, such as a Q-Former's, has
    its own tokens of it.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for index, (sample, length) in enumerate(zip(samples, expected_lengths(processor, samples), strict=True)):
        groups.setdefault((sample.instruction, length), []).append(index)
    return list(groups.values())


def _size(sample: Sample) -> Sequence[int]:
    """Return the height and width of a sample's image, or a default if loading fails; `encode` reports the error."""
    try:
        width, height = sample.load_image().size
    except Exception:  # A dataset's code may raise any type.
        return _SQUARE
    return [height, width]


def _image_tokens(processor: Any, sizes: Sequence[Sequence[int]]) -> list[int] | None:
    """Return the numbers of image tokens for sizes (height, width), or None if the processor does not know."""
    try:
        counts = processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
    except Exception:  # A private method, whose existence and errors differ between types.
        return None
    return list(counts) if len(counts) == len(sizes) else None
