"""Another model, measured in the same run, instead of a stored baseline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.analysis.calibration import Calibration
from harness.baselines.margin_table import margin_table, margin_values
from harness.baselines.store import Baseline, BaselineError, find_baseline
from harness.interface import option_text
from harness.profile.profile import Profile


@dataclass(frozen=True, slots=True, repr=False)
class Reference(Baseline):
    """A model's profile that another model is compared with; it has no file.

    Two models may format prompts and preprocess images differently, so samples are paired by id alone. Reproduction
    sample by sample is not required.
    """

    by_id: ClassVar[bool] = True
    requires_reproduction: ClassVar[bool] = False
    same_run: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"<Reference {self.profile.pair}>"

    @property
    def label(self) -> str:
        """The model's name, for legends."""
        return self.profile.model

    @property
    def record_source(self) -> dict[str, str]:
        """The model's name, for records."""
        return {"model": self.profile.model}

    @property
    def uncalibrated(self) -> tuple[str, str]:
        """The owner of a missing calibration, and the remedy."""
        model = self.profile.model
        options = f"{option_text('update_new', 'True')} {option_text('calibrate', 'True')}"
        return f"{model}'s", f"record a baseline of {model} with {options}"

    @property
    def absence(self) -> str:
        """The reason why the other model lacks a measure."""
        return f"not measured for {self.profile.model}"

    def describe(self) -> str:
        """Return the model, measured in this run, and its environment, for messages."""
        return f"{self.profile.model} measured in this run ({self.profile.environment})"


def reference_from_profile(profile: Profile, calibration: Calibration | None = None) -> Reference:
    """Return the profile as a reference for another model, with margins of its own."""
    calibration = calibration or Calibration()
    margins = margin_values(margin_table(profile, calibration))
    return Reference(path=Path(), profile=profile, margins=margins, timing={}, calibration=calibration)


def stored_calibration(root: Path, profile: Profile) -> Calibration:
    """Return the calibration of the stored baseline with the same weights and data type; empty if there is none."""
    try:
        stored = find_baseline(root, profile)
    except BaselineError:
        return Calibration()
    same = (stored.profile.weights, stored.profile.environment.dtype) == (profile.weights, profile.environment.dtype)
    return stored.calibration if same else Calibration()
