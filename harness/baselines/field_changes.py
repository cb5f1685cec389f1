"""Changes of single fields of a stored baseline, whose numbers stay."""

from __future__ import annotations

from harness.baselines.store import Baseline, read_baseline
from harness.baselines.stored_files import change_json
from harness.profile.profile import Profile
from harness.storage.json_text import round_numbers


def write_configuration(baseline: Baseline, profile: Profile) -> Baseline:
    """Replace the stored configuration by that of a profile with the same numbers; return the new baseline.

    Raises:
        BaselineError: the file is not writable; it is unchanged.
        LockedError: another run is writing to the directory.
    """
    change_json(baseline.path, lambda content: content.update(configuration=profile.configuration))
    return read_baseline(baseline.path)


def write_timing(baseline: Baseline, key: str, ratio: float) -> None:
    """Store the hooked/plain ratio of a device, dtype and attention; raises as `write_configuration`."""
    change_json(baseline.path, lambda content: content["timing"].update({key: round_numbers(ratio)}))
