"""Text for figures: descriptions for screen readers, captions, and tables of decoded tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.phase_reading import PhaseReading
from harness.data.words import content_words, stem
from harness.errors import LONGEST_TOKEN, printable, shorten, shorten_texts
from harness.profile.profile import Array, Drawing, Profile
from harness.report.heat_maps import phase_layers, phase_maps, token_shares
from harness.report.palette import PHASES
from harness.report.phase_diagram import Band
from harness.storage.file_names import short_name

_OVERLAY = (
    "Open dots are the baseline's means. A triangle at the top marks a layer that differs; a stroke marks a layer that "
    "changed within the margin."
)
_OVERLAID = ("inter", "intra", "attention", "recall")

# The number of decoded tokens shown per layer, and the sign for a space at the ends of a token.
_MOST_WORDS, _SPACE = 8, "\N{OPEN BOX}"

#: The caption of each kind of figure, without a number: the page numbers its figures.
CAPTIONS: Mapping[str, str] = {
    "diagram": "The phases over the relative depth. Numbers are layers, brackets below a band 99 % intervals; a "
    "triangle above a band is the baseline's boundary. A hollow phase is not confirmed.",
    "recalls": "Share of the reference words that LogitLens decodes at some image token, averaged over the datasets "
    "of a model. Dotted: the words of another sample.",
    "inter": "Mean cosine between image and text tokens. The band is the middle 80 % of the samples, the open diamond "
    "the state after the final norm. Grey spans are the intervals of boundaries. The anisotropy-adjusted curve "
    "subtracts the similarity between different samples, so with one instruction for all samples it starts at 0.",
    "intra": "Mean cosine between different tokens of one group. Bands are the middle 80 % of the samples.",
    "attention": "Attention of the last prompt token by the norm of each token's contribution, as shares that sum "
    "to 1.",
    "picture": "One sample: the mean share of the last token's attention on every patch, by phase. All four maps have "
    "the same scale.",
    "tokens": "One sample: the share of every prompt token in the last token's attention, on a logarithmic scale.",
    "recall": "Share of the reference words that LogitLens decodes at some image token. Chance is the share of "
    "another sample's words.",
    "segments": "Number of monotone segments of the mean curve by prominence. Verdicts use the declared prominence, "
    "the dashed vertical line.",
    "against": "Inter-modal similarity of both models over the relative depth. Dots mark the turning points.",
}
#: The figure of the paper that a kind of figure repeats, by kind; other kinds have none.
PAPER_FIGURES: Mapping[str, int] = {
    "inter": 1, "diagram": 2, "intra": 3, "attention": 4, "picture": 4, "tokens": 4, "recall": 5, "recalls": 5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DecodedToken:
    """A decoded token.

    `count` image tokens have it as top 1; `in_caption` is True if a caption contains its word.
    """

    text: str
    count: int
    in_caption: bool


@dataclass(frozen=True, slots=True)
class DecodedLayer:
    """The decoded tokens of a residual point: frequent top 1 tokens of image tokens, and the last token's top 5."""

    layer: int
    image: tuple[DecodedToken, ...]
    others: int
    last: tuple[DecodedToken, ...]


def figure_caption(name: str, *, with_baseline: bool) -> str:
    """Return the caption of a figure; with a baseline in it, the caption explains its dots."""
    return f"{CAPTIONS[name]} {_OVERLAY}" if with_baseline and name in _OVERLAID else CAPTIONS[name]


def describe_panel(name: str, profile: Profile, reading: PhaseReading) -> str:
    """Return a description of one panel of a profile."""
    return f"{short_name(profile.pair)}, {profile.depth} layers. {_PANELS[name](profile, reading)}"


def describe_diagram(bands: Sequence[Band]) -> str:
    """Return a description of the phase diagram."""
    return " ".join(
        f"{band.name}: phases end at layers {', '.join(f'{point.estimate:g}' for point in band.turning_points)} of "
        f"{band.depth}.{_unconfirmed(band)}"
        for band in bands
    )


def _unconfirmed(band: Band) -> str:
    numbers = [phase.number for phase, confirmed in zip(PHASES, band.confirmed, strict=True) if not confirmed]
    return f" Not confirmed: {', '.join(numbers)}." if numbers else ""


def describe_recalls(profiles: Sequence[Profile]) -> str:
    """Return a description of recall by model."""
    return " ".join(
        f"{short_name(profile.pair)}: recall {profile['recall_5'].mean(0)[-1]:.2f} at the last residual point, "
        f"by chance {profile['recall_chance_5'].mean(0)[-1]:.2f}."
        for profile in profiles
        if not profile.no_recall
    )


