"""Captions of rendered scenes: five with the same meaning, the canonical caption first.

Apart from function words, captions only use words for visible things, so every content word is in the image.
"""

from __future__ import annotations

from collections.abc import Sequence

Words = tuple[str, str, str]  # size, colour, shape


def caption_variants(
    things: Sequence[Words], relations: Sequence[str], opposites: Sequence[str], background: str
) -> tuple[str, ...]:
    """Return five captions of a scene; the first names the things in raster order.

    Captions of three things omit sizes, which keeps every caption at 9 to 18 tokens of SmolLM2.

    Args:
        things: size, colour and shape of one to three things.
        relations: the position of the first thing relative to the second, then of the third relative to the second.
        opposites: the inverse of each relation.
        background: the colour of the background.

    Raises:
        ValueError: there are not one to three things.
    """
    match len(things):
        case 1:
            captions = _one(things[0], background)
        case 2:
            captions = _two(things, _phrase(relations[0]), _phrase(opposites[0]), background)
        case 3:
            captions = _three(things, relations, opposites, background)
        case other:
            raise ValueError(f"a scene has one to three things, not {other}: no caption can be worded")
    return tuple(text[0].upper() + text[1:] for text in captions)


def _one(thing: Words, background: str) -> list[str]:
    size, colour, shape = thing
    noun = _a(f"{size} {colour} {shape}")
    return [
        f"{noun} on a {background} background.",
        f"there is {noun}, and the background is {background}.",
        f"on a {background} background there is {noun}.",
        f"here is {noun}, on a {background} background.",
        f"a {background} background with {noun} on it.",
    ]


def _two(things: Sequence[Words], relation: str, opposite: str, background: str) -> list[str]:
    a, b = (_a(" ".join(thing)) for thing in things)
    return [
        f"{a} {relation} {b}.",
        f"{b} {opposite} {a}.",
        f"here is {a} that is {relation} {b}.",
        f"there is {b}, and it is {opposite} {a}.",
        f"on a {background} background, {a} is {relation} {b}.",
    ]


def _three(things: Sequence[Words], relations: Sequence[str], opposites: Sequence[str], background: str) -> list[str]:
    a, b, c = (_a(f"{colour} {shape}") for _, colour, shape in things)
    first, third = (_phrase(r) for r in relations)
    second, fourth = (_phrase(r) for r in opposites)
    return [
        f"{a} {first} {b}, with {c} {third} it.",
        f"{a} {first} {b}, and {c} {third} that.",
        f"{b} is {second} {a} and {fourth} {c}.",
        f"{c} {third} {b} that is {second} {a}.",
        f"on {background}: {a} {first} {b}, {fourth} {c}.",
    ]


def _phrase(relation: str) -> str:
    return f"{relation} of" if relation in ("left", "right") else relation


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
