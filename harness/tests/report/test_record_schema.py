"""The record conforms to its schema, and the schema rejects damaged records."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from harness.baselines.mean_curves import shown_measures
from harness.baselines.store import read_baseline, write_baseline
from harness.errors import PhaseError
from harness.judgement.phases import phases_of
from harness.models.registry import MODELS, ModelEntry
from harness.plugin.fixtures import SESSION
from harness.profile.measures import MEASURES
from harness.profile.pair import Pair
from harness.report.record import bands, pair_record, record_schema, report_record, run_record, without_directories
from harness.run.session_results import SessionResults
from harness.storage.json_text import dump
from harness.tests.support.case_runs import PAIR, REGRESSION, ROOT, Cases
from harness.tests.support.judged import judge_profiles, make_differing_profile, make_session
from harness.tests.support.synthetic_profiles import synthetic_profile

SCHEMA = record_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
PAGE = ROOT / "docs" / "record.md"
QUICK = ("--phase-samples", "16", "--phase-controls", "none")


def violations(content: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(content)]


@pytest.fixture
def judged(tmp_path: Path) -> SessionResults:
    """Results of a session with a synthetic profile that differs from its baseline, and a time."""
    return judge_profiles(tmp_path / "kept", make_differing_profile())


@pytest.fixture
def record(judged: SessionResults) -> dict[str, Any]:
    """The report's record of that session, read back from JSON."""
    content: dict[str, Any] = json.loads(dump(report_record(judged)))
    return content


class RecordPlugin:
    """A plugin that stores the report's record of a run."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.content = json.loads(dump(report_record(session.config.stash[SESSION].results)))


@pytest.fixture
def more_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the model `tuned`, and `broken`, which cannot be loaded."""
    for name in ("tuned", "broken"):
        entry = ModelEntry(name, "tiny", f"harness.tests.support.tuned_models:load_{name}", ("tiny",), bundled=True)
        monkeypatch.setitem(MODELS, name, entry)


