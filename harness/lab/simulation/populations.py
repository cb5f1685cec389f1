"""Synthetic pairs: populations of samples from which profiles are drawn, measured again and turned into baselines."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.analysis.calibration import Calibration
from harness.analysis.curves import FloatArray
from harness.baselines.margin_table import margin_table, margin_values
from harness.baselines.store import Baseline
from harness.lab.simulation.synthetic import PLATEAU, SHALLOW, SHARP, Shape, layered_noise, shift_curves, stretch_curves
from harness.profile.environment import Environment
from harness.profile.measures import CURVES, MEASURES, SHARE_GROUPS
from harness.profile.profile import Array, Profile

#: Standard deviation between samples of a cosine, and of the logarithm of an attention share.
SPREAD, SHARE_SPREAD = 0.08, 0.15
#: Noise of a second measurement in bfloat16: of one value, of a layer's mean, and relative noise of a share.
VALUE_NOISE, MEAN_NOISE, SHARE_NOISE = 3e-3, 2e-3, 0.012
#: Share of the samples in which the number of words found by the lens changes by one.
FLIPPED_SHARE = 0.05
#: Standard deviation between samples of the strength of a change; its mean is one.
STRENGTH_SPREAD = 0.25

# By measure: the offset and the factor that map the inter-modal mean to the mean of the measure, and the standard
# deviation between samples.
_MEANS: Mapping[str, tuple[float, float, float]] = {
    "inter": (0.0, 1.0, SPREAD),
    "inter_instruction": (0.02, 0.95, SPREAD),
    "inter_adjusted": (0.0, 0.15, SPREAD / 8),
    "image": (0.30, 0.5, SPREAD),
    "text": (0.15, 0.8, SPREAD / 2),
    "instruction": (0.10, 0.9, SPREAD / 2),
}
# By measure of the states and of the knockout: its mean at the first and the last position, and the standard deviation
# between samples.
_STATES: Mapping[str, tuple[float, float, float]] = {
    "norm_ratio": (3.0, 1.0, SPREAD),
    "step_image": (0.90, 0.97, SPREAD / 8),
    "step_text": (0.80, 0.95, SPREAD / 8),
    "visual_integration": (0.0, 0.30, SPREAD / 2),
    "instruction_share": (0.50, 0.20, SPREAD / 2),
    # In nats.
    "knockout": (10.0, 1.0, 3.0),
    "knockout_answer": (5.0, 1.0, 3.0),
    "knockout_instruction": (2.0, 0.0, 1.0),
}
_SHARES = {"image": 0.25, "instruction": 0.20, "other": 0.40, "self": 0.15}
_ENVIRONMENT = Environment("none", "none", "cpu", "simulated", "float32", "none")


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a model: shifted, stretched or flattened inter-modal curves, or lower recall of the lens.

    `layers` is a shift to later layers. `stretch` is a factor about each curve's mean over depth. `flattened` removes
    the fall of phase II. `lost_recall` is the drop in recall at the last residual point.
    """

    layers: float = 0.0
    stretch: float = 1.0
    flattened: bool = False
    lost_recall: float = 0.0

    def apply(self, x: FloatArray, shape: Shape, factor: float, rng: np.random.Generator) -> FloatArray:
        """Return changed curves (n, points) of a measure whose mean is `factor` times the shape.

        The strength of the change varies between samples.
        """
        strength = 1.0 + STRENGTH_SPREAD * rng.standard_normal(len(x))
        depth = x.shape[1] - 1
        x = shift_curves(x, np.maximum(self.layers * strength, 0.0)) if self.layers else x
        x = stretch_curves(x, 1.0 + (self.stretch - 1.0) * strength)
        if self.flattened:
            x = x + strength[:, None] * factor * (shape.without_fall().curve(depth) - shape.curve(depth))
        return x


UNCHANGED = Change()


def seed_of(seed: int, *draw: str | int) -> int:
    """Return the seed of one draw, independent of the order of draws and the number of processes.

    Args:
        seed: the seed of the run.
        draw: words and numbers that identify the draw.
    """
    key = [zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in draw]
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])


