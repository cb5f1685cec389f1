"""Explanations of errors in a model's forward pass: where it failed, the likely cause and the remedy."""

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
from harness.interface import expand_options, option_text
from harness.models.prompts.hashes import IMAGE_DIMENSIONS
from harness.models.vlm import Vlm, count_image_features

_HARNESS = Path(__file__).parents[1]
_HELPERS = {Path(torch.__file__).parent, Path(transformers.__file__).parent / "utils"}
_MAX_NAMED_SAMPLES = 3
#: Settings of both processor and model that determine the number of image tokens per image.
_SHARED = ("patch_size", "vision_feature_select_strategy", "image_seq_length")
_SETTINGS = "patch_size, vision_feature_select_strategy, num_additional_image_tokens and the size of its images"


class ForwardError(PhaseError):
    """A model's forward pass failed; the message names the error, its location, the likely cause and the remedy."""


_OTHER_FORM = (
    "the image processor returns images in another form than the vision tower expects: use the image processor of this "
    "checkpoint (image_processor_type in processor_config.json or preprocessor_config.json)"
)
#: Pairs of (pattern of an error text, advice with options as of `interface.expand_options`); the first match counts.
#: Types do not help: torch and transformers use one error type for many causes.
_ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"unexpected keyword argument|missing \d+ required",
        "processor and model expect different inputs: load the processor of this checkpoint, or add the argument to "
        "forward (**kwargs is enough)",
    ),
    (
        r"dynamo|torch\.compile",
        "torch.compile cannot trace a pass with hooks: measure the model inside (its attribute _orig_mod), or "
        "compile without fullgraph",
    ),
    (
        r"meta (tensor|device)|device meta",
        "some weights are on the meta device and have no values: load the model with from_pretrained (with "
        "device_map if it exceeds the memory), not under a default device or context of 'meta'",
    ),
    (
        r"inference tensor",
        "the model leaves torch.inference_mode in its pass, or was loaded inside it: load it outside, and freeze it "
        "with model.requires_grad_(False)",
    ),
    (r"flash[_ ]?att", "load the model with attn_implementation='sdpa'"),
    (
        r"No module named|ImportError|Triton is not|not compiled with|no kernel image",
        "a package is missing or was built for another machine: install the package that the error names (for torch, "
        "the build for this GPU), or measure with [[device cpu]]",
    ),
    (
        r"same dtype|dtype.* (do not|don't|to be) |should be the same|expected scalar type|ScalarType|Half|BFloat16",
        "the parts of the model compute in different dtypes: convert the whole model (model.to(torch.float32)) or load "
        "it with [[dtype]]",
    ),
    (
        r"same device|on cpu or on the same|different devices",
        "the parts of the model are on different devices: move the whole model (model.to(device)) or load it with "
        "device_map",
    ),
    # The four values are batch, channels, height and width.
    (r"has no attribute 'patch_size'|values to unpack \(expected 4", _OTHER_FORM),
    (
        r"index out of range|out of bounds|device-side assert|indices should be",
        "an id or a position is outside a table of the model: use the processor of this checkpoint, and check the "
        "tokens that were added to its tokenizer",
    ),
    (
        r"CU(BLAS|DNN)_STATUS_(ALLOC|NOT_INIT)",
        "the GPU has no memory left for its libraries: free some of it, or measure with [[batch_size 1]]",
    ),
    (
        r"CUDA error|CUDNN|CUBLAS",
        "a GPU kernel failed, and CUDA reports that late: the environment variable CUDA_LAUNCH_BLOCKING=1 shows "
        "the true location, and [[device cpu]] shows the error text",
    ),
)
_DEFAULT_ADVICE = (
    "the harness changes no state of the model, so model(**processor(images=..., text=...)) should fail too: fix the "
    "model's code, or use the release of transformers that it was written for"
)


def refuse_autocast(name: str, device: str) -> None:
    """Raise `ForwardError` under autocast, which rounds states and readings by its own rules.

    Args:
        name: the model, for the message.
        device: the type of the device, as in `torch.device.type`.

    Raises:
        ForwardError: autocast is on.
    """
    if torch.is_autocast_enabled(device):
        raise ForwardError(
            f"{name}: its forward pass runs under torch.autocast, which rounds states and readings to "
            f"{str(torch.get_autocast_dtype(device)).removeprefix('torch.')}: leave torch.autocast (for a model that "
            "accelerate prepared: accelerator.unwrap_model(model, keep_fp32_wrapper=False)), and load the model in "
            f"the dtype that you want ({option_text('dtype')}, or model.to(torch.bfloat16))"
        )


