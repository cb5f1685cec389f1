"""The parts of a vision-language model that a measurement touches, found by structure and not by model name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from harness.errors import PhaseError
from harness.models.kinds import ENCODER_DECODER, Kind, kind_of
from harness.models.linear import is_linear, output_width, takes_width
from harness.models.prompts.prompt import ImagePositions

_NOT_A_DECODER = ("vision", "visual", "audio", "expert", "projector", "resampler", "qformer", "encoder")
_OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "dense")
_LAYER_TYPES = ("layer_types", "layers_block_type")
_NO_SOFTMAX = re.compile("linear|conv|mamba|moe|mlp|recurrent")
_IMAGE_TOKEN_FIELDS = ("image_token_id", "image_token_index", "image_patch_id")


class AnatomyError(PhaseError):
    """A model lacks a part that a measurement needs; the message names the part and the reason."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The decoder layers, final norm, unembedding and image-token positions of a vision-language model.

    `layers` are the L decoder layers in order. Residual point l < L is the input of `layers[l]`; residual point L is
    the input of `final_norm`. `unembedding` is the head, any module that maps width d to the vocabulary. `text_config`
    is the decoder's configuration, and `attention_key` its name in `set_attn_implementation`. Image positions come from
    `positions` if given, else from the mask input `image_input` if named, else from the id `image_token_id`.
    """

    name: str
    layers: tuple[nn.Module, ...]
    final_norm: nn.Module
    unembedding: nn.Module
    text_config: Any
    attention_key: str
    image_token_id: int
    image_input: str = ""
    positions: ImagePositions | None = None

    @property
    def depth(self) -> int:
        """The number L of decoder layers; there are L + 1 residual points."""
        return len(self.layers)

    @property
    def width(self) -> int:
        """The dimension d of the residual stream."""
        return next(self.final_norm.parameters()).shape[0]

    @property
    def vocabulary_size(self) -> int:
        """The number of logits that the head returns."""
        return output_width(self.unembedding, self.width)

    @property
    def softmax_layers(self) -> tuple[int, ...]:
        """The indices (0-based) of decoder layers with softmax attention, from the layer types in the configuration."""
        kinds = next((types for name in _LAYER_TYPES if (types := getattr(self.text_config, name, None))), None)
        if kinds is None or len(kinds) != self.depth:
            return tuple(range(self.depth))
        return tuple(layer for layer, kind in enumerate(kinds) if not _NO_SOFTMAX.search(kind))

    def image_positions(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the mask of image positions, bool (batch, tokens), for some model inputs."""
        if self.positions is not None:
            return self.positions(inputs)
        if self.image_input:
            return inputs[self.image_input].bool()
        return inputs["input_ids"] == self.image_token_id

    @contextlib.contextmanager
    def residual_points(self, visit: Callable[[int, torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
        """Call `visit(point, states)` at each residual point of the forward passes inside the block.

        The states have shape (batch, tokens, d) and precede the layer or final norm. A returned tensor replaces them.
        """

        def hook(point: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            states = visit(point, args[0] if args else kwargs["hidden_states"])
            if states is None:
                return None
            return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})

        with contextlib.ExitStack() as stack:
            for point, part in enumerate((*self.layers, self.final_norm)):
                stack.callback(part.register_forward_pre_hook(partial(hook, point), with_kwargs=True).remove)
            yield

    def layer_by_module(self) -> dict[int, int]:
        """Return a map from the `id` of each submodule to the index (0-based) of its decoder layer."""
        return {id(module): index for index, layer in enumerate(self.layers) for module in layer.modules()}


def find_anatomy(model: nn.Module, *, image_positions: ImagePositions | None = None) -> Anatomy:
    """Return the parts of `model`, found by structure.

    Args:
        model: a transformers model.
        image_positions: a function from model inputs to the mask of image positions, bool (batch, tokens). Needed if
            the configuration has no image token id.

    Raises:
        AnatomyError: the model or its language model is an encoder-decoder; its type cannot be measured; or it lacks a
            stack of decoder layers of the configured length, a norm beside them, an unembedding of the decoder's width
            or an image token id.

    Example:
        >>> import harness
        >>> from transformers import AutoModelForImageTextToText
        >>> model = AutoModelForImageTextToText.from_pretrained("llava-hf/llava-1.5-7b-hf")  # doctest: +SKIP
        >>> len(harness.find_anatomy(model).layers)  # doctest: +SKIP
        32
    """
    name = type(model).__name__
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        if hasattr(getattr(model, "module", None), "config"):
            raise AnatomyError(
                f"{name} is a wrapper that passes calls to another model: measure its attribute `module`"
            )
        raise AnatomyError(f"{name} has no transformers configuration; pass a transformers model, not a bare module")
    refuse_unmeasurable(config, name)
    kind = kind_of(config.model_type)
    text_config = config.get_text_config(decoder=True)
    depth = int(text_config.num_hidden_layers)
    width = int(text_config.hidden_size)
    parent, layers = _decoder_stack(model, name, depth)
    return Anatomy(
        name=name,
        layers=tuple(layers),
        final_norm=_final_norm(parent, name, width),
        unembedding=_unembedding(model, name, width),
        text_config=text_config,
        attention_key=next(
            (str(key) for key in getattr(config, "sub_configs", {}) if getattr(config, key, None) is text_config), ""
        ),
        image_token_id=-1 if image_positions is not None else _image_token_id(config, name, kind),
        image_input=kind.image_input,
        positions=image_positions,
    )


def refuse_unmeasurable(config: Any, name: str) -> None:
    """Raise `AnatomyError` if a configuration shows that its model cannot be measured; no weights are needed.

    Raises:
        AnatomyError: the model or its language model is an encoder-decoder, such as InstructBLIP with T5, or the table
            of kinds refuses its type.
    """
    kind = kind_of(config.model_type)
    if kind.refused:
        raise AnatomyError(f"{name} ({config.model_type}) cannot be measured: {kind.reason}")
    configs = (config, config.get_text_config(decoder=True), getattr(config, "text_config", None))
    if any(getattr(part, "is_encoder_decoder", False) for part in configs):
        raise AnatomyError(f"{name} {ENCODER_DECODER}")


def output_projection(attention: nn.Module) -> nn.Module:
    """Return the output projection W_O of an attention module, which maps heads x value dimension to d.

    It may be an adapter or a quantised layer.

    Raises:
        AnatomyError: no child with a known name is a linear layer.
    """
    projection = _projection_in(attention)
    if projection is not None:
        return projection
    children = {child_name: getattr(attention, child_name, None) for child_name in _OUTPUT_PROJECTIONS}
    others = [
        f"; its {name} is a {type(child).__name__}, not a linear layer"
        for name, child in children.items()
        if child is not None
    ]
    raise AnatomyError(
        f"{type(attention).__name__} has no output projection named {', '.join(children)}{''.join(others)}, so "
        "norm-based attention cannot be measured."
    )


def output_projections(layer: nn.Module) -> list[nn.Module]:
    """Return the modules of a decoder layer that could be an attention output projection, without duplicates."""
    candidates = (_projection_in(module) for module in layer.modules())
    return list(dict.fromkeys(projection for projection in candidates if projection is not None))


def _projection_in(module: nn.Module) -> nn.Module | None:
    children = (getattr(module, child_name, None) for child_name in _OUTPUT_PROJECTIONS)
    return next((child for child in children if is_linear(child)), None)


def _stacks(module: nn.Module) -> Iterator[tuple[nn.Module, nn.ModuleList]]:
    for child_name, child in module.named_children():
        if any(word in child_name.lower() for word in _NOT_A_DECODER):
            continue
        if isinstance(child, nn.ModuleList):
            yield module, child
        yield from _stacks(child)


def _decoder_stack(model: Any, name: str, depth: int) -> tuple[nn.Module, nn.ModuleList]:
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    for root in (decoder, model):
        matches = [(parent, stack) for parent, stack in _stacks(root) if len(stack) == depth]
        if matches:
            return matches[0]
    raise AnatomyError(
        f"{name} has no list of {depth} decoder layers (the length its text configuration states), so there is no "
        "residual stream to measure: correct num_hidden_layers in its configuration."
    )


def _final_norm(parent: nn.Module, name: str, width: int) -> nn.Module:
    without_weight = ""
    for child_name, child in parent.named_children():
        shapes = {tuple(parameter.shape) for parameter in child.parameters()}
        # An adapter wraps the norm in another class but keeps its attribute name.
        is_norm = "norm" in f"{type(child).__name__} {child_name}".lower()
        if is_norm and shapes == {(width,)}:
            return child
        if is_norm and not shapes:
            without_weight = (
                f": its {child_name} ({type(child).__name__}) has no weight, by which a final norm is recognised; use "
                "a model whose final norm has a weight"
            )
    raise AnatomyError(f"{name} has no final norm of width {width} beside its decoder layers{without_weight}.")


def _unembedding(model: Any, name: str, width: int) -> nn.Module:
    for module in (model, *model.modules()):
        head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
        if head is not None and takes_width(head, width):
            return head  # type: ignore[no-any-return]
    raise AnatomyError(f"{name} has no unembedding of width {width}, so LogitLens has nothing to decode with.")


def _image_token_id(config: Any, name: str, kind: Kind) -> int:
    if kind.image_input:
        return -1
    for field in (kind.image_field, *_IMAGE_TOKEN_FIELDS):
        value = getattr(config, field, None)
        if isinstance(value, int):
            return value
    raise AnatomyError(
        f"the configuration of {name} names no image token ({', '.join(_IMAGE_TOKEN_FIELDS)}), so the positions of the "
        "image features are unknown. If you know them, pass find_anatomy(model, image_positions=...) a function of the "
        "model inputs that returns a mask (batch, tokens)."
    )
