"""A pytest harness that measures what happens between image and instruction tokens inside a vision-language model.

In Python, `harness.measure("path/or/ORG/NAME", "scenes")` returns the `Profile` that the test cases judge. Names are
imported on first use, so that pytest can collect tests without importing torch.

PYTEST_DONT_REWRITE: pytest cannot rewrite the assertions of an editable install, and would warn of it.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.baselines.store import read_baseline as read_baseline
    from harness.data.sample import Source as Source
    from harness.errors import PhaseError as PhaseError
    from harness.judgement.phases import phases_of as phases_of
    from harness.judgement.weights import weight_parts as weight_parts
    from harness.measurement.measure import measure as measure
    from harness.models.anatomy import find_anatomy as find_anatomy
    from harness.models.vlm import Vlm as Vlm
    from harness.profile.profile import Profile as Profile
    from harness.report.against import compare_models as compare_models
    from harness.report.figures import phase_figure as phase_figure
    from harness.report.figures import plot as plot
    from harness.report.recorded_results import report_from_record as report_from_record

_MODULES = {
    "PhaseError": "harness.errors",
    "Profile": "harness.profile.profile",
    "Source": "harness.data.sample",
    "Vlm": "harness.models.vlm",
    "compare_models": "harness.report.against",
    "find_anatomy": "harness.models.anatomy",
    "measure": "harness.measurement.measure",
    "phase_figure": "harness.report.figures",
    "phases_of": "harness.judgement.phases",
    "plot": "harness.report.figures",
    "read_baseline": "harness.baselines.store",
    "report_from_record": "harness.report.recorded_results",
    "weight_parts": "harness.judgement.weights",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("vlm-phase-harness")
    if name not in _MODULES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
