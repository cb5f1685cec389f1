"""Another model, measured in the same run, in the place of a stored baseline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.analysis.calibration import Calibration
from harness.baselines.margin_table import margin_table, margin_values
from harness.baselines.store import Baseline, BaselineError, find_baseline
from harness.profile.profile import Profile


@dataclass(frozen=True, slots=True, repr=False)
class Reference(Baseline):
    """A model's profile that another model's is judged by; it has no file.

    Two models may word a prompt and prepare a picture differently: samples belong together by their ids alone. And they
    need not be the same, sample by sample.
    """

    by_id: ClassVar[bool] = True
    requires_reproduction: ClassVar[bool] = False
    same_run: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"<Reference {self.profile.pair}>"

    @property
    def label(self) -> str:
        """The model."""
        return self.profile.model

    @property
    def source(self) -> dict[str, str]:
        """The model, for records."""
        return {"model": self.profile.model}

    @property
    def uncalibrated(self) -> tuple[str, str]:
        """Whose calibration is missing where one is, and what to do about that."""
        model = self.profile.model
        return f"{model}'s", f"record a baseline of {model} with --phase-update-new --phase-calibrate"

    def describe(self) -> str:
        """Return the model, and that it was measured in this run, for messages."""
        return f"{self.profile.model} measured in this run ({self.profile.environment})"


def reference_from_profile(profile: Profile, calibration: Calibration | None = None) -> Reference:
    """Return the profile as what another model is held against, with margins of its own."""
    calibration = calibration or Calibration()
    margins = margin_values(margin_table(profile, calibration))
    return Reference(path=Path(), profile=profile, margins=margins, timing={}, calibration=calibration)


def stored_calibration(root: Path, profile: Profile) -> Calibration:
    """The calibration of the stored baseline of exactly these weights in this data type; empty where there is none."""
    try:
        stored = find_baseline(root, profile)
    except BaselineError:
        return Calibration()
    same = (stored.profile.weights, stored.profile.environment.dtype) == (profile.weights, profile.environment.dtype)
    return stored.calibration if same else Calibration()
