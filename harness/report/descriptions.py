"""Text for figures: descriptions for screen readers, captions, and tables of decoded tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.control_difference import DifferenceBand, curve_difference
from harness.analysis.phase_reading import PhaseReading
from harness.data.words import stem
from harness.errors import LONGEST_TOKEN, shorten
from harness.profile.measures import MEASURES, SHARE_GROUPS, layer_ranges
from harness.profile.profile import Array, Drawing, Profile
from harness.report.controls_compared import control_name, curve_difference_text
from harness.report.decoded_map import decodes_reference, reference_stems, visible_token
from harness.report.heat_maps import phase_layers, phase_maps, token_shares
from harness.report.image_flow import describe_flow
from harness.report.palette import PHASES
from harness.report.phase_diagram import Band
from harness.storage.file_names import short_name

_OVERLAY = (
    "Open dots are the means of {name}. A triangle at the top marks a layer that differs; a stroke marks a layer that "
    "changed within the margin."
)
_OVERLAID = ("inter", "intra", "attention", "recall", "steps", "norms", "integration", "image_attention")

# The number of decoded tokens shown per layer.
_MOST_WORDS = 8

#: The caption of each kind of figure, without a number: the page numbers its figures.
CAPTIONS: Mapping[str, str] = {
    "diagram": "The phases over the relative depth. Numbers are layers, brackets below a band 99 % intervals; a "
    "triangle above a band marks a boundary of the baseline, or of the model compared with. A hollow phase is not "
    "confirmed.",
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
    "controls": "Inter-modal similarity minus the same curve under each control. Bands are 99 % intervals that hold at "
    "all points at once; a difference counts if its band lies beyond the dotted margin.",
    "steps": "Mean cosine of a token's states before and after each layer: 1 if the layer changes nothing. Bands are "
    "the middle 80 % of the samples, the dotted line the cosine from which on states count as settled.",
    "norms": "Mean norm of the image states divided by that of the text states, on a logarithmic scale.",
    "integration": "Cosine distance of the last token's state between the sample's image and a uniform grey image.",
    "image_attention": "The image's share of the instruction's attention weights, and of the last token's weights "
    "minus its share of the norms: above 0 where the last token attends to image tokens of small values, as to sinks.",
    "segments": "Number of monotone segments of the mean curve by prominence. Verdicts use the declared prominence, "
    "the dashed vertical line.",
    "lens": "One sample: the token that LogitLens decodes at each image token. Blue cells are words of the captions, "
    "grey cells other words or parts, empty cells no letters. At the right, the last token's first choice.",
    "flow": "Loss of a caption's log-likelihood if tokens after the image cannot attend to it in a window of layers "
    "(attention knockout), in nats: for all later tokens, and for the caption or the instruction alone. Intervals of "
    "99 % hold for all windows at once. Grey steps are the same with noise or a grey image in its place, and with "
    "other prompt tokens blocked instead; a loss below 0 means that the blocked tokens misled the model. The "
    "dashed line is the layer from which on the image is not needed.",
    "difference": "Inter-modal similarity of the first model minus that of the second. The band holds at all points at "
    "once; the models differ where it lies beyond the dotted margin.",
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


def figure_caption(kind: str, overlaid: str = "") -> str:
    """Return the caption of a figure; it explains the dots of what is drawn under the curves, if that has a name."""
    return f"{CAPTIONS[kind]} {_OVERLAY.format(name=overlaid)}" if overlaid and kind in _OVERLAID else CAPTIONS[kind]


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


def describe_decoded(drawing: Drawing, reading: PhaseReading) -> str:
    """Return a description of the map of decoded words: the share of the image tokens that decode a reference word."""
    shares = decodes_reference(drawing).mean(1)
    edges = ", ".join(f"{shares[edge]:.0%} at residual point {edge}" for edge in reading.phase_ends)
    last = visible_token(drawing.last_token[-1][0])
    return (
        f"Sample {short_name(drawing.sample_id)}, {len(drawing.image_tokens[0])} image tokens. Decoded as a word of "
        f"the captions: {edges}. The last token ends as {last}."
    )


def describe_difference(band: DifferenceBand, margin: float) -> str:
    """Return a description of the difference between two models: the layers beyond the margin, and the largest."""
    beyond = np.flatnonzero(np.abs(band.mean) - band.half_width > margin)
    worst = int(np.argmax(np.abs(band.mean)))
    where = f"at residual points {layer_ranges(beyond.tolist())}" if len(beyond) else "at no residual point"
    return (
        f"The similarity differs by more than {margin:.3g} {where}; the largest difference is "
        f"{band.mean[worst]:+.2f} at {worst}."
    )


def decoded_layers(drawing: Drawing) -> list[DecodedLayer]:
    """Return the decoded tokens of a sample at every residual point; tokens that a caption contains are marked."""
    stems = reference_stems(drawing)

    def token(text: str, count: int = 1) -> DecodedToken:
        return DecodedToken(visible_token(text), count, stem(shorten(text, LONGEST_TOKEN)) in stems)

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
        f" The control {control_name(profile, name)} has {curves['inter'].mean(0)[edges[1]]:.2f} at layer {edges[1]}."
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
    names = profile.measured(f"norm_{group}" for group in SHARE_GROUPS)
    if not names:
        return "Attention was not measured."
    sentences = []
    for phase, layers in zip(PHASES, phase_layers(reading), strict=True):
        shares = ", ".join(
            f"{name.removeprefix('norm_')} {profile[name].mean(0)[list(layers)].mean():.0%}" for name in names
        )
        sentences.append(f"phase {phase.number}: {shares}")
    return f"Mean shares of the last token's attention, {'; '.join(sentences)}."


def _controls(_: Profile, reading: PhaseReading) -> str:
    texts = [
        f"real minus {control}: {curve_difference_text(curve_difference(rows['inter'], control, reading.alpha))}"
        for control, rows in reading.control_differences.items()
    ]
    return f"Confirmed differences to the controls, {'; '.join(texts)}." if texts else "No control was measured."


def _states(*names: str) -> Callable[[Profile, PhaseReading], str]:
    """Return a function that describes the means of measures at the ends of the phases."""

    def describe(profile: Profile, reading: PhaseReading) -> str:
        if not profile.measured(names):
            return "It was not measured."
        return "At the ends of the phases: " + _at_edges(profile, reading, names)

    return describe


def _segments(profile: Profile, reading: PhaseReading) -> str:
    segments = reading.any_segments
    return (
        f"At the declared prominence {segments.count} monotone segments are statistically "
        f"confirmed, and at most {segments.at_most} are possible."
    )


def _at_edges(profile: Profile, reading: PhaseReading, names: Sequence[str]) -> str:
    edges = reading.phase_ends

    def values(mean: Array) -> str:
        # A curve over layers has no value at layer 0.
        missing = profile.depth + 1 - len(mean)
        return ", ".join(f"{mean[edge - missing]:.2f} at layer {edge}" for edge in edges if edge >= missing)

    titles = {"recall_5": "top 5", "recall_1": "top 1", "recall_chance_5": "another sample's words"}
    titles |= {name: MEASURES[name].title for name in names if name in MEASURES and MEASURES[name].figure}
    curves = profile.measured(names)
    return "; ".join(f"{titles.get(name, name)} {values(profile[name].mean(0))}" for name in curves) + "."


_PANELS = {
    "flow": lambda _, reading: describe_flow(reading.knockout),
    "inter": _inter,
    "intra": _intra,
    "attention": _attention,
    "recall": _recall,
    "controls": _controls,
    "steps": _states("step_image", "step_text"),
    "norms": _states("norm_ratio"),
    "integration": _states("visual_integration"),
    "image_attention": _states("instruction_share", "sink_share"),
    "segments": _segments,
}
