"""Cached readings replace forward passes, and are not used for a changed model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.measurement.reading_cache import ReadingCacheError
from harness.measurement.reading_files import packed, unpacked
from harness.models.vlm import Vlm
from harness.profile.profile import Profile
from harness.storage import private_files
from harness.tests.support.disks import full_disk, read_only_disk
from harness.tests.support.tiny import N, have_same_numbers, largest_difference, tiny_profile, try_separators

pytestmark = pytest.mark.usefixtures("tiny_data")

DRAWING_PASSES = 2


def in_pairs(vlm: Vlm, dataset: str = "tiny", **options: Any) -> Profile:
    """Return a tiny profile that was measured in batches of two, and so has several files in the cache."""
    return tiny_profile(vlm, dataset, **({"batch_size": 2} | options))


@pytest.fixture
def passes(fresh_vlm: Vlm) -> list[int]:
    """The batch sizes of all forward passes of `fresh_vlm` through its decoder."""
    try_separators(fresh_vlm)
    seen: list[int] = []
    fresh_vlm.anatomy.layers[0].register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    return seen


def test_cached_readings_are_used_and_are_identical(fresh_vlm: Vlm, passes: list[int], tmp_path: Path) -> None:
    plain = in_pairs(fresh_vlm)
    assert passes == [2] * (DRAWING_PASSES + 3)
    passes.clear()
    first = in_pairs(fresh_vlm, cache=tmp_path)
    assert passes == [2] * (DRAWING_PASSES + 3)
    passes.clear()
    lines: list[str] = []
    cached = in_pairs(fresh_vlm, cache=tmp_path, say=lines.append)
    assert passes == [2] * DRAWING_PASSES
    assert have_same_numbers(plain, first)
    assert have_same_numbers(plain, cached)
    assert lines == []


def test_more_samples_extend_the_cache(fresh_vlm: Vlm, passes: list[int], tmp_path: Path) -> None:
    """Complete windows of batches are composed as before; inside a window a longer run may sort differently."""
    in_pairs(fresh_vlm, samples=16, cache=tmp_path)
    passes.clear()
    longer = in_pairs(fresh_vlm, samples=18, cache=tmp_path)
    assert passes == [2] * (DRAWING_PASSES + 1)
    assert have_same_numbers(longer, in_pairs(fresh_vlm, samples=18))


def change_parameter(vlm: Vlm) -> None:
    with torch.no_grad():
        vlm.anatomy.layers[3].mlp.down_proj.weight[0, 0] += 0.5


def change_buffer(vlm: Vlm) -> None:
    rotary = vlm.model.model.language_model.rotary_emb
    assert "inv_freq" in rotary._non_persistent_buffers_set
    rotary.inv_freq /= 1.02


def patch_forward(vlm: Vlm) -> None:
    """Change the code but no weight, as a new version of transformers may do."""
    mlp = vlm.anatomy.layers[2].mlp
    plain = mlp.forward
    mlp.forward = lambda states: 1.05 * plain(states)


def patch_last_norm(vlm: Vlm) -> None:
    """Change values after the final norm only, at no residual point."""
    norm = vlm.anatomy.final_norm
    plain = norm.forward
    scale = torch.linspace(0.5, 1.5, vlm.anatomy.width)
    norm.forward = lambda states: scale * plain(states)


@pytest.mark.parametrize("change", [change_parameter, change_buffer, patch_forward, patch_last_norm])
def test_a_changed_model_is_measured_again_despite_the_cache(
    fresh_vlm: Vlm, passes: list[int], tmp_path: Path, change: Callable[[Vlm], None]
) -> None:
    before = in_pairs(fresh_vlm, cache=tmp_path)
    change(fresh_vlm)
    passes.clear()
    lines: list[str] = []
    changed = in_pairs(fresh_vlm, cache=tmp_path, say=lines.append)
    assert passes == [2] * (DRAWING_PASSES + 3)
    assert largest_difference(before, changed) > 1e-4
    assert have_same_numbers(changed, in_pairs(fresh_vlm))
    patched = change in (patch_forward, patch_last_norm)
    assert (
        lines
        == ["tiny-llava on tiny: cached readings do not match the current model; they were measured again"] * patched
    )
    assert (changed.weights == before.weights) == patched
    # The new readings are cached in turn.
    passes.clear()
    assert have_same_numbers(changed, in_pairs(fresh_vlm, cache=tmp_path))
    assert passes == [2] * DRAWING_PASSES


def test_an_interrupted_run_of_a_patched_model_does_not_mix_readings(fresh_vlm: Vlm, tmp_path: Path) -> None:
    """Readings from before and after the patch are in one cache; the old ones are not used."""
    in_pairs(fresh_vlm, cache=tmp_path)
    patch_forward(fresh_vlm)
    interrupt(fresh_vlm, DRAWING_PASSES + 1, cache=tmp_path)
    assert have_same_numbers(in_pairs(fresh_vlm, cache=tmp_path), in_pairs(fresh_vlm))


def interrupt(vlm: Vlm, after: int, **options: Any) -> None:
    """Interrupt a measurement after some forward passes."""
    remaining = [after]

    def crash(*_: Any) -> None:
        if not remaining[0]:
            raise KeyboardInterrupt
        remaining[0] -= 1

    handle = vlm.anatomy.layers[1].register_forward_pre_hook(crash)
    with pytest.raises(KeyboardInterrupt):
        in_pairs(vlm, **options)
    handle.remove()


def test_an_interrupted_measurement_continues(fresh_vlm: Vlm, passes: list[int], tmp_path: Path) -> None:
    interrupt(fresh_vlm, DRAWING_PASSES + 2, cache=tmp_path)
    passes.clear()
    resumed = in_pairs(fresh_vlm, cache=tmp_path)
    assert passes == [2] * (DRAWING_PASSES + 1)
    assert have_same_numbers(resumed, in_pairs(fresh_vlm))
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize(("which", "share"), [(0, 0.0), (0, 0.5), (-1, 0.01), (-1, 0.999)])
def test_a_truncated_reading_is_measured_again(
    fresh_vlm: Vlm, passes: list[int], tmp_path: Path, which: int, share: float
) -> None:
    before = in_pairs(fresh_vlm, cache=tmp_path)
    files = sorted(tmp_path.rglob("*.npz"))
    assert len(files) == len(passes) - DRAWING_PASSES == 3
    content = files[which].read_bytes()
    files[which].write_bytes(content[: int(share * len(content))])
    passes.clear()
    lines: list[str] = []
    assert have_same_numbers(in_pairs(fresh_vlm, cache=tmp_path, say=lines.append), before)
    assert passes == [2] * (DRAWING_PASSES + 1)
    assert files[which].read_bytes() == content
    assert lines == [
        f"the file of cached readings {files[which]} is damaged (its checksum does not match): they are measured again"
    ]


def test_planted_readings_change_no_result(
    fresh_vlm: Vlm, passes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The readings have valid checksums and other numbers, in a cache that others can write to."""
    monkeypatch.setattr(private_files, "is_closed_to_others", lambda _: False)
    cache = tmp_path / "cache"
    before = in_pairs(fresh_vlm, cache=cache)
    for path in cache.rglob("*.npz"):
        address = f"{path.parent.name}/{path.stem}"
        rows, witness = unpacked(path.read_bytes(), address)
        planted = {name: {**row, "similarity": row["similarity"] + 0.5} for name, row in rows.items()}
        path.write_bytes(packed(planted, witness, address))
    assert largest_difference(in_pairs(fresh_vlm, cache=cache), before) > 0.4
    cache.chmod(0o777)
    passes.clear()
    lines: list[str] = []
    assert have_same_numbers(in_pairs(fresh_vlm, cache=cache, say=lines.append), before)
    assert passes == [2] * (DRAWING_PASSES + 3)
    (line,) = lines
    assert line.startswith(f"readings are neither used nor cached, because others can write to {cache} (chmod -R go-w ")


