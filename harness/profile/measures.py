"""The table of measures: one row for every curve that is stored, judged point by point, and plotted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from harness.analysis.margins import ATTENTION_MARGIN_SHARE, CURVE_MARGIN_SHARE, NORM_MARGIN_SHARE


@dataclass(frozen=True, slots=True)
class Axis:
    """The residual points or layers at which a measure has values; output numbers them from `first`."""

    name: str
    first: int

    def positions(self, indices: Iterable[int]) -> tuple[int, ...]:
        """Return the numbers that output uses for indices into a curve."""
        return tuple(index + self.first for index in indices)

    def describe(self, indices: Iterable[int]) -> str:
        """Return text for indices into a curve: 'residual points 3, 6-8'."""
        positions = self.positions(indices)
        return f"{self.name}{'s' if len(positions) > 1 else ''} {layer_ranges(positions)}"


POINTS, LAYERS = Axis("residual point", 0), Axis("layer", 1)


@dataclass(frozen=True, slots=True)
class MeasureKind:
    """The properties that measures of one kind share.

    `margin` is the largest equivalent difference of a mean curve, as a share of its range. It is None for counts of
    words and tokens, which have the declared margins of recall. `counts` names the arrays of a profile from which such
    measures are computed; other measures are stored under their own name. `traced` is True if a value depends only on
    earlier layers, so that it shows up to which layer two models are the same. `scale` names the arrays whose largest
    mean multiplies the tolerances; measures without a bound, such as ratios and nats, have it. `control` names the
    control that such measures are compared with; they are absent if it was not measured.
    """

    title: str
    axis: Axis
    margin: float | None
    traced: bool = True
    counts: tuple[str, ...] = ()
    scale: tuple[str, ...] = ()
    control: str = ""


SIMILARITY = MeasureKind("similarity", POINTS, CURVE_MARGIN_SHARE)
RECALL = MeasureKind("LogitLens recall", POINTS, None, counts=("hits", "words", "chance_hits", "chance_words"))
ATTENTION = MeasureKind("attention", LAYERS, ATTENTION_MARGIN_SHARE)
# Every point is compared with the model's output, which depends on the last layer.
EXIT = MeasureKind("exit agreement", POINTS, None, traced=False)
NORMS = MeasureKind("norms of states", POINTS, NORM_MARGIN_SHARE, scale=("norm_ratio",))
STEPS = MeasureKind("steps of states", LAYERS, CURVE_MARGIN_SHARE)
INTEGRATION = MeasureKind("visual integration", POINTS, CURVE_MARGIN_SHARE, control="blank")
# A caption's likelihood depends on all layers, also if attention is blocked in a few. Each loss is a difference of two
# likelihoods and has their rounding, also if it is small.
KNOCKOUT = MeasureKind(
    "attention knockout", LAYERS, CURVE_MARGIN_SHARE, traced=False, scale=("knockout", "knockout_likelihood")
)
KINDS = (SIMILARITY, RECALL, ATTENTION, EXIT, NORMS, STEPS, INTEGRATION, KNOCKOUT)


class CurveStyle(NamedTuple):
    """The style of a curve in figures: a colour name of `report.palette`, a matplotlib line style, and a legend."""

    colour: str
    style: str
    label: str


@dataclass(frozen=True, slots=True)
class Measure:
    """A curve that is measured for every sample.

    `family` names the group of measures that one case judges together. `reading` names the array of `probe.Readings`
    with its values, (samples, positions), or with a `column` (samples, positions, columns). `reading` is empty for a
    measure computed from all samples together, or from a control. A measure without a `line` is not plotted; `figure`
    names the figure that shows it, empty for that of its family.
    """

    name: str
    title: str
    family: str
    kind: MeasureKind
    reading: str
    column: int | None = None
    line: CurveStyle | None = None
    figure: str = ""

    @property
    def axis(self) -> Axis:
        """The residual points or layers of its values."""
        return self.kind.axis

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of the arrays of a profile that hold it."""
        return self.kind.counts or (self.name,)


