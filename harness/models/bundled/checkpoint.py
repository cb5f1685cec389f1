"""Common parts of the bundled models: configuration, assembly from trained and frozen weights, and the tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from harness.models.bundled.language import language_state, language_tokenizer
from harness.models.weights_error import WeightsError

PAD_TOKEN, PAD_TOKEN_ID = "<|endoftext|>", 0
IMAGE_SIDE, PATCH = 96, 16
#: Arguments of both image processors: images to 96x96 in [-1, 1].
IMAGE_OPTIONS = {"size": {"height": IMAGE_SIDE, "width": IMAGE_SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
PATCHES = (IMAGE_SIDE // PATCH) ** 2
#: The configuration of both vision towers.
TOWER: Mapping[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "image_size": IMAGE_SIDE,
    "patch_size": PATCH,
}
#: The trained weights that come with this package, and their hashes.
LLAVA_VISION_FILE, INSTRUCTBLIP_VISION_FILE = (
    Path(__file__).parent / name / "trained.safetensors" for name in ("scenes-llava", "scenes-instructblip")
)
BUNDLED_SHA256 = {
    LLAVA_VISION_FILE: "4ad40a3c182ead30dace56197231eed6582a8f6495082ab15f07aac7957f5b6c",
    INSTRUCTBLIP_VISION_FILE: "717ba64ee7eda337bf6e1aa3f450a54e115ef773cfc598c8edfb3ee4290442e0",
}


def assemble(
    model_class: str, config: Any, cache: Path, dtype: torch.dtype, vision: Mapping[str, torch.Tensor], language: str
) -> Any:
    """Return the model of `config` with the tensors `vision` and the cached language model, frozen, in eval mode.

    If the configuration's vocabulary exceeds the language model's, the additional rows are the mean embedding: no input
    uses them, and their logit is the mean logit.

    Args:
        model_class: the name of its class in transformers.
        config: its configuration.
        cache: the directory with the language model.
        dtype: the dtype of all tensors.
        vision: the other tensors by name.
        language: the prefix of the language model's tensors ("layers.0....") in the model.

    Raises:
        WeightsError: the language model is unavailable.
    """
    import transformers
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = getattr(transformers, model_class)(config)
    state = {name.replace("model.", language, 1): tensor for name, tensor in language_state(cache, dtype).items()}
    embeddings = state[f"{language}embed_tokens.weight"]
    missing = config.get_text_config(decoder=True).vocab_size - len(embeddings)
    if missing:
        mean = embeddings.float().mean(0, keepdim=True).to(dtype)
        embeddings = torch.cat([embeddings, mean.expand(missing, -1)])
        state[f"{language}embed_tokens.weight"] = embeddings
    model_names = {flat_name(name): name for name in model.state_dict()}
    vision = {model_names.get(flat_name(name), name): tensor for name, tensor in vision.items()}
    head = next(name for name in model.state_dict() if name.endswith("lm_head.weight"))
    state |= {name: tensor.to(dtype) for name, tensor in vision.items()} | {head: embeddings}
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=PAD_TOKEN_ID)
    return model.requires_grad_(False).eval()


def flat_name(name: str) -> str:
    """Return a tensor's name without the level `vision_model`, which transformers up to 5.5 adds for CLIP."""
    return name.replace(".vision_model.", ".")


def read_trained(path: Path) -> dict[str, torch.Tensor]:
    """Return the trained tensors by their names in the model.

    Raises:
        WeightsError: the file is missing or damaged, or a bundled file does not have its published SHA-256.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        measured = hashlib.sha256(content).hexdigest()
        expected = BUNDLED_SHA256.get(path, measured)
        if measured != expected:
            raise WeightsError(
                f"the trained weights {path} have SHA-256 {measured} instead of {expected}: they do not belong to "
                "this release, so install the package again, or restore the file from the repository"
            )
        return load(content)
    except (OSError, SafetensorError) as error:
        remedy = "restore it from the repository or train it with python -m harness.lab.training.train"
        raise WeightsError(f"the trained weights {path} cannot be read ({error}): {remedy}") from error


def padded_tokenizer(cache: Path) -> Any:
    """Return the language model's tokenizer, with its own padding token on the left."""
    tokenizer = language_tokenizer(cache)
    tokenizer.pad_token = PAD_TOKEN
    tokenizer.padding_side = "left"
    return tokenizer


def pillow_processor(name: str) -> Any:
    """Return the variant of the image processor class `name` that resizes with Pillow, independent of torchvision.

    Since transformers 5.4 this variant has a separate name; before, it is the class `name` itself.
    """
    import transformers

    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