def test_other_settings_do_not_share_readings(fresh_vlm: Vlm, passes: list[int], tmp_path: Path) -> None:
    in_pairs(fresh_vlm, cache=tmp_path)
    for change in (lambda: None, lambda: fresh_vlm.model.set_attn_implementation("eager")):
        change()
        passes.clear()
        in_pairs(fresh_vlm, cache=tmp_path, batch_size=3)
        assert sum(passes) == 2 * DRAWING_PASSES + N


def test_a_full_disk_does_not_stop_a_measurement(fresh_vlm: Vlm, tmp_path: Path) -> None:
    lines: list[str] = []
    with full_disk(after=2):
        first = in_pairs(fresh_vlm, cache=tmp_path, say=lines.append)
    assert have_same_numbers(first, in_pairs(fresh_vlm))
    assert [line.split(" (No space left on device)")[0] for line in lines] == [
        f"readings are no longer cached in {next(tmp_path.rglob('key.json')).parent}",
        f"{N - 2} readings were measured and not cached in {next(tmp_path.rglob('key.json')).parent}",
    ]
    assert sorted(path.suffix for path in tmp_path.rglob("*.*")) == [".json", ".npz"]
    assert have_same_numbers(in_pairs(fresh_vlm, cache=tmp_path), first)


@pytest.mark.slow
def test_a_read_only_cache_is_used_and_not_extended(fresh_vlm: Vlm, passes: list[int], tmp_path: Path) -> None:
    in_pairs(fresh_vlm, samples=16, cache=tmp_path)
    passes.clear()
    lines: list[str] = []
    with read_only_disk():
        in_pairs(fresh_vlm, samples=16, cache=tmp_path, say=lines.append)
        assert (passes, lines) == ([2] * DRAWING_PASSES, [])
        longer = in_pairs(fresh_vlm, samples=18, cache=tmp_path, say=lines.append)
    assert passes == [2] * (2 * DRAWING_PASSES + 1)
    assert [" (Read-only file system)" in line for line in lines] == [True, True]
    assert "new ones are not cached" in lines[0]
    assert have_same_numbers(longer, in_pairs(fresh_vlm, samples=18))


def test_an_unusable_cache_directory_raises_one_error(fresh_vlm: Vlm, tmp_path: Path) -> None:
    (tmp_path / "readings").write_text("a file where a directory should be")
    with pytest.raises(ReadingCacheError, match=r"readings cannot be cached in .*; choose another --phase-cache"):
        in_pairs(fresh_vlm, cache=tmp_path)