@dataclass(frozen=True, slots=True)
class Family:
    """Measures that one case judges together."""

    name: str
    title: str

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Its measures, in the order of the table."""
        return tuple(measure for measure in MEASURES.values() if measure.family == self.name)


#: The family of the losses under attention knockout, and the name of its first measure and the prefix of its arrays.
KNOCKOUT_FAMILY = "knockout"
FAMILIES = {
    family.name: family
    for family in (
        Family("inter", "inter-modal similarity"),
        Family("intra", "intra-modal similarity"),
        Family("attention", "attention of the last token"),
        Family("lens", "LogitLens"),
        Family("states", "norms, steps and visual integration of the states"),
        Family(KNOCKOUT_FAMILY, "attention knockout"),
    )
}
#: Token groups of the last token's attention shares, in the order of the columns.
SHARE_GROUPS = ("image", "instruction", "other", "self")
_SHARE_LINES = (
    CurveStyle("green", "-", "image"),
    CurveStyle("orange", "--", "instruction"),
    CurveStyle("purple", "-.", "other text"),
    CurveStyle("red", ":", "the last token itself"),
)
_ROWS = (
    Measure(
        "inter", "inter-modal similarity", "inter", SIMILARITY, "similarity", 0,
        CurveStyle("blue", "-", "image and text tokens"),
    ),
    Measure(
        "inter_instruction", "inter-modal similarity with the instruction's tokens", "inter", SIMILARITY,
        "similarity", 1, CurveStyle("orange", "--", "image and instruction tokens"),
    ),
    Measure(
        "inter_adjusted", "anisotropy-adjusted inter-modal similarity", "inter", SIMILARITY, "", None,
        CurveStyle("red", "-.", "anisotropy-adjusted"),
    ),
    *(
        Measure(
            name, f"similarity within the {name} tokens", "intra", SIMILARITY, "similarity", column,
            CurveStyle(colour, style, f"within the {name} tokens"),
        )
        for name, column, colour, style in (
            ("image", 2, "green", "-"), ("text", 3, "purple", "--"), ("instruction", 4, "orange", "-."),
        )
    ),
    *(
        Measure(
            f"{kind}_{group}", f"{title} of the last token on {group}", "attention", ATTENTION,
            f"{kind}_shares", column, _SHARE_LINES[column] if kind == "norm" else None,
        )
        for kind, title in (("norm", "norm-based attention"), ("weight", "attention weight"))
        for column, group in enumerate(SHARE_GROUPS)
    ),
    Measure(
        "sink_share", "attention weight on the image minus its share of the norms", "attention", ATTENTION,
        "sink_share", None, CurveStyle("red", "--", "last token, weight minus norm"), "image_attention",
    ),
    Measure(
        "instruction_share", "attention weight of the instruction's tokens on the image", "attention", ATTENTION,
        "instruction_share", None, CurveStyle("orange", "-", "instruction's tokens, weight"), "image_attention",
    ),
    Measure("recall_1", "LogitLens recall (top 1)", "lens", RECALL, "hits", 0, CurveStyle("orange", "--", "top 1")),
    Measure("recall_5", "LogitLens recall (top 5)", "lens", RECALL, "hits", 1, CurveStyle("blue", "-", "top 5")),
    Measure("exit_agreement", "exit agreement of the last token", "lens", EXIT, "exit_agreement"),
    Measure(
        "norm_ratio", "norm of image states over norm of text states", "states", NORMS, "norm_ratio", None,
        CurveStyle("blue", "-", "image over text tokens"), "norms",
    ),
    *(
        Measure(
            f"step_{name}", f"cosine of {name} states before and after a layer", "states", STEPS, "step_cosine", column,
            CurveStyle(colour, style, f"{name} tokens"), "steps",
        )
        for name, column, colour, style in (("image", 0, "green", "-"), ("text", 1, "purple", "--"))
    ),
    Measure(
        "visual_integration", "distance of the last token's state to that with a blank image", "states", INTEGRATION,
        "", None, CurveStyle("blue", "-", "the last token, real against blank"), "integration",
    ),
    *(
        Measure(
            name, f"loss with the image blocked for {tokens}", KNOCKOUT_FAMILY, KNOCKOUT, "", None,
            CurveStyle(colour, style, tokens), "flow",
        )
        for name, tokens, colour, style in (
            ("knockout", "all later tokens", "blue", "-"),
            ("knockout_answer", "the caption", "green", "--"),
            ("knockout_instruction", "the instruction", "orange", "-."),
        )
    ),
)  # fmt: skip
#: Every measure by name, in the order in which they are judged.
MEASURES = {measure.name: measure for measure in _ROWS}
#: The curves from which phases are read. Any other measure may be absent from a profile or a baseline.
PHASE_CURVES = ("inter", "image", "text")
#: The similarity curves, which controls also have.
CURVES = tuple(measure.name for measure in _ROWS if measure.kind is SIMILARITY)


def plotted_measures(figure: str) -> tuple[str, ...]:
    """Return the names of the measures that a figure shows, in the order of the table."""
    rows = (measure for measure in MEASURES.values() if measure.line is not None)
    return tuple(measure.name for measure in rows if (measure.figure or measure.family) == figure)


def chance_measure(recall: str) -> str:
    """Return the name of a recall measure's chance level: `recall_chance_5` for `recall_5`."""
    return recall.replace("recall_", "recall_chance_")


#: The declared choice of a profile: the number of layers in a window.
KNOCKOUT_WINDOW = "knockout_window"
#: The paths of `probe.knockout` that are measured with real images, each a measure.
KNOCKOUT_PATHS = ("later", "answer", "instruction")
#: The control of a knockout that blocks other prompt tokens than the image, which is also its path.
OTHER_TOKENS = "other"


def knockout_array(control: str, path: str) -> str:
    """Return the name of the array with the losses of a path of `probe.knockout`, under a control or, if empty, none.

    `knockout` is the path of all later tokens with real images: `knockout_answer`, `knockout_noise_instruction`.
    """
    return "_".join(["knockout", *filter(None, dict.fromkeys((control, path.replace("later", ""))))])


def layer_ranges(layers: Iterable[int]) -> str:
    """Return sorted layers as text with ranges: '3, 17-19'."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