def describe_attention_map(drawing: Drawing, reading: PhaseReading) -> str:
    """Return a description of the attention map: the share of the image in each phase, and its largest patch."""
    sentences = []
    for phase, patches in zip(PHASES, phase_maps(drawing, reading), strict=True):
        row, column = np.unravel_index(int(np.argmax(patches)), patches.shape)
        sentences.append(
            f"Phase {phase.number}: {patches.sum():.0%} on the image, most in row {row + 1}, column {column + 1} of "
            f"{patches.shape[0]} by {patches.shape[1]} patches ({patches.max():.1%})."
        )
    return f"Sample {short_name(drawing.sample_id)}. {' '.join(sentences)}"


def describe_token_shares(drawing: Drawing, reading: PhaseReading) -> str:
    """Return a description of the map of tokens over layers: the share of each group in each phase."""
    shares = token_shares(drawing)
    sentences = []
    for phase, layers in zip(PHASES, phase_layers(reading), strict=True):
        groups = ", ".join(
            f"{name} {shares[list(layers)][:, member].sum(1).mean():.0%}" for name, member in drawing.groups.items()
        )
        sentences.append(f"Phase {phase.number}: {groups}.")
    return f"Sample {short_name(drawing.sample_id)}, {shares.shape[1]} tokens. {' '.join(sentences)}"


def decoded_layers(drawing: Drawing) -> list[DecodedLayer]:
    """Return the decoded tokens of a sample at every residual point; tokens that a caption contains are marked."""
    stems = {stem(word) for word in content_words(shorten_texts(drawing.captions))}

    def token(text: str, count: int = 1) -> DecodedToken:
        text = shorten(text, LONGEST_TOKEN)
        return DecodedToken(_printable(text), count, stem(text) in stems)

    layers = []
    for layer, (image, last) in enumerate(zip(drawing.image_tokens, drawing.last_token, strict=True)):
        counts = sorted(Counter(image).items(), key=lambda item: (-item[1], item[0]))
        # Words of the captions are shown even if they are rare, because recall counts them.
        common = [token(*item) for item in counts]
        shown_tokens = [
            token_shown for rank, token_shown in enumerate(common) if rank < _MOST_WORDS or token_shown.in_caption
        ]
        layers.append(
            DecodedLayer(
                layer, tuple(shown_tokens), len(common) - len(shown_tokens), tuple(token(text) for text in last)
            )
        )
    return layers


def _inter(profile: Profile, reading: PhaseReading) -> str:
    mean = profile["inter"].mean(0)
    edges = reading.phase_ends
    verbs = ("rises", "falls", "rises", "falls")
    segments = ", ".join(
        f"{verb} to {mean[end]:.2f} at layer {end}" for verb, end in zip(verbs, edges[1:], strict=True)
    )
    after = float(profile["post_norm_inter"].mean())
    controls = "".join(
        f" The control {name} has {curves['inter'].mean(0)[edges[1]]:.2f} at layer {edges[1]}."
        for name, curves in profile.controls.items()
    )
    return f"Inter-modal similarity starts at {mean[0]:.2f}, {segments}; after the final norm {after:.2f}.{controls}"


def _intra(profile: Profile, reading: PhaseReading) -> str:
    return "Similarity at the ends of the phases: " + _at_edges(profile, reading, ("image", "text", "instruction"))


def _recall(profile: Profile, reading: PhaseReading) -> str:
    if profile.no_recall:
        return f"Recall is left out: {profile.no_recall}."
    return "Recall at the ends of the phases: " + _at_edges(
        profile, reading, ("recall_5", "recall_1", "recall_chance_5")
    )


def _attention(profile: Profile, reading: PhaseReading) -> str:
    sentences = []
    for phase, layers in zip(PHASES, phase_layers(reading), strict=True):
        shares = ", ".join(
            f"{name} {profile[f'norm_{name}'].mean(0)[list(layers)].mean():.0%}"
            for name in ("image", "instruction", "other", "self")
        )
        sentences.append(f"phase {phase.number}: {shares}")
    return f"Mean shares of the last token's attention, {'; '.join(sentences)}."


def _segments(profile: Profile, reading: PhaseReading) -> str:
    segments = reading.any_segments
    return (
        f"At the declared prominence {segments.count} monotone segments are statistically "
        f"confirmed, and at most {segments.at_most} are possible."
    )


def _at_edges(profile: Profile, reading: PhaseReading, names: Sequence[str]) -> str:
    edges = reading.phase_ends

    def values(mean: Array) -> str:
        return ", ".join(f"{mean[edge]:.2f} at layer {edge}" for edge in edges)

    titles = {"recall_5": "top 5", "recall_1": "top 1", "recall_chance_5": "another sample's words"}
    return "; ".join(f"{titles.get(name, name)} {values(profile[name].mean(0))}" for name in names) + "."


def _printable(text: str) -> str:
    """Return a token on one line: spaces at its ends become visible signs, control characters are escaped."""
    inner = text.strip(" ")
    before, after = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    if not inner:
        return _SPACE * len(text) or "(empty)"
    return _SPACE * before + printable(inner) + _SPACE * after


_PANELS = {"inter": _inter, "intra": _intra, "attention": _attention, "recall": _recall, "segments": _segments}
