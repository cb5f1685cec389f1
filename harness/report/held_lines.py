"""The last lines of a message: what changed since the baseline, the baseline's file, and how to accept the change."""

from __future__ import annotations

from harness.baselines.store import Baseline
from harness.models.registry import MODELS
from harness.profile.profile import Profile
from harness.report.layout import MESSAGE_WIDTH, kept


def held_lines(profile: Profile, baseline: Baseline) -> list[str]:
    """Return what changed since a baseline, its file, and the command that accepts the change; a line each."""
    then = baseline.profile
    compared = bool(profile.configuration and then.configuration)
    same = f"same weights,{' same configuration,' if compared else ''} same environment"
    changes = "; ".join(map(_kept_change, profile.main_changes(then))) or same
    if profile.configuration and not compared:
        changes += "; the baseline stores no configuration to compare"
    if baseline.by_id:
        return [f"  between the two models: {changes}", f"  held against {baseline.said()}"]
    command = "the same command with --phase-update"
    if profile.model in MODELS:
        command = f"pytest cases/ --phase-model {profile.model} --phase-dataset {profile.dataset} --phase-update"
    # A command is there to be copied, however long it is.
    return [f"  since the baseline: {changes}", *file_lines(baseline.said()), kept(f"  meant? {command}")]


def file_lines(said: str) -> list[str]:
    """A baseline in two lines, so that its path stands by itself: the file, and what it was recorded with."""
    path, bracket, recorded = said.partition(".json (")
    return [kept(f"  baseline {path}.json"), f"    ({recorded}"] if bracket else [f"  {said}"]


def _kept_change(text: str) -> str:
    """A change on one line, or the name of a setting and its values on a line each where it is long."""
    if len(text) < MESSAGE_WIDTH - len("  since the baseline: "):
        return kept(text)
    name, colon, values = text.partition(": ")
    return f"{kept(name + colon.rstrip())} {kept(values)}"
