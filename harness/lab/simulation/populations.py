"""Synthetic pairs: populations of samples from which whole profiles are drawn, measured again, and stored."""

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
from harness.profile.measures import CURVES, SHARE_GROUPS
from harness.profile.profile import Array, Profile

#: Spread of a cosine between samples, and of the logarithm of an attention share.
SPREAD, SHARE_SPREAD = 0.08, 0.15
#: What measuring again in bfloat16 does: to one value, to a layer's mean, and to a share in proportion.
VALUE_NOISE, MEAN_NOISE, SHARE_NOISE = 3e-3, 2e-3, 0.012
#: Share of the samples of which one word is found more or less, and of tokens that another token overtakes.
FLIPPED = 0.05
#: How unequally a change strikes the samples: standard deviation of its strength, whose mean is one.
UNEVEN = 0.25

# What the curves of a measure have in common with the inter-modal one: offset and factor of its mean, and its spread.
_MEANS: Mapping[str, tuple[float, float, float]] = {
    "inter": (0.0, 1.0, SPREAD),
    "inter_instruction": (0.02, 0.95, SPREAD),
    "inter_adjusted": (0.0, 0.15, SPREAD / 8),
    "image": (0.30, 0.5, SPREAD),
    "text": (0.15, 0.8, SPREAD / 2),
    "instruction": (0.10, 0.9, SPREAD / 2),
}
_SHARES = {"image": 0.25, "instruction": 0.20, "other": 0.40, "self": 0.15}
_ENVIRONMENT = Environment("none", "none", "cpu", "simulated", "float32", "none")


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a model: its inter-modal curves moved, stretched or flattened, or words lost from the lens.

    `layers` is a shift to later layers, `stretch` a factor about each curve's own mean over depth, `flattened` takes
    phase II's fall away, and `lost_recall` is the drop in recall at the last point.
    """

    layers: float = 0.0
    stretch: float = 1.0
    flattened: bool = False
    lost_recall: float = 0.0

    def apply(self, x: FloatArray, shape: Shape, factor: float, rng: np.random.Generator) -> FloatArray:
        """Return changed curves (n, points) of a measure whose mean is `factor` times the shape, unevenly struck."""
        strength = 1.0 + UNEVEN * rng.standard_normal(len(x))
        depth = x.shape[1] - 1
        x = shift_curves(x, np.maximum(self.layers * strength, 0.0)) if self.layers else x
        x = stretch_curves(x, 1.0 + (self.stretch - 1.0) * strength)
        if self.flattened:
            x = x + strength[:, None] * factor * (shape.without_fall().curve(depth) - shape.curve(depth))
        return x


UNCHANGED = Change()


def seed_of(seed: int, *draw: str | int) -> int:
    """Return the seed of one draw, whatever the order of the draws and the number of processes.

    Args:
        seed: of the run.
        draw: words and numbers that identify the draw.
    """
    key = [zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in draw]
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])


@dataclass(frozen=True, slots=True)
class Population:
    """A synthetic pair: the shape of its inter-modal curve, its depth, and how many samples share a picture."""

    shape: Shape
    depth: int
    n: int
    clustered: int = 1

    @property
    def name(self) -> str:
        """How reports call it."""
        shared = f", {self.clustered} a picture" if self.clustered > 1 else ""
        return f"{self.shape.name}, {self.depth} layers, n = {self.n}{shared}"

    def draw(self, seed: int, change: Change = UNCHANGED) -> Profile:
        """Return a profile of `n` samples; the same seed draws the same ones, before and after a change."""
        drawing, striking = (np.random.default_rng([seed, part]) for part in (0, 1))
        arrays = {**self._curves(drawing, striking, change), **self._shares(drawing), **self._words(drawing, change)}
        samples = tuple(f"{seed}-{i:04d}" for i in range(self.n))
        return Profile(
            model=f"synthetic-{self.shape.name}",
            dataset="curves",
            sample_ids=samples,
            clusters=tuple(f"{seed}-{i // self.clustered:04d}" for i in range(self.n)),
            token_hashes=samples,
            pixel_hashes=samples,
            arrays=arrays,
            declared={},
            environment=_ENVIRONMENT,
            weights="none",
        )

    def _noise(self, rng: np.random.Generator, points: int) -> FloatArray:
        """Noise (n, points) of unit variance, half of it common to the samples of one picture."""
        own = layered_noise(rng, self.n, points)
        if self.clustered == 1:
            return own
        shared = layered_noise(rng, -(-self.n // self.clustered), points)
        return _half(own) + _half(np.repeat(shared, self.clustered, axis=0)[: self.n])

    def _curves(self, rng: np.random.Generator, striking: np.random.Generator, change: Change) -> dict[str, Array]:
        shape = self.shape.curve(self.depth)
        common = self._noise(rng, len(shape))
        arrays: dict[str, Array] = {}
        for name in CURVES:
            offset, factor, spread = _MEANS[name]
            curves = offset + factor * shape + spread * (_half(common) + _half(self._noise(rng, len(shape))))
            if name.startswith("inter"):
                curves = change.apply(curves, self.shape, factor, striking)
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
            arrays |= _shared_out(kind, parts)
        return arrays

    def _words(self, rng: np.random.Generator, change: Change) -> dict[str, Array]:
        points = self.depth + 1
        arrays: dict[str, Array] = {}
        for prefix, last in (("", 0.8), ("chance_", 0.4)):
            count = rng.integers(6, 11, self.n)
            # A word is found from the layer on where the lens exceeds its own threshold, so hits grow with k.
            threshold, fragile = rng.random((2, self.n, 10))
            first = np.arange(self.n) // self.clustered * self.clustered
            threshold[:, ::2] = threshold[first, ::2]
            there = (np.arange(10) < count[:, None]) & (fragile >= change.lost_recall / 0.8)
            found = [
                (there & (threshold < chance)).sum(axis=1)
                for k in (0.6, 1.0)
                for chance in np.interp(np.arange(points), (0, 0.7 * points, points - 1), (0.0, 0.0, k * last))
            ]
            hits = np.array(found, dtype=np.int32).reshape(2, points, self.n)
            arrays[f"{prefix}hits"] = hits.transpose(2, 1, 0)
            arrays[f"{prefix}words"] = count.astype(np.int32)
        agreeing = np.interp(np.arange(points), (0, 0.7 * points, points - 1), (0.0, 0.0, 1.0))
        arrays["exit_agreement"] = (rng.random((self.n, 1)) < agreeing).astype(np.int32)
        return arrays


def remeasure(profile: Profile, seed: int) -> Profile:
    """Return the same samples measured in a coarser data type: nothing changed, and no number the same.

    Every curve gets noise of 0.003 a value, half of its variance smooth over the layers, and a shift of each layer's
    mean of 0.002, smooth as well; shares get noise of 1.2 %; in 5 % of the samples one word is found more or less, and
    one layer's exit agreement turns over.
    """
    rng = np.random.default_rng([seed, 2])
    arrays = dict(profile.arrays)
    for name in CURVES:
        n, points = arrays[name].shape
        value = _half(rng.standard_normal((n, points))) + _half(layered_noise(rng, n, points, 0.9))
        curves = arrays[name] + VALUE_NOISE * value + MEAN_NOISE * layered_noise(rng, 1, points, 0.9)
        arrays |= _with_post_norm(name, curves)
    for kind in ("norm", "weight"):
        parts = {group: arrays[f"{kind}_{group}"].astype(np.float64) for group in SHARE_GROUPS}
        arrays |= _shared_out(
            kind, {group: part * np.exp(SHARE_NOISE * rng.standard_normal(part.shape)) for group, part in parts.items()}
        )
    arrays["hits"] = _flipped_hits(arrays["hits"], arrays["words"], rng)
    # The last point is the model's own output: there it agrees with itself.
    turned = arrays["exit_agreement"].copy()
    rows, layers = _few(rng, len(turned), turned.shape[1] - 1)
    turned[rows, layers] = 1 - turned[rows, layers]
    arrays["exit_agreement"] = turned
    return replace(profile, arrays=arrays)


def to_baseline(profile: Profile) -> Baseline:
    """Return the profile as a baseline, with the margins that a real one of these numbers would have."""
    margins = margin_values(margin_table(profile, Calibration()))
    return Baseline(Path(f"{profile.pair}.json"), profile, margins, timing={})


#: The four pairs of a simulated suite.
PAIRS = (
    Population(SHARP, 30, 128),
    Population(PLATEAU, 30, 128, clustered=2),
    Population(SHALLOW, 32, 128),
    Population(SHARP, 40, 64),
)


def _half(noise: FloatArray) -> FloatArray:
    """Return the noise with half of its variance."""
    return np.asarray(np.sqrt(0.5) * noise, dtype=np.float64)


def _with_post_norm(name: str, curves: FloatArray) -> dict[str, Array]:
    narrow = curves.astype(np.float32)
    # Adjusted for the other samples' tokens before the final norm only.
    return {name: narrow} | ({} if name == "inter_adjusted" else {f"post_norm_{name}": narrow[:, -1]})


def _shared_out(kind: str, parts: Mapping[str, FloatArray]) -> dict[str, Array]:
    total = np.sum(list(parts.values()), axis=0)
    return {f"{kind}_{group}": (part / total).astype(np.float32) for group, part in parts.items()}


def _few(rng: np.random.Generator, n: int, points: int) -> tuple[Array, Array]:
    """Rows, a few of n, and for each one of the last third of the points."""
    rows = np.flatnonzero(rng.random(n) < FLIPPED)
    return rows, rng.integers(2 * points // 3, points, len(rows))


def _flipped_hits(hits: Array, words: Array, rng: np.random.Generator) -> Array:
    flipped = hits.copy()
    rows, layers = _few(rng, len(hits), hits.shape[1])
    step = rng.choice((-1, 1), len(rows))[:, None]
    flipped[rows, layers] = np.clip(flipped[rows, layers] + step, 0, words[rows][:, None])
    return flipped
