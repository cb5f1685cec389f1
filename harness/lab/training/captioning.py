"""What the caption loss is made of: the prompt's token ids on both sides of the image, and caption ids as targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from harness.data.scenes import INSTRUCTION, scene

IGNORED = -100
_LONGEST = 18  # tokens of the longest canonical caption with its end; one shape for all steps, compiled once


def chat_prompt(processor: Any) -> str:
    """The prompt of a picture and the scenes' instruction, as the processor's chat template words it."""
    content = [{"type": "image"}, {"type": "text", "text": INSTRUCTION}]
    return str(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))


def prompt_inputs(processor: Any) -> Mapping[str, torch.Tensor]:
    """The model inputs of one sample, as the processor writes them."""
    inputs: Mapping[str, torch.Tensor] = processor(
        images=scene(0, 0, "train").picture(), text=chat_prompt(processor), return_tensors="pt"
    )
    return inputs


def prompt_ids(processor: Any, image_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The prompt's token ids before and after the image tokens, as the processor writes them.

    Raises:
        RuntimeError: there are not as many image tokens as expected.
    """
    ids = prompt_inputs(processor)["input_ids"][0]
    at = (ids == processor.tokenizer.convert_tokens_to_ids(str(processor.image_token))).nonzero().flatten()
    if len(at) != image_tokens:
        raise RuntimeError(
            f"the processor wrote {len(at)} image tokens instead of {image_tokens}: check its patch size and queries"
        )
    return ids[: at[0]], ids[at[-1] + 1 :]


def caption_targets(processor: Any, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Caption ids with the end of turn, padded on the right, and the same as targets with the padding ignored."""
    rows = [processor.tokenizer(caption + "<|im_end|>", add_special_tokens=False).input_ids for caption in captions]
    if max(map(len, rows)) > _LONGEST:
        raise ValueError(f"a caption has {max(map(len, rows))} tokens, more than the {_LONGEST} that training pads to")
    ids = torch.full((len(rows), _LONGEST), processor.tokenizer.pad_token_id)
    targets = torch.full_like(ids, IGNORED)
    for k, row in enumerate(rows):
        ids[k, : len(row)] = targets[k, : len(row)] = torch.tensor(row)
    return ids, targets
