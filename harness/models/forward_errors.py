"""Errors of a model's own forward pass as one sentence: where it failed, the likely cause, and the remedy."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import transformers

from harness.errors import PhaseError, first_line
from harness.models.prompts.hashes import IMAGE_DIMENSIONS
from harness.models.vlm import Vlm, count_image_features

_HARNESS = Path(__file__).parents[1]
_HELPERS = {Path(torch.__file__).parent, Path(transformers.__file__).parent / "utils"}
_NAMED = 3
#: Settings that a processor and a model both have, and that decide how many image tokens a picture has.
_SHARED = ("patch_size", "vision_feature_select_strategy", "image_seq_length")
_SETTINGS = "patch_size, vision_feature_select_strategy, num_additional_image_tokens and the size of its pictures"


class ForwardError(PhaseError):
    """A model's own forward pass failed; the message names the error, the place, the cause and the remedy."""


_OTHER_FORM = (
    "the image processor gives pictures in another form than the vision tower takes: use the image processor of this "
    "checkpoint (image_processor_type in processor_config.json or preprocessor_config.json)"
)
#: Advice by the words of an error, the first that match; torch and transformers have one error type for many causes.
_BY_WORDS: tuple[tuple[str, str], ...] = (
    (
        r"unexpected keyword argument|missing \d+ required",
        "processor and model do not know the same inputs: load the processor of this checkpoint, or give forward the "
        "argument (a **kwargs is enough)",
    ),
    (
        r"dynamo|torch\.compile",
        "torch.compile cannot follow a pass that is observed: measure the model inside (its attribute _orig_mod), or "
        "compile without fullgraph",
    ),
    (
        r"meta (tensor|device)|device meta",
        "some weights lie on the meta device, where they have no numbers: load the model with from_pretrained (with "
        "device_map where it outgrows the memory), not under a default device or context of 'meta'",
    ),
    (
        r"inference tensor",
        "the model leaves torch.inference_mode in its pass, or was loaded under it: load it outside of it, and freeze "
        "it with model.requires_grad_(False)",
    ),
    (r"flash[_ ]?att", "load the model with attn_implementation='sdpa'"),
    (
        r"No module named|ImportError|Triton is not|not compiled with|no kernel image",
        "a package is missing or was built for another machine: install the one that the error names (of torch, the "
        "build for this GPU), or measure with --phase-device cpu",
    ),
    (
        r"same dtype|dtype.* (do not|don't|to be) |should be the same|expected scalar type|ScalarType|Half|BFloat16",
        "the parts of the model compute in different types: convert it whole (model.to(torch.float32)) or load it with "
        "--phase-dtype",
    ),
    (
        r"same device|on cpu or on the same|different devices",
        "the parts of the model lie on different devices: move it whole (model.to(device)) or load it with device_map",
    ),
    # Four are batch, channels, height and width.
    (r"has no attribute 'patch_size'|values to unpack \(expected 4", _OTHER_FORM),
    (
        r"index out of range|out of bounds|device-side assert|indices should be",
        "an id or a position lies beyond a table of the model: use the processor of this checkpoint, and check the "
        "tokens that were added to its tokenizer",
    ),
    (
        r"CU(BLAS|DNN)_STATUS_(ALLOC|NOT_INIT)",
        "the GPU has no memory left for its libraries: free it, or measure with --phase-batch-size 1",
    ),
    (
        r"CUDA error|CUDNN|CUBLAS",
        "the GPU's own code failed, and CUDA reports that late: the environment variable CUDA_LAUNCH_BLOCKING=1 shows "
        "the true place, and --phase-device cpu the error in words",
    ),
)
_OTHERWISE = (
    "the harness changes no state of the model, so model(**processor(images=..., text=...)) should fail alike: mend "
    "the model's code, or use the release of transformers that it was written for"
)


def refuse_autocast(name: str, device: str) -> None:
    """Refuse a forward pass under autocast, which rounds states and readings by a rule of its own.

    Args:
        name: the model, for the message.
        device: the type of the device, as in `torch.device.type`.

    Raises:
        ForwardError: autocast is on.
    """
    if torch.is_autocast_enabled(device):
        raise ForwardError(
            f"{name}: its forward pass runs under torch.autocast, which rounds states and readings to "
            f"{str(torch.get_autocast_dtype(device)).removeprefix('torch.')}: leave torch.autocast (of a model that "
            "accelerate has prepared: accelerator.unwrap_model(model, keep_fp32_wrapper=False)), and load the model in "
            "the type that you want (--phase-dtype, or model.to(torch.bfloat16))"
        )


