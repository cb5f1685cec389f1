"""Changes of a stored baseline's JSON that leave its numbers as they are."""

from __future__ import annotations

from harness.baselines.store import Baseline, read_baseline
from harness.baselines.stored_files import changing, read_json, write_files
from harness.profile.environment import Environment
from harness.profile.profile import Profile
from harness.storage.json_text import rounded


def write_configuration(baseline: Baseline, profile: Profile) -> Baseline:
    """Replace the stored configuration by that of a profile with the same numbers; return the baseline as it is now.

    Raises:
        BaselineError: the file is not writable; it is untouched.
        LockedError: another run is writing to the directory.
    """
    with changing(baseline.path.parent):
        content = read_json(baseline.path)
        content["configuration"] = profile.configuration
        write_files(baseline.path, content)
    return read_baseline(baseline.path)


def write_timing(baseline: Baseline, key: str, ratio: float) -> None:
    """Add the hooked/plain ratio of one device, dtype and attention to a stored baseline.

    Raises:
        BaselineError: the file is not writable; it is untouched.
        LockedError: another run is writing to the directory.
    """
    with changing(baseline.path.parent):
        content = read_json(baseline.path)
        content["timing"][key] = rounded(ratio)
        write_files(baseline.path, content)


def timing_key(environment: Environment) -> str:
    """Return the key under which the ratio of an environment is kept: device, dtype and attention."""
    return f"{environment.device_name}, {environment.dtype}, {environment.attention}"
