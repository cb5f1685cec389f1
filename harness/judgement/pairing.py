"""Matching of the samples of two profiles, and of the inputs that both models received."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.margins import Pairing, pair_samples
from harness.profile.profile import Array, Profile, as_floats


@dataclass(frozen=True, slots=True)
class InputMatch:
    """The common samples of a run and its baseline.

    `changed_tokens` and `changed_pixels` are the ids of samples whose model inputs differ from the baseline's. `nested`
    is True if all samples of one side also belong to the other, with the same inputs. With `by_id`, the inputs belong
    to two models, and samples are paired even if their inputs differ.
    """

    pairing: Pairing
    changed_tokens: tuple[str, ...]
    changed_pixels: tuple[str, ...]
    nested: bool
    by_id: bool = False

    @property
    def aligned(self) -> bool:
        """True if rows can be compared in pairs, which a reproduction check can do even with few common samples."""
        return self.pairing.paired or self.nested

    @property
    def changed(self) -> str:
        """A description of the changed inputs; empty if none changed."""
        names = tuple(dict.fromkeys((*self.changed_tokens, *self.changed_pixels)))
        if not names:
            return ""
        common = len(self.pairing.measured) + len(self.pairing.changed)
        counts = (
            f"{len(self.changed_tokens)} have other token ids and {len(self.changed_pixels)} other pixels "
            f"(first: {names[0]})"
        )
        if self.by_id:
            comparison = "; they are still compared in pairs, because images and captions are the same"
            return (
                f"the two models receive different inputs: of {common} samples, {counts}"
                f"{comparison if self.pairing.paired else ''}"
            )
        return (
            f"the inputs changed: of {common} samples with the baseline's ids, {counts}; look at the processor, "
            "the preprocessing or the data"
        )


def common_values(measured: Profile, baseline: Profile, measure: str, pairing: Pairing) -> tuple[Array, Array] | None:
    """Return the values of a measure for the common samples of two profiles, each a float64 array (samples, positions).

    `inter_adjusted` relates a sample to all others, so both sides are adjusted over the common samples.

    Returns:
        None if one side has further samples and cannot be adjusted over the common samples alone.
    """
    profiles_and_rows = ((measured, pairing.measured), (baseline, pairing.baseline))
    if measure == "inter_adjusted":
        values = [profile.readjusted_similarity(rows.tolist()) for profile, rows in profiles_and_rows]
    else:
        values = [profile[measure][rows] for profile, rows in profiles_and_rows]
    measured_values, baseline_values = values
    if measured_values is None or baseline_values is None:
        return None
    return as_floats(measured_values), as_floats(baseline_values)


def match_inputs(measured: Profile, baseline: Profile, *, by_id: bool = False) -> InputMatch:
    """Match the samples of two profiles by id and, unless `by_id`, by the hash of their model inputs."""
    baseline_rows = {sample: row for row, sample in enumerate(baseline.sample_ids)}
    common = [(row, sample) for row, sample in enumerate(measured.sample_ids) if sample in baseline_rows]

    def changed(measured_hashes: tuple[str, ...], baseline_hashes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sample for row, sample in common if measured_hashes[row] != baseline_hashes[baseline_rows[sample]])

    profiles = (measured, baseline)
    hashes = [
        profile.sample_ids if by_id else list(zip(profile.token_hashes, profile.pixel_hashes, strict=True))
        for profile in profiles
    ]
    pairing = pair_samples(measured.sample_ids, baseline.sample_ids, *hashes)
    return InputMatch(
        pairing=pairing,
        changed_tokens=changed(measured.token_hashes, baseline.token_hashes),
        changed_pixels=changed(measured.pixel_hashes, baseline.pixel_hashes),
        nested=len(pairing.measured) == min(measured.n, baseline.n) and not pairing.changed,
        by_id=by_id,
    )