def explain_error(
    error: Exception, vlm: Vlm, inputs: Mapping[str, Any], image: torch.Tensor, sample_ids: Sequence[str]
) -> ForwardError | None:
    """Return a `ForwardError` that explains an error of a forward pass, or None if the harness itself raised it.

    Args:
        error: the exception that the pass raised.
        vlm: the model.
        inputs: the model inputs of the batch, on the CPU.
        image: the mask of image positions, bool (batch, tokens).
        sample_ids: the sample id of each row.
    """
    text = f"{type(error).__name__}: {error}"
    advice = next((advice for pattern, advice in _ADVICE if re.search(pattern, text, re.IGNORECASE)), "")
    sparse = _sparse_weight(vlm)
    frames = _frames(error)[1:]
    innermost = {*Path(frames[-1][0].f_code.co_filename).parents} if frames else set()
    # The tests define models of their own.
    if _HARNESS in innermost and _HARNESS / "tests" not in innermost and not advice and not sparse:
        return None
    unnamed = len(sample_ids) - _MAX_NAMED_SAMPLES
    samples = ", ".join(sample_ids[:_MAX_NAMED_SAMPLES]) + (f" and {unnamed} more" if unnamed > 0 else "")
    event = (
        f"the model's forward pass of sample {samples} raised {type(error).__name__}: "
        f"{first_line(error).rstrip('.')} ({_location(vlm.model, error)})"
    )
    # Sizes are meaningless for images in another form.
    counts = "" if advice == _OTHER_FORM else _image_size(vlm, inputs) or _image_tokens(vlm, inputs, image)
    cause = sparse or counts or expand_options(advice)
    return ForwardError(f"{vlm.name}: {cause}; {event}" if cause else f"{vlm.name}: {event}; {_DEFAULT_ADVICE}")


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """Return (frame, line) pairs of an error, outermost first, without the helpers of torch and transformers."""
    frames = traceback.walk_tb(error.__traceback__)
    return [(frame, line) for frame, line in frames if not _HELPERS & {*Path(frame.f_code.co_filename).parents}]


def _sparse_weight(vlm: Vlm) -> str:
    """Return an explanation that names the first sparse weight, which inference mode does not support, or ""."""
    name = next((name for name, weight in vlm.model.named_parameters() if weight.layout is not torch.strided), "")
    return name and (
        f"{name} is stored sparse, which torch.inference_mode does not support: make it dense (module.weight = "
        "torch.nn.Parameter(module.weight.to_dense()))"
    )


def _image_size(vlm: Vlm, inputs: Mapping[str, Any]) -> str:
    """Return an explanation if the images differ in size from the vision tower's configuration, or ""."""
    pixels = inputs.get("pixel_values")
    config = getattr(vlm.model.config, "vision_config", None)
    size = getattr(config, "image_size", None)
    if not isinstance(pixels, torch.Tensor) or pixels.ndim < IMAGE_DIMENSIONS or not isinstance(size, int):
        return ""
    height, width = pixels.shape[-2:]
    if (height, width) == (size, size):
        return ""
    return (
        f"the processor makes images of {height} x {width} pixels and the vision tower is configured for {size} x "
        f"{size}: set size and crop_size of the image processor (preprocessor_config.json) to {size}, or use the "
        "processor of this checkpoint"
    )


def _image_tokens(vlm: Vlm, inputs: Mapping[str, Any], image: torch.Tensor) -> str:
    """Return an explanation if the prompts' image tokens and the model's image features differ in number, or ""."""
    tokens, images = int(image.sum()), len(image)
    try:
        features = count_image_features(vlm.model, vlm.to_device(inputs))
    except Exception:  # The same failure may occur here.
        return ""
    if features is None or features == tokens:
        return ""
    return (
        f"the processor writes {tokens // images} image tokens for an image and the model makes "
        f"{features // images} features of it: {_disagreement(vlm)}"
    )


def _disagreement(vlm: Vlm) -> str:
    config = vlm.model.config
    model_id, processor_id = vlm.anatomy.image_token_id, getattr(vlm.processor, "image_token_id", None)
    if processor_id is not None and model_id >= 0 and processor_id != model_id:
        return (
            f"the processor's image_token_id is {processor_id}, the model's is {model_id}; set them to the same value"
        )
    parts = (config, getattr(config, "vision_config", None))
    for name in _SHARED:
        of_processor = getattr(vlm.processor, name, None)
        of_model = next((value for part in parts if (value := getattr(part, name, None)) is not None), None)
        if of_processor is not None and of_model is not None and of_processor != of_model:
            return (
                f"the processor's {name} is {of_processor!r} and the model's is {of_model!r}; set them to the same "
                "value"
            )
    return (
        f"set the processor's {_SETTINGS} (processor_config.json) to those of the model, or use the processor of this "
        "checkpoint"
    )


def _location(model: Any, error: Exception) -> str:
    """Return the deepest running module of the model and the innermost line of code, as text."""
    names = {id(module): name for name, module in model.named_modules()}
    owners = (names.get(id(frame.f_locals.get("self"))) for frame, _ in traceback.walk_tb(error.__traceback__))
    running = [name for name in owners if name]
    frame, line = _frames(error)[-1]
    file = f"{Path(frame.f_code.co_filename).name}, line {line}"
    return f"in {running[-1]}, {file}" if running else file
