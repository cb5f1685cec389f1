"""Comparison of two models' weights by hashes, one for each decoder layer and each other part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from harness.profile.measures import layer_ranges

if TYPE_CHECKING:
    from torch import nn

    from harness.models.vlm import Vlm

FINAL_NORM, UNEMBEDDING = "final norm", "unembedding"
_LAYER = "layer "


@dataclass(frozen=True, slots=True)
class WeightPart:
    """Hashes of the tensors of one part, 16 hex digits each.

    `structure` hashes names and shapes, `values` also the data types and numbers. `unread` is True if the numbers of a
    tensor are unavailable because it is on the meta device without offloaded weights.
    """

    structure: str
    values: str
    unread: bool = False


@dataclass(frozen=True, slots=True)
class WeightParts:
    """The parts of a model: decoder layers 1..L in order, and all other parts by name.

    The others are `final norm`, `unembedding` and the modules before the decoder, named by module path. An unembedding
    tied to the embeddings counts as two parts.
    """

    layers: tuple[WeightPart, ...]
    others: Mapping[str, WeightPart]


@dataclass(frozen=True, slots=True)
class WeightChange:
    """The differing weights of two models: decoder layers, counted from 1, and other parts by name.

    `restructured` lists differing parts whose tensor names or shapes changed. `unread` lists parts with unavailable
    numbers, which count neither as the same nor as different. `unshared` lists parts that one model lacks. For models
    of different depth, `reason` explains why they are not compared, and all else is empty.
    """

    layers: tuple[int, ...] = ()
    others: tuple[str, ...] = ()
    same_layers: tuple[int, ...] = ()
    same_others: tuple[str, ...] = ()
    restructured: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    unshared: tuple[str, ...] = ()
    reason: str = ""

    def describe(self) -> str:
        """Return one line of text: 'weights differ in layers 29-30; the same in layers 1-28, final norm, ...'."""
        if self.reason:
            return f"weights: {self.reason}"
        differing = _named(self.layers, self.others)
        same = _named(self.same_layers, self.same_others) or "no part"
        line = f"weights differ in {differing}; the same in {same}" if differing else "weights are the same"
        if self.unshared:
            line += f"{'' if differing else f' in {same}'}; only one of the models has {', '.join(self.unshared)}"
        if self.restructured:
            line += f"; with other tensor names or shapes: {_named(*_split(self.restructured))}"
        if self.unread:
            line += f"; not compared, because numbers are unavailable: {_named(*_split(self.unread))}"
        return line


def weight_parts(vlm: Vlm) -> WeightParts:
    """Return hashes of a model's parameters and buffers by part; tensors are read one at a time, and once each."""
    from harness.models.offloaded import load_offloaded
    from harness.models.stored_numbers import content_hash, extra_state

    model, anatomy = _unwrapped(vlm.model), vlm.anatomy
    paths = {id(module): name for name, module in model.named_modules()}
    layers = [paths[id(layer)] for layer in anatomy.layers]
    other_paths = {paths[id(anatomy.final_norm)]: FINAL_NORM, paths[id(anatomy.unembedding)]: UNEMBEDDING}
    digests = {path: _Digest(path) for path in (*layers, *other_paths)}
    preceding: dict[str, _Digest] = {}
    hashes: dict[int, bytes] = {}
    decoder = layers[0].split(".")
    named = (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    for name, tensor in sorted(chain(*named, extra_state(model)), key=lambda item: item[0]):
        part = _prefix(name, digests)
        if part is None:
            part = _beside(name, decoder)
            preceding.setdefault(part, _Digest(part))
        # A tied tensor occurs under two names.
        if id(tensor) not in hashes and (numbers := load_offloaded(model, name, tensor)) is not None:
            hashes[id(tensor)] = content_hash(numbers)
        (digests | preceding)[part].add(name, tensor, hashes.get(id(tensor)))
    return WeightParts(
        tuple(digests[path].part() for path in layers),
        {name: digest.part() for name, digest in preceding.items()}
        | {name: digests[path].part() for path, name in other_paths.items()},
    )


def weight_change(measured: WeightParts, other: WeightParts) -> WeightChange:
    """Return the parts of two models that differ."""
    if len(measured.layers) != len(other.layers):
        return WeightChange(
            reason=f"{len(measured.layers)} and {len(other.layers)} layers, so they are not compared part by part"
        )
    measured_parts, other_parts = _by_name(measured), _by_name(other)
    common = [name for name in measured_parts if name in other_parts]
    restructured = tuple(name for name in common if measured_parts[name].structure != other_parts[name].structure)
    differing = [
        name for name in common if name in restructured or measured_parts[name].values != other_parts[name].values
    ]
    unread = [
        name for name in common if (measured_parts[name].unread or other_parts[name].unread) and name not in differing
    ]
    return WeightChange(
        *_split(differing),
        *_split([name for name in common if name not in differing and name not in unread]),
        restructured=restructured,
        unread=tuple(unread),
        unshared=tuple(sorted(measured.others.keys() ^ other.others.keys())),
    )


def _by_name(parts: WeightParts) -> dict[str, WeightPart]:
    return {f"{_LAYER}{index}": part for index, part in enumerate(parts.layers, 1)} | dict(parts.others)


def _split(names: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the layers among names of parts, by number, and the other parts."""
    layers = {name: int(name.removeprefix(_LAYER)) for name in names if name.startswith(_LAYER)}
    return tuple(layers.values()), tuple(name for name in names if name not in layers)


class _Digest:
    """Running hashes of one part; tensor names are relative to the path of the part."""

    def __init__(self, path: str) -> None:
        self._path, self._unread = path, False
        self._structure, self._numbers = hashlib.sha256(), hashlib.sha256()

    def add(self, name: str, tensor: Any, numbers: bytes | None) -> None:
        description = f"{name.removeprefix(self._path)} {tuple(getattr(tensor, 'shape', ()))}"
        self._structure.update(description.encode())
        self._numbers.update(f"{description} {getattr(tensor, 'dtype', '')}".encode())
        self._unread |= numbers is None
        self._numbers.update(numbers or b"")

    def part(self) -> WeightPart:
        return WeightPart(self._structure.hexdigest()[:16], self._numbers.hexdigest()[:16], self._unread)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers without parameters, such as PEFT adapters, so that names are the model's own."""
    while len(children := list(model.children())) == 1 and not [*model.parameters(recurse=False)]:
        model = children[0]
    return model


def _prefix(name: str, paths: Mapping[str, object]) -> str | None:
    """Return the path among `paths` that contains a tensor; None if there is none."""
    pieces = name.split(".")
    return next((path for end in range(1, len(pieces)) if (path := ".".join(pieces[:end])) in paths), None)


def _beside(name: str, decoder: list[str]) -> str:
    """Return the start of a tensor name up to where it leaves the path to the decoder layers: `model.vision_tower`."""
    pieces = name.split(".")
    shared = next((index for index, pair in enumerate(zip(pieces, decoder, strict=False)) if pair[0] != pair[1]), 0)
    return ".".join(pieces[: shared + 1])


def _named(layers: tuple[int, ...], others: tuple[str, ...]) -> str:
    names = [f"layer{'s' if len(layers) > 1 else ''} {layer_ranges(layers)}"] if layers else []
    return ", ".join([*names, *others])