@pytest.mark.usefixtures("more_models")
def test_record_and_report_of_a_run_conform_to_the_schema(
    recorded: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = RecordPlugin()
    pair = (*PAIR, "--phase-model", "broken")
    recorded.run("-m", "not timing", "--phase-json", "out.json", pair=pair, plugins=(plugin,))
    text = (recorded.baselines.parent / "out.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert violations(content) == []
    assert violations(plugin.content) == []
    assert str(recorded.baselines.parent) not in text
    assert content["not_measured"] == {"broken-tiny": "the checkpoint here cannot be loaded; look at config.json"}
    measured = content["pairs"]["tiny-llava-tiny"]
    assert measured["baseline"]["file"] == "tiny-llava/tiny.json"
    assert measured["baseline"]["changes"] == []
    assert measured["baseline"]["means"] == measured["means"]
    assert measured["baseline"]["turning_points"] == [point[0] for point in measured["phases"]["turning_points"]]
    assert {line["kind"] for line in content["verdicts"]} == {"replication", "regression"}
    full = plugin.content["pairs"]["tiny-llava-tiny"]
    assert measured == {name: value for name, value in full.items() if name != "drawn"}
    for drawn in full["drawn"]:
        tokens = len(drawn["tokens"])
        assert {len(row) for row in (*drawn["norm_rows"], *drawn["groups"].values())} == {tokens}
        assert (len(drawn["norm_rows"]), len(drawn["image_tokens"])) == (measured["depth"], measured["depth"] + 1)
        assert {len(row) for row in drawn["image_tokens"]} == {sum(drawn["groups"]["image"])}
        assert drawn["picture"].startswith("iVBOR")
    (tmp_path / "phase.json").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), {})  # noqa: S102 - code of our own page
    assert (tmp_path / "inter.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("more_models")
@pytest.mark.slow
def test_the_record_of_a_run_against_another_model_conforms_to_the_schema(cases: Cases) -> None:
    pair = ("--phase-model", "tuned", "--phase-against", "tiny-llava", "--phase-dataset", "tiny")
    cases.run(*QUICK, *REGRESSION, "--phase-json", "out.json", pair=pair)
    content = json.loads((cases.baselines.parent / "out.json").read_text(encoding="utf-8"))
    assert violations(content) == []
    baseline = content["pairs"]["tuned-tiny"]["baseline"]
    assert (baseline["model"], baseline["n"], "file" in baseline) == ("tiny-llava", 16, False)
    assert baseline["changes"][0].startswith("weights: ")
    assert baseline["means"] == content["pairs"]["tiny-llava-tiny"]["means"]
    assert content["pairs"]["tiny-llava-tiny"]["baseline"] is None
    assert content["against"][0]["beyond_margin"]


@pytest.mark.usefixtures("cases", "more_models")
def test_the_controller_lists_the_pairs_that_a_worker_could_not_measure(tmp_path: Path) -> None:
    worker, controller = (make_session(tmp_path, datasets=("tiny",)) for _ in range(2))
    broken = Pair("broken", "tiny")
    with pytest.raises(PhaseError):
        worker.measured.profile(broken)
    worker.results.collected = (broken, Pair("tiny-llava", "tiny"))
    assert worker.results.unmeasured_reasons()[Pair("tiny-llava", "tiny")] == "no test that ran requested it"
    controller.results.merge(pickle.loads(pickle.dumps(worker.results)))  # noqa: S301 - pickled in the same line
    assert controller.results.unmeasured_reasons() == {broken: worker.results.unmeasured_reasons()[broken]}


def test_the_record_describes_a_baseline_that_differs(record: dict[str, Any]) -> None:
    assert violations(record) == []
    pair = record["pairs"]["made-curves"]
    baseline = pair["baseline"]
    assert baseline["changes"] == [
        "weights: 0123456789abcdef -> fedcba9876543210",
        "torch: 2.15.0 -> 2.16.0",
        "attention: sdpa -> eager",
    ]
    shift = np.subtract(pair["means"]["inter"], baseline["means"]["inter"])
    assert np.flatnonzero(np.abs(shift) > 0.01).tolist() == [6, 7, 8]
    assert {line["question"]: line["verdict"] for line in record["verdicts"]}["inter"] == "differs"
    assert 1.4 < record["timing"]["made-curves"]["low"] < 1.5 < record["timing"]["made-curves"]["high"] < 1.6
    for name, curve in pair["means"].items():
        if not name.startswith("post_norm"):
            lengths = {len(curve), len(pair["bands"][name]["low"]), len(pair["bands"][name]["high"])}
            first = MEASURES[name.replace("chance_", "")].axis.first
            assert lengths == {pair["depth"] + 1 - first}, name


def test_the_record_without_report_has_no_times_and_samples(judged: SessionResults) -> None:
    content = json.loads(dump(run_record(judged)))
    assert violations(content) == []
    assert "timing" not in content
    assert "drawn" not in content["pairs"]["made-curves"]


def test_the_record_of_a_summary_baseline_lists_its_measures(tmp_path: Path) -> None:
    made = synthetic_profile()
    stored = read_baseline(write_baseline(tmp_path, made, {}, phases_of(made), summary=True))
    content = json.loads(dump(pair_record(made, stored)))
    pair = Draft202012Validator({"$ref": "#/$defs/pair", "$defs": SCHEMA["$defs"]})
    assert [error.message for error in pair.iter_errors(content)] == []
    assert (content["baseline"]["n"], set(content["baseline"]["means"])) == (made.n, set(MEASURES))
    np.testing.assert_allclose(content["baseline"]["means"]["inter"], content["means"]["inter"], rtol=1e-5)


def test_eight_samples_in_ten_are_within_a_band() -> None:
    made = synthetic_profile()
    quantiles = bands(made)
    assert quantiles.keys() == {name for name in shown_measures(made) if made[name].ndim == 2}
    for name in ("inter", "text", "norm_other"):
        low, high = np.array(quantiles[name]["low"]), np.array(quantiles[name]["high"])
        within = ((made[name] >= low) & (made[name] <= high)).mean(0)
        assert (np.abs(within - 0.8) < 0.04).all(), (name, within)


Break = Callable[[dict[str, Any]], object]


def pair_of(record: dict[str, Any]) -> dict[str, Any]:
    pair: dict[str, Any] = record["pairs"]["made-curves"]
    return pair


def verdict_of(record: dict[str, Any], question: str) -> dict[str, Any]:
    return next(line for line in record["verdicts"] if line["question"] == question)


BREAKS: dict[str, Break] = {
    "another schema": lambda record: record.update(schema=1),
    "no pairs": lambda record: record.pop("pairs"),
    "a wall time": lambda record: record.update(seconds=12.5),
    "an unknown field of a time": lambda record: record["timing"]["made-curves"].update(seconds=1.0),
    "no bands": lambda record: pair_of(record).pop("bands"),
    "half a band": lambda record: pair_of(record)["bands"]["inter"].pop("high"),
    "a band of an unknown measure": lambda record: pair_of(record)["bands"].update(
        depth=pair_of(record)["bands"]["inter"]
    ),
    "an unknown measure": lambda record: pair_of(record)["means"].update(interr=[0.1]),
    "a missing measure": lambda record: pair_of(record)["means"].pop("inter"),
    "a curve of text": lambda record: pair_of(record)["means"].update(inter=["0.1"]),
    "a curve with a missing value": lambda record: pair_of(record)["means"]["inter"].append(None),
    "two boundaries": lambda record: pair_of(record)["phases"]["turning_points"].pop(),
    "a missing claim": lambda record: pair_of(record)["phases"]["claims"].pop("alignment"),
    "a prominence that is not a share": lambda record: pair_of(record)["phases"]["segment_counts"].update(most=3),
    "an unknown verdict": lambda record: verdict_of(record, "inter").update(verdict="moved"),
    "a claim that differs": lambda record: verdict_of(record, "alignment").update(verdict="differs"),
    "a family that holds": lambda record: verdict_of(record, "inter").update(verdict="holds"),
    "numbers of another question": lambda record: verdict_of(record, "inter").update(
        numbers=verdict_of(record, "alignment")["numbers"]
    ),
    "an unknown boundary": lambda record: verdict_of(record, "boundaries")["numbers"].update(
        {"turning point 4": verdict_of(record, "boundaries")["numbers"]["turning point 1"]}
    ),
    "a baseline without file and model": lambda record: pair_of(record)["baseline"].pop("file"),
    "a baseline with file and model": lambda record: pair_of(record)["baseline"].update(model="other"),
    "an absolute path": lambda record: pair_of(record)["baseline"].update(file="/somewhere/made/curves.json"),
    "no reason": lambda record: record["not_measured"].update({"made-other": None}),
    "half a drawn sample": lambda record: pair_of(record)["drawn"].append({"sample_id": "one"}),
}


@pytest.mark.slow
def test_a_broken_record_is_refused(record: dict[str, Any]) -> None:
    passed = []
    for name, damage in BREAKS.items():
        broken = copy.deepcopy(record)
        damage(broken)
        if not violations(broken):
            passed.append(name)
    assert passed == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the checkpoint /a/b/broken cannot be loaded", "the checkpoint broken cannot be loaded"),
        ("'/a/b/c.json': no such file; look at (/d/e)", "'c.json': no such file; look at (e)"),
        (r"C:\data\coco\one.jpg is torn", "one.jpg is torn"),
        ("add --phase-data coco-captions=DIR and/or see https://example.org/a/b", None),
        ("model.vision_tower, 1/2 of ../shared/data, ORG/NAME", None),
    ],
)
def test_directories_of_this_machine_are_omitted(text: str, expected: str | None) -> None:
    assert without_directories(text) == (text if expected is None else expected)