@dataclass(frozen=True, slots=True)
class Population:
    """A synthetic pair: the shape of its inter-modal curve, its depth, and the number of samples per image."""

    shape: Shape
    depth: int
    n: int
    per_image: int = 1

    @property
    def name(self) -> str:
        """The display name."""
        shared = f", {self.per_image} per image" if self.per_image > 1 else ""
        return f"{self.shape.name}, {self.depth} layers, n = {self.n}{shared}"

    def draw(self, seed: int, change: Change = UNCHANGED) -> Profile:
        """Return a profile of `n` samples; a seed draws the same samples with and without a change."""
        drawing, change_rng = (np.random.default_rng([seed, part]) for part in (0, 1))
        arrays = {**self._curves(drawing, change_rng, change), **self._shares(drawing), **self._words(drawing, change)}
        arrays |= self._states(drawing) | _sink_share(arrays)
        samples = tuple(f"{seed}-{i:04d}" for i in range(self.n))
        return Profile(
            model=f"synthetic-{self.shape.name}",
            dataset="curves",
            sample_ids=samples,
            clusters=tuple(f"{seed}-{i // self.per_image:04d}" for i in range(self.n)),
            token_hashes=samples,
            pixel_hashes=samples,
            arrays=arrays,
            declared={},
            environment=_ENVIRONMENT,
            weights="none",
        )

    def _noise(self, rng: np.random.Generator, points: int) -> FloatArray:
        """Return noise (n, points) of unit variance; the samples of one image share half of the variance."""
        individual = layered_noise(rng, self.n, points)
        if self.per_image == 1:
            return individual
        shared = layered_noise(rng, -(-self.n // self.per_image), points)
        return _halved(individual) + _halved(np.repeat(shared, self.per_image, axis=0)[: self.n])

    def _curves(self, rng: np.random.Generator, change_rng: np.random.Generator, change: Change) -> dict[str, Array]:
        shape = self.shape.curve(self.depth)
        common = self._noise(rng, len(shape))
        arrays: dict[str, Array] = {}
        for name in CURVES:
            offset, factor, spread = _MEANS[name]
            curves = offset + factor * shape + spread * (_halved(common) + _halved(self._noise(rng, len(shape))))
            if name.startswith("inter"):
                curves = change.apply(curves, self.shape, factor, change_rng)
            arrays |= _with_post_norm(name, curves)
        return arrays

    def _shares(self, rng: np.random.Generator) -> dict[str, Array]:
        arrays: dict[str, Array] = {}
        wave = np.sin(np.arange(self.depth) * 4.0 * np.pi / self.depth)
        for kind in ("norm", "weight"):
            parts = {
                group: share * np.exp(0.4 * sign * wave + SHARE_SPREAD * self._noise(rng, self.depth))
                for (group, share), sign in zip(_SHARES.items(), (1, -1, 1, -1), strict=True)
            }
            arrays |= _normalised_shares(kind, parts)
        return arrays

    def _states(self, rng: np.random.Generator) -> dict[str, Array]:
        arrays: dict[str, Array] = {}
        for name, (first, last, spread) in _STATES.items():
            points = self.depth + 1 - MEASURES[name].axis.first
            curves = np.linspace(first, last, points) + spread * self._noise(rng, points)
            arrays[name] = curves.astype(np.float32)
        return arrays

    def _words(self, rng: np.random.Generator, change: Change) -> dict[str, Array]:
        points = self.depth + 1
        arrays: dict[str, Array] = {}
        for prefix, last in (("", 0.8), ("chance_", 0.4)):
            count = rng.integers(6, 11, self.n)
            # The lens finds a word once the chance exceeds the word's threshold, so hits grow with k.
            threshold, fragile = rng.random((2, self.n, 10))
            first = np.arange(self.n) // self.per_image * self.per_image
            threshold[:, ::2] = threshold[first, ::2]
            present = (np.arange(10) < count[:, None]) & (fragile >= change.lost_recall / 0.8)
            counts = [
                (present & (threshold < chance)).sum(axis=1)
                for k in (0.6, 1.0)
                for chance in np.interp(np.arange(points), (0, 0.7 * points, points - 1), (0.0, 0.0, k * last))
            ]
            hits = np.array(counts, dtype=np.int32).reshape(2, points, self.n)
            arrays[f"{prefix}hits"] = hits.transpose(2, 1, 0)
            arrays[f"{prefix}words"] = count.astype(np.int32)
        agreeing = np.interp(np.arange(points), (0, 0.7 * points, points - 1), (0.0, 0.0, 1.0))
        arrays["exit_agreement"] = (rng.random((self.n, 1)) < agreeing).astype(np.int32)
        return arrays


def remeasure(profile: Profile, seed: int) -> Profile:
    """Return the same samples as measured again in a coarser dtype: no real change, but no number is identical.

    Every value of a curve, and of a measure of `_STATES`, gets noise of 0.003, half of its variance smooth over the
    layers. Each layer's mean shifts by 0.002, smoothly over the layers. Shares get noise of 1.2 %. In 5 % of the
    samples one hit more or less occurs, and one layer's exit agreement flips.
    """
    rng = np.random.default_rng([seed, 2])
    arrays = dict(profile.arrays)

    def noisy(curves: Array) -> FloatArray:
        n, points = curves.shape
        value = _halved(rng.standard_normal((n, points))) + _halved(layered_noise(rng, n, points, 0.9))
        changed: FloatArray = curves + VALUE_NOISE * value + MEAN_NOISE * layered_noise(rng, 1, points, 0.9)
        return changed

    for name in CURVES:
        arrays |= _with_post_norm(name, noisy(arrays[name]))
    for kind in ("norm", "weight"):
        parts = {group: arrays[f"{kind}_{group}"].astype(np.float64) for group in SHARE_GROUPS}
        arrays |= _normalised_shares(
            kind, {group: part * np.exp(SHARE_NOISE * rng.standard_normal(part.shape)) for group, part in parts.items()}
        )
    arrays["hits"] = _flipped_hits(arrays["hits"], arrays["words"], rng)
    # The last point is the model's own output, so its exit agreement is always 1.
    flipped = arrays["exit_agreement"].copy()
    rows, layers = _draw_few(rng, len(flipped), flipped.shape[1] - 1)
    flipped[rows, layers] = 1 - flipped[rows, layers]
    arrays["exit_agreement"] = flipped
    arrays |= {name: noisy(arrays[name]).astype(np.float32) for name in _STATES} | _sink_share(arrays)
    return replace(profile, arrays=arrays)


def to_baseline(profile: Profile) -> Baseline:
    """Return the profile as a baseline with the margins of an uncalibrated baseline."""
    margins = margin_values(margin_table(profile, Calibration()))
    return Baseline(Path(f"{profile.pair}.json"), profile, margins, timing={})


#: The four pairs of a simulated suite.
PAIRS = (
    Population(SHARP, 30, 128),
    Population(PLATEAU, 30, 128, per_image=2),
    Population(SHALLOW, 32, 128),
    Population(SHARP, 40, 64),
)


def _halved(noise: FloatArray) -> FloatArray:
    """Return noise with half of the variance."""
    return np.asarray(np.sqrt(0.5) * noise, dtype=np.float64)


def _with_post_norm(name: str, curves: FloatArray) -> dict[str, Array]:
    narrow = curves.astype(np.float32)
    # The adjustment for the tokens of other samples exists only before the final norm.
    return {name: narrow} | ({} if name == "inter_adjusted" else {f"post_norm_{name}": narrow[:, -1]})


def _sink_share(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {"sink_share": arrays["weight_image"] - arrays["norm_image"]}


def _normalised_shares(kind: str, parts: Mapping[str, FloatArray]) -> dict[str, Array]:
    total = np.sum(list(parts.values()), axis=0)
    return {f"{kind}_{group}": (part / total).astype(np.float32) for group, part in parts.items()}


def _draw_few(rng: np.random.Generator, n: int, points: int) -> tuple[Array, Array]:
    """Draw a few of `n` rows and, for each of these rows, an index in the last third of the points."""
    rows = np.flatnonzero(rng.random(n) < FLIPPED_SHARE)
    return rows, rng.integers(2 * points // 3, points, len(rows))


def _flipped_hits(hits: Array, words: Array, rng: np.random.Generator) -> Array:
    flipped = hits.copy()
    rows, layers = _draw_few(rng, len(hits), hits.shape[1])
    step = rng.choice((-1, 1), len(rows))[:, None]
    flipped[rows, layers] = np.clip(flipped[rows, layers] + step, 0, words[rows][:, None])
    return flipped
