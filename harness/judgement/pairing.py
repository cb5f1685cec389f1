"""Which samples of two profiles belong together, and whether both models were given the same."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.margins import Pairing, pair_samples
from harness.profile.profile import Array, Profile, as_floats


@dataclass(frozen=True, slots=True)
class InputMatch:
    """How the samples of a run and its baseline belong together.

    `changed_tokens` and `changed_pixels` are samples with the baseline's id but other model inputs. `nested` says that
    one has only samples of the other, with the same inputs. With `by_id` the inputs are those of two models, and
    samples are in pairs whatever their inputs are.
    """

    pairing: Pairing
    changed_tokens: tuple[str, ...]
    changed_pixels: tuple[str, ...]
    nested: bool
    by_id: bool = False

    @property
    def aligned(self) -> bool:
        """Whether rows lie side by side: few common samples still tell whether they reproduce."""
        return self.pairing.paired or self.nested

    @property
    def changed(self) -> str:
        """What changed, in words; empty where nothing did."""
        names = tuple(dict.fromkeys((*self.changed_tokens, *self.changed_pixels)))
        if not names:
            return ""
        common = len(self.pairing.measured) + len(self.pairing.changed)
        counts = (
            f"{len(self.changed_tokens)} have other token ids and {len(self.changed_pixels)} other pixels "
            f"(first: {names[0]})"
        )
        if self.by_id:
            pairs = "; they are still compared in pairs, by the same pictures and captions"
            return (
                f"the two models are not given the same: of {common} samples, {counts}"
                f"{pairs if self.pairing.paired else ''}"
            )
        return (
            f"the inputs changed: of {common} samples with the baseline's ids, {counts}; look at the processor, "
            "the preprocessing or the data"
        )


def common_values(now: Profile, baseline: Profile, measure: str, pairing: Pairing) -> tuple[Array, Array] | None:
    """Return the values of a measure for the common samples of two profiles, float64 (common, places) each.

    `inter_adjusted` relates a sample to all others, so it is adjusted over the common samples on both sides.

    Returns:
        None if one side has more samples than the common ones, and cannot be adjusted over these.
    """
    sides = ((now, pairing.measured), (baseline, pairing.baseline))
    if measure == "inter_adjusted":
        values = [profile.readjusted_similarity(rows.tolist()) for profile, rows in sides]
    else:
        values = [profile[measure][rows] for profile, rows in sides]
    x, y = values
    return None if x is None or y is None else (as_floats(x), as_floats(y))


def match_inputs(now: Profile, baseline: Profile, *, by_id: bool = False) -> InputMatch:
    """How the samples of two profiles belong together, by id and, unless `by_id`, by the hash of their model inputs."""
    place = {sample: row for row, sample in enumerate(baseline.sample_ids)}
    both = [(row, sample) for row, sample in enumerate(now.sample_ids) if sample in place]

    def changed(hashes_now: tuple[str, ...], hashes_then: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sample for row, sample in both if hashes_now[row] != hashes_then[place[sample]])

    profiles = (now, baseline)
    hashes = [
        profile.sample_ids if by_id else list(zip(profile.token_hashes, profile.pixel_hashes, strict=True))
        for profile in profiles
    ]
    pairing = pair_samples(now.sample_ids, baseline.sample_ids, *hashes)
    return InputMatch(
        pairing=pairing,
        changed_tokens=changed(now.token_hashes, baseline.token_hashes),
        changed_pixels=changed(now.pixel_hashes, baseline.pixel_hashes),
        nested=len(pairing.measured) == min(now.n, baseline.n) and not pairing.changed,
        by_id=by_id,
    )
