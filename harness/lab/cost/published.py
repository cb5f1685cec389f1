"""The paper's models with random weights: the published widths, depths and prompts, without download."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import InstructBlipConfig, LlavaConfig, PreTrainedConfig

DEPTH, VOCABULARY, PATCH = 32, 32_064, 14
# Standard deviations relative to 1 / sqrt(inputs). Wide queries and keys give attention peaks. Narrow outputs prevent
# the tokens of a random tower from becoming equal.
_WIDE, _NARROW = 1.5, 0.3
_ATTENTION_INPUTS = ("q_proj", "k_proj", "query.", "key.", "qkv")
_BLOCK_OUTPUTS = (
    "o_proj",
    "out_proj",
    "down_proj",
    "fc2",
    "self_attn.projection",
    "output.dense",
    "output_query.dense",
)


@dataclass(frozen=True, slots=True)
class Width:
    """The width of a transformer: residual stream, number of heads, and inner width of its feed-forward layers."""

    hidden: int
    heads: int
    inner: int

    def sizes(self) -> dict[str, int]:
        """Return the width as arguments of a configuration."""
        return {"hidden_size": self.hidden, "num_attention_heads": self.heads, "intermediate_size": self.inner}


LLAMA, CLIP_L, EVA_G, BERT = Width(4096, 32, 11_008), Width(1024, 16, 4096), Width(1408, 16, 6144), Width(768, 12, 3072)


@dataclass(frozen=True, slots=True)
class Layout:
    """The tokens of a prompt with the instruction "Describe the image.", without padding.

    BOS comes first, or directly behind the image if no token precedes it.
    """

    before: int
    image: int
    instruction: int
    after: int

    @property
    def tokens(self) -> int:
        """The length of the prompt."""
        return self.before + self.image + (not self.before) + self.instruction + self.after


@dataclass(frozen=True, slots=True)
class Published:
    """A published model: `config(layers=N)` returns its configuration with N decoder layers."""

    config: Callable[..., PreTrainedConfig]
    layout: Layout


def llava_config(width: Width | None = None, layers: int = DEPTH) -> LlavaConfig:
    """Return the configuration of LLaVA-1.5-7B.

    Args:
        width: the width of every part; None selects the published widths.
        layers: the number of decoder layers; with fewer than 32, the tower shrinks in proportion.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            **(width or CLIP_L).sizes(),
            num_hidden_layers=_shrunk(24, layers),
            image_size=336,
            patch_size=PATCH,
            projection_dim=768,
        ),
        text_config=LlamaConfig(
            **(width or LLAMA).sizes(),
            vocab_size=VOCABULARY,
            num_hidden_layers=layers,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
        ),
        image_token_index=32_000,
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        pad_token_id=32_001,
    )


def instructblip_config(width: Width | None = None, layers: int = DEPTH) -> InstructBlipConfig:
    """Return the configuration of InstructBLIP-Vicuna-7B; the arguments are those of `llava_config`."""
    from transformers import InstructBlipConfig, InstructBlipQFormerConfig, InstructBlipVisionConfig, LlamaConfig

    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            **(width or EVA_G).sizes(), num_hidden_layers=_shrunk(39, layers), image_size=224, patch_size=PATCH
        ),
        qformer_config=InstructBlipQFormerConfig(
            **(width or BERT).sizes(),
            num_hidden_layers=_shrunk(12, layers),
            cross_attention_frequency=2,
            vocab_size=30_523,
        ),
        text_config=LlamaConfig(
            **(width or LLAMA).sizes(),
            vocab_size=VOCABULARY,
            num_hidden_layers=layers,
            rms_norm_eps=1e-6,
            # The published ids. They differ from the tokenizer's, whose BOS and EOS are both 2.
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=32_000,
        ),
        num_query_tokens=32,
        image_token_index=32_001,
    )


#: By the label of their cells. The layouts are those of the published tokenizers and templates.
PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "drawn LLaVA-1.5-7B": Published(llava_config, Layout(before=5, image=576, instruction=6, after=5)),
        "drawn InstructBLIP-Vicuna-7B": Published(
            instructblip_config, Layout(before=0, image=32, instruction=5, after=0)
        ),
    }
)


def random_model(
    config: PreTrainedConfig, seed: int = 0, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Any:
    """Return a model with weights drawn on its device: states of order one, attention with peaks, distinct queries.

    The weights are created in `dtype`, each once, so that a model needs no more memory than its weights.
    """
    from transformers import AutoModelForImageTextToText
    from transformers.initialization import no_init_weights

    with torch.device(device), no_init_weights():
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    generator = torch.Generator(device).manual_seed(seed)
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                norm = "norm" in name.lower() and name.endswith("weight")
                parameter.normal_(1.0 if norm else 0.0, 0.1, generator=generator)
            elif id(parameter) in embeddings or name.endswith(("query_tokens", "embedding")):
                parameter.normal_(0.0, 1.0, generator=generator)
            else:
                spread = _WIDE if any(part in name for part in _ATTENTION_INPUTS) else 1.0
                spread = _NARROW if any(part in name for part in _BLOCK_OUTPUTS) else spread
                parameter.normal_(0.0, spread * parameter[0].numel() ** -0.5, generator=generator)
    return model.eval().requires_grad_(False)


def _shrunk(depth: int, layers: int) -> int:
    """Return the depth of a part beside `layers` decoder layers: at least two, as LLaVA reads the last but one."""
    return max(2, round(depth * min(1.0, layers / DEPTH)))
