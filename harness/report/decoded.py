"""What LogitLens decodes of one sample, layer by layer, as a reader scans it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.data.words import content_words, stem
from harness.errors import LONGEST_TOKEN, bounded, bounded_texts, shown
from harness.profile.profile import Drawing

_MOST_WORDS = 8
_SPACE = "\N{OPEN BOX}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded token: its text, at how many image tokens it is the best, and whether a caption has its word."""

    text: str
    count: int
    named: bool


@dataclass(frozen=True, slots=True)
class DecodedLayer:
    """One residual point: the commonest best tokens at the image tokens, and the best five at the last token."""

    layer: int
    image: tuple[Decoded, ...]
    others: int
    last: tuple[Decoded, ...]


def decoded_layers(drawing: Drawing) -> list[DecodedLayer]:
    """What is decoded at every residual point of a drawn sample; a token that a caption names is marked."""
    stems = {stem(word) for word in content_words(bounded_texts(drawing.captions))}

    def token(text: str, count: int = 1) -> Decoded:
        text = bounded(text, LONGEST_TOKEN)
        return Decoded(_legible(text), count, stem(text) in stems)

    layers = []
    for layer, (image, last) in enumerate(zip(drawing.image_tokens, drawing.last_token, strict=True)):
        counts = sorted(Counter(image).items(), key=lambda item: (-item[1], item[0]))
        # What the captions name is shown however seldom it is decoded: it is what recall counts.
        common = [token(*item) for item in counts]
        kept = [one for place, one in enumerate(common) if place < _MOST_WORDS or one.named]
        layers.append(DecodedLayer(layer, tuple(kept), len(common) - len(kept), tuple(token(text) for text in last)))
    return layers


def _legible(text: str) -> str:
    """A token as it may stand in a line: spaces at its ends as signs, what nobody sees as escapes."""
    inner = text.strip(" ")
    before, after = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    if not inner:
        return _SPACE * len(text) or "(empty)"
    return _SPACE * before + shown(inner) + _SPACE * after
