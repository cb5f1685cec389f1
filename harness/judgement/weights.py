"""Which parts of two models' weights differ: a hash for every decoder layer, and for each part around the layers."""

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
    """The tensors of one part: a hash of their names and shapes, and one of their numbers (16 hex digits each).

    `unread` says that some of them are on the meta device with nothing that holds their numbers.
    """

    structure: str
    values: str
    unread: bool = False


@dataclass(frozen=True, slots=True)
class WeightParts:
    """The parts of one model: its decoder layers 1..L in order, and all others by name.

    These are `final norm`, `unembedding`, and what stands before the decoder by module path. An unembedding that is
    tied to the embeddings counts in both places.
    """

    layers: tuple[WeightPart, ...]
    others: Mapping[str, WeightPart]


@dataclass(frozen=True, slots=True)
class WeightChange:
    """Where the weights of two models differ: decoder layers, counted from 1, and other parts by name.

    `restructured` names differing parts whose tensors have other names or shapes, `unread` parts that hold tensors
    without numbers and are in neither list, `unshared` parts that one of the models lacks. Models of different depth
    cannot be laid side by side: `reason` says so and all are empty.
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
        """Return the same in one line: 'weights differ in layers 29-30; the same in layers 1-28, final norm, ...'."""
        if self.reason:
            return f"weights: {self.reason}"
        differing = _named(self.layers, self.others)
        same = _named(self.same_layers, self.same_others) or "no part"
        line = f"weights differ in {differing}; the same in {same}" if differing else "weights are the same"
        if self.unshared:
            line += f"{'' if differing else f' in {same}'}; only one of the models has {', '.join(self.unshared)}"
        if self.restructured:
            line += f"; of other names or shapes: {_named(*_split(self.restructured))}"
        if self.unread:
            line += f"; without numbers and not compared: {_named(*_split(self.unread))}"
        return line


def weight_parts(vlm: Vlm) -> WeightParts:
    """The hashes of a model's parameters and buffers by part; each tensor is read once, and one at a time."""
    from harness.models.offloaded import load_offloaded
    from harness.models.stored_numbers import extra_state

    model, anatomy = _unwrapped(vlm.model), vlm.anatomy
    path = {id(module): name for name, module in model.named_modules()}
    layers = [path[id(layer)] for layer in anatomy.layers]
    around = {path[id(anatomy.final_norm)]: FINAL_NORM, path[id(anatomy.unembedding)]: UNEMBEDDING}
    digests = {path: _Digest(path) for path in (*layers, *around)}
    before: dict[str, _Digest] = {}
    read: dict[int, bytes] = {}
    decoder = layers[0].split(".")
    named = (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    for name, tensor in sorted(chain(*named, extra_state(model)), key=lambda item: item[0]):
        own = _prefix(name, digests)
        if own is None:
            own = _beside(name, decoder)
            before.setdefault(own, _Digest(own))
        # A tied tensor comes twice, under two names.
        if id(tensor) not in read and (numbers := load_offloaded(model, name, tensor)) is not None:
            read[id(tensor)] = _hash(numbers)
        (digests | before)[own].add(name, tensor, read.get(id(tensor)))
    return WeightParts(
        tuple(digests[path].part() for path in layers),
        {name: digest.part() for name, digest in before.items()}
        | {name: digests[path].part() for path, name in around.items()},
    )


def weight_change(now: WeightParts, other: WeightParts) -> WeightChange:
    """Which parts of two models differ."""
    if len(now.layers) != len(other.layers):
        return WeightChange(
            reason=f"{len(now.layers)} and {len(other.layers)} layers, so they are not compared part by part"
        )
    mine, theirs = _by_name(now), _by_name(other)
    both = [name for name in mine if name in theirs]
    restructured = tuple(name for name in both if mine[name].structure != theirs[name].structure)
    differing = [name for name in both if name in restructured or mine[name].values != theirs[name].values]
    unread = [name for name in both if (mine[name].unread or theirs[name].unread) and name not in differing]
    return WeightChange(
        *_split(differing),
        *_split([name for name in both if name not in differing and name not in unread]),
        restructured=restructured,
        unread=tuple(unread),
        unshared=tuple(sorted(now.others.keys() ^ other.others.keys())),
    )


def _by_name(parts: WeightParts) -> dict[str, WeightPart]:
    return {f"{_LAYER}{index}": part for index, part in enumerate(parts.layers, 1)} | dict(parts.others)


def _split(names: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the layers among names of parts, by number, and the other parts."""
    layers = {name: int(name.removeprefix(_LAYER)) for name in names if name.startswith(_LAYER)}
    return tuple(layers.values()), tuple(name for name in names if name not in layers)


class _Digest:
    """The growing hashes of one part; names count from the part's own path on."""

    def __init__(self, path: str) -> None:
        self._path, self._unread = path, False
        self._structure, self._numbers = hashlib.sha256(), hashlib.sha256()

    def add(self, name: str, tensor: Any, numbers: bytes | None) -> None:
        own = f"{name.removeprefix(self._path)} {tuple(getattr(tensor, 'shape', ()))}"
        self._structure.update(own.encode())
        self._numbers.update(f"{own} {getattr(tensor, 'dtype', '')}".encode())
        self._unread |= numbers is None
        self._numbers.update(numbers or b"")

    def part(self) -> WeightPart:
        return WeightPart(self._structure.hexdigest()[:16], self._numbers.hexdigest()[:16], self._unread)


def _hash(value: Any) -> bytes:
    from harness.models.stored_numbers import content_bytes

    digest = hashlib.sha256()
    for part in content_bytes(value):
        digest.update(part)
    return digest.digest()


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of wrappers that hold nothing else, as an adapter's do, so that names are those of the model."""
    while len(children := list(model.children())) == 1 and not [*model.parameters(recurse=False)]:
        model = children[0]
    return model


def _prefix(name: str, paths: Mapping[str, object]) -> str | None:
    """Return the module path among `paths` that a tensor lies under."""
    pieces = name.split(".")
    return next((path for end in range(1, len(pieces)) if (path := ".".join(pieces[:end])) in paths), None)


def _beside(name: str, decoder: list[str]) -> str:
    """Return the path at which a tensor's name leaves the way to the decoder layers: `model.vision_tower`."""
    pieces = name.split(".")
    shared = next((index for index, pair in enumerate(zip(pieces, decoder, strict=False)) if pair[0] != pair[1]), 0)
    return ".".join(pieces[: shared + 1])


def _named(layers: tuple[int, ...], others: tuple[str, ...]) -> str:
    places = [f"layer{'s' if len(layers) > 1 else ''} {layer_ranges(layers)}"] if layers else []
    return ", ".join([*places, *others])
