"""`scenes-instructblip`: an InstructBLIP that combines SmolLM2-135M-Instruct with vision parts trained on scenes.

The architecture, the processor and every line that runs at inference are transformers' own; vision tower, Q-Former,
queries and projection are this project's weights. Declared choices: 16 queries precede the prompt's first token,
as InstructBLIP has them; the prompt has no system message; the Q-Former reads the instruction without role
markers, with a separate vocabulary; padding is on the left with `<|endoftext|>`.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.data.scenes import INSTRUCTION
from harness.models.bundled import checkpoint
from harness.models.bundled.language import language_config
from harness.models.prompts.chat_templates import SCENES_INSTRUCTBLIP

if TYPE_CHECKING:
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, InstructBlipProcessor

IMAGE_TOKENS = 16
TRAINED_PARTS = ("vision_model.", "query_tokens", "qformer.", "language_projection.")
_LONGEST = 128  # tokens of an instruction in the Q-Former
_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_ROLE_MARKERS = r"<\|im_(start|end)\|>(user|assistant|system)?\n?"


def load(
    cache: Path,
    dtype: torch.dtype = torch.float32,
    *,
    trained: Path | None = checkpoint.INSTRUCTBLIP_VISION_FILE,
    seed: int = 0,
) -> tuple[InstructBlipForConditionalGeneration, InstructBlipProcessor]:
    """Return the model, in evaluation mode with all parameters frozen and SDPA attention, and its processor.

    The language model comes from `cache`, the other parts from the file `trained`. With `trained=None` they are drawn
    at random from `seed`, for controls and as the start of training. Two loads give identical tensors. Raises
    WeightsError.
    """
    config = model_config()
    vision = untrained_vision(config, seed) if trained is None else checkpoint.read_trained(trained)
    model = checkpoint.assemble(
        "InstructBlipForConditionalGeneration", config, cache, dtype, vision, "language_model.model."
    )
    return model, processor(cache)


def processor(cache: Path) -> InstructBlipProcessor:
    """Return the processor: images to 96x96 in [-1, 1], text by SmolLM2's tokenizer and by the Q-Former's own."""
    from transformers import InstructBlipProcessor

    image_processor = checkpoint.pillow_processor("BlipImageProcessor")(**checkpoint.IMAGE_OPTIONS)
    result: InstructBlipProcessor = InstructBlipProcessor(
        image_processor, checkpoint.padded_tokenizer(cache), instruction_tokenizer(), num_query_tokens=IMAGE_TOKENS
    )
    result.chat_template = SCENES_INSTRUCTBLIP
    return result


def instruction_tokenizer() -> Any:
    """Return the Q-Former's tokenizer: the words of the training instruction, and letters for all other words."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import Lowercase, Replace, Sequence
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    characters = string.ascii_lowercase + string.digits
    pieces = [*_SPECIAL.values(), *string.punctuation, *characters, *(f"##{character}" for character in characters)]
    pieces += [word for word in INSTRUCTION.lower().strip(".").split() if word not in pieces]
    inner = Tokenizer(WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token=_SPECIAL["unk_token"]))
    inner.normalizer = Sequence([Replace(Regex(_ROLE_MARKERS), ""), Lowercase()])
    inner.pre_tokenizer = BertPreTokenizer()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, pieces.index(name)) for name in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="right", model_max_length=_LONGEST, **_SPECIAL)


def model_config() -> InstructBlipConfig:
    """Return the configuration: tower of 4 layers of width 192, Q-Former of 3 layers and 16 queries, SmolLM2."""
    from transformers import InstructBlipConfig, InstructBlipQFormerConfig, InstructBlipVisionConfig

    vision = InstructBlipVisionConfig(**checkpoint.TOWER, initializer_range=0.02)
    qformer = InstructBlipQFormerConfig(
        vocab_size=len(instruction_tokenizer()),
        hidden_size=192,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=576,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=_LONGEST,
        pad_token_id=0,
    )
    text = language_config()
    image_token_id = text.vocab_size
    # The processor appends its image token to the vocabulary, as in every InstructBLIP checkpoint.
    text.vocab_size += 1
    # No attention is requested: every part uses sdpa if it can. The Q-Former of older releases cannot.
    config: InstructBlipConfig = InstructBlipConfig(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=IMAGE_TOKENS,
        image_token_index=image_token_id,
        tie_word_embeddings=True,
        pad_token_id=checkpoint.PAD_TOKEN_ID,
    )
    return config


def untrained_vision(config: InstructBlipConfig, seed: int) -> dict[str, torch.Tensor]:
    """Return tower, queries, Q-Former and projection, drawn from `seed` without changing the global generator.

    They follow the initialisation of transformers, except the queries: it would set them to zero, and equal queries
    would stay equal in training.
    """
    from transformers import InstructBlipQFormerModel, InstructBlipVisionModel

    width = config.qformer_config.hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower, qformer = InstructBlipVisionModel(config.vision_config), InstructBlipQFormerModel(config.qformer_config)
        projection = torch.nn.Linear(width, config.text_config.hidden_size)
        queries = 0.02 * torch.randn(1, config.num_query_tokens, width)
    parts = {"vision_model.": tower, "qformer.": qformer, "language_projection.": projection}
    vision = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.state_dict().items()}
    return vision | {"query_tokens": queries}