def explain_error(
    error: Exception, vlm: Vlm, inputs: Mapping[str, Any], image: torch.Tensor, sample_ids: Sequence[str]
) -> ForwardError | None:
    """Return the error of a forward pass as one sentence, or None for an error of the harness's own code.

    Args:
        error: as raised in the pass.
        vlm: the model.
        inputs: model inputs of the batch, on the CPU.
        image: image positions, bool (batch, tokens).
        sample_ids: names of the rows.
    """
    text = f"{type(error).__name__}: {error}"
    words = next((advice for words, advice in _BY_WORDS if re.search(words, text, re.IGNORECASE)), "")
    frames = _frames(error)[1:]
    innermost = {*Path(frames[-1][0].f_code.co_filename).parents} if frames else set()
    # Models of tests are defined beside the tests.
    if _HARNESS in innermost and _HARNESS / "tests" not in innermost and not words:
        return None
    more = f" and {len(sample_ids) - _NAMED} more" if len(sample_ids) > _NAMED else ""
    event = (
        f"the model's forward pass of sample {', '.join(sample_ids[:_NAMED])}{more} raised {type(error).__name__}: "
        f"{first_line(error).rstrip('.')} ({_place(vlm.model, error)})"
    )
    # Pictures of another form have sizes that say nothing.
    counts = "" if words == _OTHER_FORM else _picture_size(vlm, inputs) or _image_tokens(vlm, inputs, image)
    cause = _sparse_weight(vlm) or counts or words
    return ForwardError(f"{vlm.name}: {cause}; {event}" if cause else f"{vlm.name}: {event}; {_OTHERWISE}")


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """Return the frames of an error with their lines, outermost first, without those of the libraries' helpers."""
    frames = traceback.walk_tb(error.__traceback__)
    return [(frame, line) for frame, line in frames if not _HELPERS & {*Path(frame.f_code.co_filename).parents}]


def _sparse_weight(vlm: Vlm) -> str:
    """Name the first weight that is stored sparse, which a pass under inference mode does not take."""
    name = next((name for name, weight in vlm.model.named_parameters() if weight.layout is not torch.strided), "")
    return name and (
        f"{name} is stored sparse, which torch.inference_mode does not take: make it dense (module.weight = "
        "torch.nn.Parameter(module.weight.to_dense()))"
    )


def _picture_size(vlm: Vlm, inputs: Mapping[str, Any]) -> str:
    """Name both sizes where pictures are not as large as the vision tower's configuration says."""
    pixels = inputs.get("pixel_values")
    config = getattr(vlm.model.config, "vision_config", None)
    size = getattr(config, "image_size", None)
    if not isinstance(pixels, torch.Tensor) or pixels.ndim < IMAGE_DIMENSIONS or not isinstance(size, int):
        return ""
    height, width = pixels.shape[-2:]
    if (height, width) == (size, size):
        return ""
    return (
        f"the processor makes pictures of {height} x {width} pixels and the vision tower is configured for {size} x "
        f"{size}: set size and crop_size of the image processor (preprocessor_config.json) to {size}, or use the "
        "processor of this checkpoint"
    )


def _image_tokens(vlm: Vlm, inputs: Mapping[str, Any], image: torch.Tensor) -> str:
    """Name both numbers where the prompts hold other image tokens than the model makes features."""
    tokens, pictures = int(image.sum()), len(image)
    try:
        features = count_image_features(vlm.model, vlm.to_device(inputs))
    except Exception:  # The features may be what fails.
        return ""
    if features is None or features == tokens:
        return ""
    return (
        f"the processor writes {tokens // pictures} image tokens for a picture and the model makes "
        f"{features // pictures} features of it: {_disagreement(vlm)}"
    )


def _disagreement(vlm: Vlm) -> str:
    config = vlm.model.config
    known, written = vlm.anatomy.image_token_id, getattr(vlm.processor, "image_token_id", None)
    if written is not None and known >= 0 and written != known:
        return f"the processor's image_token_id is {written} and the model's is {known}; set them to the same value"
    parts = (config, getattr(config, "vision_config", None))
    for name in _SHARED:
        ours = getattr(vlm.processor, name, None)
        theirs = next((value for part in parts if (value := getattr(part, name, None)) is not None), None)
        if ours is not None and theirs is not None and ours != theirs:
            return f"the processor's {name} is {ours!r} and the model's is {theirs!r}; set them to the same value"
    return (
        f"set the processor's {_SETTINGS} (processor_config.json) to those of the model, or use the processor of this "
        "checkpoint"
    )


def _place(model: Any, error: Exception) -> str:
    """Return the deepest module of the model that was running, and the innermost line of code."""
    names = {id(module): name for name, module in model.named_modules()}
    owners = (names.get(id(frame.f_locals.get("self"))) for frame, _ in traceback.walk_tb(error.__traceback__))
    running = [name for name in owners if name]
    frame, line = _frames(error)[-1]
    file = f"{Path(frame.f_code.co_filename).name}, line {line}"
    return f"in {running[-1]}, {file}" if running else file
