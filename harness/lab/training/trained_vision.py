"""The trained parts of the bundled models, with the prompts and caption targets used for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from harness.data.scenes import INSTRUCTION, scene
from harness.models.bundled import scenes_instructblip, scenes_llava
from harness.models.bundled.checkpoint import INSTRUCTBLIP_VISION_FILE, LLAVA_VISION_FILE

IGNORED = -100
_LONGEST = 18  # tokens of the longest canonical caption with its end; a fixed shape needs one compilation only


@dataclass(frozen=True, slots=True)
class TrainedVision:
    """The trained part of a bundled model: the vision tower and the bridge to the language model.

    `module` has the public loader and the prefixes of the tensors in the file `trained`. `configs` names the
    sub-configurations with attention. `ordered` is True if the image tokens keep the order of the patches. `tower` is
    the path of the vision tower; its last hidden state (batch, 1 + 36, width) starts with a class token. `exit` is the
    path of the last layer of the bridge. `embed_image(model, features, prompt)` returns the image embeddings (batch,
    image tokens, d) for the tower's features and the prompt of one sample.
    """

    name: str
    module: ModuleType
    trained: Path
    configs: tuple[str, ...]
    ordered: bool
    tower: str
    exit: str
    embed_image: Callable[[Any, Tensor, Mapping[str, Tensor]], Tensor]

    def bridge(self, model: nn.Module) -> list[nn.Parameter]:
        """Return the parameters between the vision tower and the language model."""
        parts = tuple(part for part in self.module.TRAINED_PARTS if part != f"{self.tower}.")
        return [parameter for name, parameter in model.named_parameters() if name.startswith(parts)]

    def attend_in_float32(self, model: Any) -> None:
        """Use `_float_attention` in every part, because SDPA's backward pass is slow in bfloat16 on a CPU."""
        for name, causal in (("train_full", False), ("train_causal", True)):
            AttentionInterface.register(name, partial(_float_attention, causal=causal))
        model.set_attn_implementation({"text_config": "train_causal"} | dict.fromkeys(self.configs, "train_full"))


def _float_attention(
    module: Any, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any, scaling: float, causal: bool, **_: Any
) -> tuple[Tensor, None]:
    """Return attention outputs (batch, tokens, heads, width) of q (batch, heads, tokens, width).

    Padding is on the right, so the mask is not needed.
    """
    groups = q.shape[1] // k.shape[1]
    wide_k, wide_v = (t.float().repeat_interleave(groups, dim=1) for t in (k, v))
    with torch.autocast("cpu", enabled=False):
        out = scaled_dot_product_attention(q.float(), wide_k, wide_v, is_causal=causal, scale=scaling)
    return out.transpose(1, 2).to(q.dtype).contiguous(), None


def _projected(model: Any, features: Tensor, prompt: Mapping[str, Tensor]) -> Tensor:
    rows: Tensor = model.model.multi_modal_projector(features[:, 1:])
    return rows


def _queried(model: Any, features: Tensor, prompt: Mapping[str, Tensor]) -> Tensor:
    queries = model.query_tokens.expand(len(features), -1, -1)
    ids = prompt["qformer_input_ids"].expand(len(features), -1)
    output = model.qformer(input_ids=ids, query_embeds=queries, encoder_hidden_states=features)
    rows: Tensor = model.language_projection(output.last_hidden_state[:, : queries.shape[1]])
    return rows


TRAINED_VISION: dict[str, TrainedVision] = {
    vision.name: vision
    for vision in (
        TrainedVision(
            name="scenes-llava",
            module=scenes_llava,
            trained=LLAVA_VISION_FILE,
            configs=("vision_config",),
            ordered=True,
            tower="model.vision_tower",
            exit="model.multi_modal_projector.linear_2",
            embed_image=_projected,
        ),
        TrainedVision(
            name="scenes-instructblip",
            module=scenes_instructblip,
            trained=INSTRUCTBLIP_VISION_FILE,
            configs=("vision_config", "qformer_config"),
            ordered=False,
            tower="vision_model",
            exit="language_projection",
            embed_image=_queried,
        ),
    )
}


def chat_prompt(processor: Any) -> str:
    """Return the chat-template prompt of an image and the scenes' instruction."""
    content = [{"type": "image"}, {"type": "text", "text": INSTRUCTION}]
    return str(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))


def prompt_inputs(processor: Any) -> Mapping[str, Tensor]:
    """Return the model inputs of one sample from the processor."""
    inputs: Mapping[str, Tensor] = processor(
        images=scene(0, 0, "train").render(), text=chat_prompt(processor), return_tensors="pt"
    )
    return inputs


def prompt_ids(processor: Any, image_tokens: int) -> tuple[Tensor, Tensor]:
    """Return the prompt's token ids before and after the image tokens.

    Raises:
        RuntimeError: the number of image tokens is not the expected one.
    """
    ids = prompt_inputs(processor)["input_ids"][0]
    positions = (ids == processor.tokenizer.convert_tokens_to_ids(str(processor.image_token))).nonzero().flatten()
    if len(positions) != image_tokens:
        raise RuntimeError(
            f"the processor wrote {len(positions)} image tokens instead of {image_tokens}; "
            "check its patch size and number of queries"
        )
    return ids[: positions[0]], ids[positions[-1] + 1 :]


def caption_targets(processor: Any, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Return right-padded caption ids with the end of turn, and the same ids as targets that ignore the padding."""
    rows = [processor.tokenizer(caption + "<|im_end|>", add_special_tokens=False).input_ids for caption in captions]
    if max(map(len, rows)) > _LONGEST:
        raise ValueError(f"a caption has {max(map(len, rows))} tokens, more than the {_LONGEST} that training pads to")
    ids = torch.full((len(rows), _LONGEST), processor.tokenizer.pad_token_id)
    targets = torch.full_like(ids, IGNORED)
    for k, row in enumerate(rows):
        ids[k, : len(row)] = targets[k, : len(row)] = torch.tensor(row)
    return ids, targets
