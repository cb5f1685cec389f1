"""The measured arrays of one (model, dataset) pair with their provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import did_you_mean
from harness.profile.configuration import CHECKPOINT
from harness.profile.configuration_changes import ConfigurationChanges, configuration_changes
from harness.profile.environment import Environment
from harness.profile.measures import MEASURES, RECALL
from harness.profile.pair import Pair

Array = NDArray[Any]

#: Value of `declared["first_token"]` for prompts without a BOS token.
AS_TEXT = "text"
#: Value of `declared["instruction"]` if the samples have different instructions.
ONE_PER_SAMPLE = "one per sample"


class UnknownMeasureError(KeyError):
    """A profile has no array with a name; the message lists the names that it has."""

    def __str__(self) -> str:
        # A KeyError quotes its message.
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Drawing:
    """A sample in full, for figures: the last token's norms over all tokens, and the text that LogitLens decodes.

    norm_rows: (L, tokens). groups: name -> bool (tokens,). image_tokens: decoded text, points x image tokens (top 1).
    last_token: decoded text, points x 5. tokens: the prompt's own tokens as text, (tokens,). image: the input of the
    vision tower, uint8 (height, width, 3). grid: rows and columns of image tokens that tile the image; None if they do
    not, with the reason in no_grid_reason. bos: text of the BOS token, which belongs to no text group; empty if the
    first token that is no image token is ordinary text.
    """

    sample_id: str
    instruction: str
    captions: tuple[str, ...]
    norm_rows: Array
    groups: Mapping[str, Array]
    image_tokens: tuple[tuple[str, ...], ...]
    last_token: tuple[tuple[str, ...], ...]
    tokens: tuple[str, ...]
    image: Array
    grid: tuple[int, int] | None
    no_grid_reason: str = ""
    bos: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Profile:
    """The measurement of a pair, one row per sample.

    `arrays` holds the following, with n samples, L layers and P = L + 1 residual points.
    The similarity curves of `measures.CURVES`: cosines, float32 (n, P).
    Arrays `post_norm_<curve>`: the same after the final norm, (n,).
    Arrays `norm_<group>` and `weight_<group>` for `measures.SHARE_GROUPS`: shares of the last token's attention, (n,
    L). They are 0 in layers without shares.
    Arrays `hits` and `chance_hits`: words found by LogitLens at the image tokens, int (n, P, 2) for k = 1 and 5.
    Arrays `words` and `chance_words`: the numbers of words sought, (n,). Without recall these four arrays are absent.
    Array `exit_agreement`: 0 or 1, (n, P).

    `controls` holds the similarity curves of every measured control, float32 (m, P). `control_samples` holds the ids of
    the m samples of a control, in the order of its rows; a control that is absent there has all samples.

    For items of two images and two captions `arrays` also holds `likelihood_own` and `likelihood_other` (n,): the
    log-likelihoods of the sample's own and of the other caption, in nats; NaN if the other side is missing.

    `revision` is the commit of a model from the hub. `left_out` maps unavailable measurements to the reason.
    `configuration` holds the settings of model, processor and modules by key (`configuration.read_configuration`);
    empty if they were not recorded.

    `between_samples` holds the mean cosines between the image tokens of one sample and the text tokens of another,
    float32 (P, n, n); the second axis is the sample of the image. It is None in a stored profile.

    `declared` holds every choice that affects the numbers; profiles with different declarations cannot be compared.

    Example:
        >>> from pathlib import Path
        >>> from harness.baselines.store import read_baseline
        >>> baseline = read_baseline(Path("baselines/scenes-llava/scenes.json"))
        >>> profile = baseline.profile
        >>> profile.n, profile.depth
        (128, 30)
        >>> profile["inter"].shape
        (128, 31)
        >>> profile["norm_image"].shape
        (128, 30)
    """

    model: str
    dataset: str
    sample_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    token_hashes: tuple[str, ...]
    pixel_hashes: tuple[str, ...]
    arrays: Mapping[str, Array]
    declared: Mapping[str, Any]
    environment: Environment
    weights: str
    drawings: tuple[Drawing, ...] = field(default=(), compare=False)
    controls: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    control_samples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    revision: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict, compare=False)
    between_samples: Array | None = field(default=None, compare=False)
    configuration: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Profile {self.pair}: {self.n} samples, {self.depth} layers>"

    @property
    def pair(self) -> str:
        """The id of the pair, `model-dataset`."""
        return str(Pair(self.model, self.dataset))

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.sample_ids)

    @property
    def no_recall(self) -> str:
        """The reason why the recall of words was omitted; empty if it was measured."""
        if self.measured(name for name, measure in MEASURES.items() if measure.kind is RECALL):
            return ""
        return str(self.declared.get("recall_left_out", "it was not measured"))

    def measured(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names that the profile has, in their order; only those of `PHASE_CURVES` are always measured."""
        counts = "hits" in self.arrays
        return tuple(name for name in names if name in self.arrays or (counts and name.startswith("recall_")))

    def without_control(self) -> set[str]:
        """Return the names of the measures that are absent because their control was not measured."""
        needed = {name: measure.kind.control for name, measure in MEASURES.items() if measure.kind.control}
        return {name for name, control in needed.items() if control not in self.controls and name not in self.arrays}

    @property
    def depth(self) -> int:
        """The number L of decoder layers."""
        return int(self.arrays["inter"].shape[1]) - 1

    def __getitem__(self, name: str) -> Array:
        """Return the array `name`; `recall_1`, `_5`, `recall_chance_1` and `_5` (n, P) are computed from counts.

        Raises:
            UnknownMeasureError: the profile has no such array.
        """
        if name not in self.names:
            raise UnknownMeasureError(self._unknown(name))
        if name.startswith("recall_") and name not in self.arrays:
            recall = name.replace("chance_", "")
            chance = "" if name == recall else "chance_"
            hits, words = self.arrays[f"{chance}hits"], self.arrays[f"{chance}words"]
            return np.asarray(hits[:, :, MEASURES[recall].column] / words[:, None], dtype=np.float64)
        return self.arrays[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its arrays, with those that are computed from counts."""
        recalls = [name for name in MEASURES if name.startswith("recall_")] if "hits" in self.arrays else []
        chance = [name.replace("recall_", "recall_chance_") for name in recalls]
        return tuple(dict.fromkeys((*self.arrays, *recalls, *chance)))

    def _unknown(self, name: str) -> str:
        if name.startswith("recall_") and self.no_recall:
            return f"{self.pair} has no {name}: recall is left out, because {self.no_recall}"
        return f"{self.pair} has no measure {name!r}; it has {', '.join(self.names)}{did_you_mean(name, self.names)}"

    def readjusted_similarity(self, rows: Sequence[int]) -> Array | None:
        """Return `inter_adjusted` of some samples, adjusted over these samples only.

        Args:
            rows: indices of the samples, without repetition.

        Returns:
            (rows, P). For a subset: None if it has one row, or if the profile has no cosines between samples.
        """
        if len(rows) == self.n:
            return self.arrays["inter_adjusted"][list(rows)]
        if self.between_samples is None or len(rows) < 2:
            return None
        cosines = self.between_samples[np.ix_(range(self.depth + 1), rows, rows)].astype(np.float64)
        paired = np.diagonal(cosines, axis1=1, axis2=2)
        others = (cosines.sum(axis=2) - paired) / (len(rows) - 1)
        return np.asarray((paired - others).T)

    def samples_of(self, control: str) -> tuple[str, ...]:
        """Return the ids of the samples that a control was measured on, in the order of its rows."""
        return self.control_samples.get(control, self.sample_ids)

    def control_rows(self, control: str) -> list[int]:
        """Return the index of the sample of each row of a control."""
        row_of_sample = {sample: row for row, sample in enumerate(self.sample_ids)}
        return [row_of_sample[sample] for sample in self.samples_of(control)]

    def changes(self, earlier: Profile) -> list[str]:
        """Return all changes of configuration, weights and environment, each as 'field: earlier -> current'."""
        changes = self.configuration_changes(earlier).lines()
        return changes + self._weights_change(earlier) + self.environment.differences(earlier.environment)

    def main_changes(self, earlier: Profile) -> list[str]:
        """Return the changes for a message: only the first settings, and a note if the weights are unchanged."""
        if not self.changes(earlier):
            return []
        changes = self.configuration_changes(earlier).abridged()
        weights = self._weights_change(earlier) or ["weights unchanged"]
        return changes + weights + self.environment.differences(earlier.environment)

    def configuration_changes(self, earlier: Profile) -> ConfigurationChanges:
        """Return the settings that differ between the two configurations; none if one was not recorded."""
        same_release = self.environment.transformers == earlier.environment.transformers
        return configuration_changes(self.configuration, earlier.configuration, same_release=same_release)

    def _weights_change(self, earlier: Profile) -> list[str]:
        if self.weights == earlier.weights:
            return []
        stored = self.configuration.get(CHECKPOINT)
        if stored is not None and stored == earlier.configuration.get(CHECKPOINT):
            return ["weights: only computed buffers differ"]
        return [f"weights: {earlier.weights} -> {self.weights}"]

    def select(self, ids: Sequence[str]) -> Profile:
        """Return the profile restricted to the samples `ids`, in that order.

        Each `inter_adjusted` stays adjusted over all samples of this profile. A control is left out if it was measured
        on none of the samples.

        Raises:
            KeyError: an id was not measured.
        """
        row_of_sample = {sample: row for row, sample in enumerate(self.sample_ids)}
        rows, points = [row_of_sample[sample] for sample in ids], range(self.depth + 1)

        def pick_names(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(names[row] for row in rows)

        def pick_rows(arrays: Mapping[str, Array], rows: Sequence[int] = rows) -> dict[str, Array]:
            return {name: array[rows] for name, array in arrays.items()}

        controls, control_samples = {}, {}
        for control, curves in self.controls.items():
            row_of_control = {sample: row for row, sample in enumerate(self.samples_of(control))}
            if common := tuple(sample for sample in ids if sample in row_of_control):
                controls[control] = pick_rows(curves, [row_of_control[sample] for sample in common])
                control_samples[control] = common
        between = self.between_samples
        return replace(
            self,
            sample_ids=pick_names(self.sample_ids),
            clusters=pick_names(self.clusters),
            token_hashes=pick_names(self.token_hashes),
            pixel_hashes=pick_names(self.pixel_hashes),
            arrays=pick_rows(self.arrays),
            controls=controls,
            control_samples=control_samples,
            drawings=(),
            between_samples=None if between is None or len(rows) < self.n else between[np.ix_(points, rows, rows)],
        )


def as_floats(array: Array) -> Array:
    """Return the array in float64, the dtype of the analysis."""
    return array.astype(np.float64)
