"""The measured arrays of one (model, dataset) pair with their provenance; saving, loading and selecting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.profile.configuration import CHECKPOINT
from harness.profile.configuration_changes import ConfigurationChanges, configuration_changes
from harness.profile.environment import Environment
from harness.profile.measures import MEASURES
from harness.profile.pair import Pair

Array = NDArray[Any]

#: `declared["first_token"]` of prompts that begin without a BOS.
AS_TEXT = "text"


@dataclass(frozen=True, slots=True)
class Drawing:
    """One sample in full, for figures: the last token's norms over all tokens, and what the dense lens decodes.

    norm_rows: (L, tokens). groups: name -> bool (tokens,). image_tokens: decoded text, points x image tokens (top 1).
    last_token: decoded text, points x 5. tokens: the prompt's own tokens as text, (tokens,). picture: what the vision
    tower was shown, uint8 (height, width, 3). grid: rows and columns of image tokens that tile the picture, None where
    they do not, and then no_grid_reason says why. bos: the text of the BOS that the prompt begins with, which belongs
    to no group of text; empty if the first token that is no image token is text.
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
    """All that was measured of a pair, one row per sample.

    `arrays` holds, with n samples, P = L + 1 residual points and L layers:
    the similarity curves of `measures.CURVES`, float32 (n, P), cosines; `post_norm_<curve>` (n,) after the final norm;
    `norm_<group>` and `weight_<group>` for `measures.SHARE_GROUPS`, shares of the last token's attention (n, L), all 0
    in layers that have none;
    `hits` and `chance_hits`, words found by LogitLens at the image tokens, int (n, P, 2) for k = 1 and 5, of `words`
    and `chance_words` (n,), none of the four where recall was left out; `exit_agreement`, 0 or 1, (n, P).

    `controls` holds, for every control that was measured, the similarity curves on the same samples.

    Of items of two pictures and two captions `arrays` also holds `likelihood_own` and `likelihood_other` (n,), the
    log-likelihoods of the sample's own and of the other caption, in nats; NaN where the other side is missing.

    `revision` is the commit of a model from the hub. `left_out` names what could not be measured, and why.
    `configuration` holds the settings of model, processor and modules by key (`configuration.read_configuration`);
    empty where they were not recorded.

    `between_samples` holds the mean cosines between the image tokens of one sample and the text tokens of another,
    float32 (P, n, n), the sample of the image first. A stored profile has none.

    `declared` names every choice that the numbers depend on; profiles that declare different things do not compare.
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
        """Why the recall of words was left out; empty where it was measured."""
        return str(self.declared.get("recall_left_out", ""))

    def measured(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of the names that the profile has, in their order: no recall where it was left out."""
        counts = "hits" in self.arrays
        return tuple(name for name in names if name in self.arrays or (counts and name.startswith("recall_")))

    @property
    def depth(self) -> int:
        """The number L of decoder layers."""
        return int(self.arrays["inter"].shape[1]) - 1

    def __getitem__(self, name: str) -> Array:
        """The array `name`; where there is none `recall_1`, `_5`, `recall_chance_1` or `_5` (n, P) made of counts."""
        if name.startswith("recall_") and name not in self.arrays:
            recall = name.replace("chance_", "")
            chance = "" if name == recall else "chance_"
            hits, words = self.arrays[f"{chance}hits"], self.arrays[f"{chance}words"]
            return np.asarray(hits[:, :, MEASURES[recall].column] / words[:, None], dtype=np.float64)
        return self.arrays[name]

    def readjusted_similarity(self, rows: Sequence[int]) -> Array | None:
        """Return `inter_adjusted` of some samples, each adjusted over the others of these only.

        Args:
            rows: of the samples, without repetition.

        Returns:
            (rows, P); None if they are not all samples, and no cosines between the samples are there, or only one row.
        """
        if len(rows) == self.n:
            return self.arrays["inter_adjusted"][list(rows)]
        if self.between_samples is None or len(rows) < 2:
            return None
        cosines = self.between_samples[np.ix_(range(self.depth + 1), rows, rows)].astype(np.float64)
        own = np.diagonal(cosines, axis1=1, axis2=2)
        others = (cosines.sum(axis=2) - own) / (len(rows) - 1)
        return np.asarray((own - others).T)

    def changes(self, then: Profile) -> list[str]:
        """Return all that differs in configuration, weights and environment, each as 'field: then -> now'."""
        changes = self.configuration_changes(then).lines()
        return changes + self._weights_change(then) + self.environment.differences(then.environment)

    def main_changes(self, then: Profile) -> list[str]:
        """Return the same for a message: the first settings only, and weights that did not change are said to be so."""
        if not self.changes(then):
            return []
        changes = self.configuration_changes(then).abridged()
        weights = self._weights_change(then) or ["weights the same"]
        return changes + weights + self.environment.differences(then.environment)

    def configuration_changes(self, then: Profile) -> ConfigurationChanges:
        """Return the settings in which the two configurations differ; none where one was not recorded."""
        same_release = self.environment.transformers == then.environment.transformers
        return configuration_changes(self.configuration, then.configuration, same_release=same_release)

    def _weights_change(self, then: Profile) -> list[str]:
        if self.weights == then.weights:
            return []
        stored = self.configuration.get(CHECKPOINT)
        if stored is not None and stored == then.configuration.get(CHECKPOINT):
            return ["weights: the same but for computed buffers"]
        return [f"weights: {then.weights} -> {self.weights}"]

    def select(self, ids: Sequence[str]) -> Profile:
        """Return the same profile with the samples of `ids` only, in that order.

        Each `inter_adjusted` stays adjusted over all samples of this profile.

        Raises:
            KeyError: an id was not measured.
        """
        place = {sample: row for row, sample in enumerate(self.sample_ids)}
        rows, points = [place[sample] for sample in ids], range(self.depth + 1)

        def pick(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(names[row] for row in rows)

        def picked(arrays: Mapping[str, Array]) -> dict[str, Array]:
            return {name: array[rows] for name, array in arrays.items()}

        between = self.between_samples
        return replace(
            self,
            sample_ids=pick(self.sample_ids),
            clusters=pick(self.clusters),
            token_hashes=pick(self.token_hashes),
            pixel_hashes=pick(self.pixel_hashes),
            arrays=picked(self.arrays),
            controls={control: picked(curves) for control, curves in self.controls.items()},
            drawings=(),
            between_samples=None if between is None or len(rows) < self.n else between[np.ix_(points, rows, rows)],
        )


def as_floats(array: Array) -> Array:
    """Return the array in float64, as the analysis takes it."""
    return array.astype(np.float64)
