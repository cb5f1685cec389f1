from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.lab.cost.__main__ import _command, main
from harness.lab.cost.breakdown import breakdown_lines, measure_breakdown
from harness.lab.cost.contestants import (
    ATTENTION,
    CONTESTANTS,
    EVERYTHING,
    NAIVE,
    NNSIGHT,
    PLAIN,
    SIMILARITY,
    nnsight_reader,
)
from harness.lab.cost.cost_page import times_table
from harness.lab.cost.cost_results import (
    SMALL_KIND,
    Cell,
)
from harness.lab.cost.cost_run import (
    Conditions,
    drawn_cells,
    measure_cell,
    published_cells,
)
from harness.lab.cost.drawn import Topology, drawn_groups, drawn_subject, image_side, published_subject
from harness.lab.cost.naive import naive_reader, read_naively
from harness.lab.cost.published import PUBLISHED, Published, Width, instructblip_config, llava_config
from harness.lab.cost.race import peak_bytes, race
from harness.lab.cost.subject import Subject, UnavailableError
from harness.models.prompts.prompt import encode
from harness.probe.lens_task import LensTask, References
from harness.tests.support.tiny import cast_inputs, tiny_samples, tiny_vlm

TINY = Topology(Width(32, 4, 64), 200, Width(16, 2, 32), 2)
LAYERS, TOKENS = 3, 45
CPU = torch.device("cpu")


def drawn(batch: int = 2) -> Subject:
    return drawn_subject(TINY, TOKENS, LAYERS, batch=batch, dtype=torch.float64)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return drawn()


def padded() -> Subject:
    """Return a left-padded batch of a model with biases and grouped KV heads.

    It is in float32 because transformers' eager attention gives NaN for masked rows in float64.
    """
    vlm = tiny_vlm()
    batch = encode(vlm.processor, tiny_samples(3), vlm.anatomy.image_positions)
    assert not batch.groups.real.all()
    words = tuple(((5 + row, 60), (11,), (7 * row + 3,)) for row in range(3))
    task = LensTask(References(words, words[::-1]), tuple(range(30)))
    return Subject(vlm.model, vlm.anatomy, cast_inputs(vlm, batch), batch.groups, task)


@pytest.mark.parametrize(("make", "tolerance"), [(drawn, 1e-6), (padded, 1e-5)])
def test_the_naive_implementation_agrees_with_the_probe(make, tolerance: float) -> None:
    subject = make()
    readings, _ = CONTESTANTS[EVERYTHING].prepare(subject)()
    naive = read_naively(subject)
    # Eager attention computes its softmax in float32 for every dtype of the model.
    np.testing.assert_allclose(readings.similarity[:, :-1], naive.similarity[:, :-1], rtol=0, atol=tolerance)
    # transformers' last hidden state is already normed.
    np.testing.assert_allclose(readings.post_norm, naive.similarity[:, -1], rtol=0, atol=tolerance)
    np.testing.assert_allclose(readings.norm_shares, naive.norm_shares, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(readings.hits, naive.hits)
    assert 0 < readings.hits.sum() < 2 * sum(map(len, subject.task.references.words)) * readings.hits.shape[1] * 2
    assert subject.anatomy.text_config._attn_implementation == "sdpa"


def test_attention_matrices_beyond_the_memory_are_refused(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.lab.cost.naive.physical_memory", lambda: 1_000_000)
    assert callable(naive_reader(subject))
    monkeypatch.setattr("harness.lab.cost.naive.physical_memory", lambda: 100_000)
    with pytest.raises(UnavailableError, match=r"needs more than 0\.4 MB for its attention"):
        naive_reader(subject)


def test_contestants_return_the_measures_of_their_names(subject: Subject) -> None:
    assert CONTESTANTS[PLAIN].prepare(subject)().logits.shape == (2, 1, TINY.vocabulary)
    for name, contestant in CONTESTANTS.items():
        if name not in (PLAIN, NAIVE, NNSIGHT):
            readings, _ = contestant.prepare(subject)()
            assert (readings.norm_shares is not None) == (name in (ATTENTION, EVERYTHING)), name
            assert (readings.hits is not None) == (name not in (SIMILARITY, ATTENTION)), name


def test_drawn_prompts_have_the_requested_number_of_tokens(subject: Subject) -> None:
    assert subject.inputs["input_ids"].shape == (2, TOKENS)
    assert int(subject.groups.image[0].sum()) == image_side(TOKENS) ** 2 == 25
    membership = subject.groups.image.int() + subject.groups.instruction.int() + subject.groups.other.int()
    assert bool((membership == 1).all())
    assert [image_side(tokens) ** 2 for tokens in (64, 300, 600, 1200, 2400)] == [36, 256, 576, 1156, 2304]
    with pytest.raises(ValueError, match="23 tokens hold no image"):
        image_side(23)


@pytest.mark.parametrize("label", PUBLISHED)
def test_published_models_run_with_the_tokens_of_their_prompt(label: str) -> None:
    published = PUBLISHED[label]
    narrow = Published(partial(published.config, Width(32, 4, 64)), published.layout)
    subject = published_subject(narrow, 2, dtype=torch.bfloat16, device="cpu")
    assert {parameter.dtype for parameter in subject.model.parameters()} == {torch.bfloat16}
    assert subject.inputs["input_ids"].shape == (1, published.layout.tokens)
    readings, lens = CONTESTANTS[EVERYTHING].prepare(subject)()
    assert np.isfinite(readings.similarity).all()
    assert lens is not None


def test_published_prompts_have_the_groups_of_the_tokenizers() -> None:
    counts = {}
    for label, published in PUBLISHED.items():
        groups = drawn_groups(published.layout, 1)
        members = groups.image.int() + groups.instruction.int() + groups.other.int()
        assert bool((members == 1).all())
        counts[label] = [int(group.sum()) for group in (groups.image, groups.text, groups.instruction)]
    assert counts == {"drawn LLaVA-1.5-7B": [576, 15, 6], "drawn InstructBLIP-Vicuna-7B": [32, 5, 5]}
    assert [(cell.tokens, cell.layers) for cell in published_cells(4)] == [(592, 4), (38, 4)]


def test_the_tower_shrinks_in_proportion_to_the_decoder() -> None:
    towers = [llava_config(layers=layers).vision_config.num_hidden_layers for layers in (1, 4, 32)]
    assert towers == [2, 3, 24]
    shrunk = instructblip_config(layers=8)
    assert (shrunk.vision_config.num_hidden_layers, shrunk.qformer_config.num_hidden_layers) == (10, 3)


def test_missing_nnsight_gives_a_row_with_the_reason(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnsight", None)
    with pytest.raises(UnavailableError, match="not installed"):
        nnsight_reader(subject)
    cell = Cell(SMALL_KIND, "tiny", TOKENS, 25, LAYERS, 2)
    result = measure_cell(
        cell, subject, Conditions((PLAIN, EVERYTHING, NNSIGHT), 2, 1.0, "cpu", "auto", Path("unused"))
    )
    assert dict(result.absent) == {NNSIGHT: "not installed"}
    assert {name: len(times) for name, times in result.times.items()} == {PLAIN: 2, EVERYTHING: 2}
    assert result.left_open is not None
    assert 0.0 <= result.left_open <= 1.0
    assert result.peaks[EVERYTHING] > result.peaks[PLAIN] > 0
    assert "not installed" in times_table([result])


def test_a_failing_nnsight_reports_its_error(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def NNsight(model: object) -> None:  # noqa: N802
            raise AttributeError("no such hook")

    monkeypatch.setitem(sys.modules, "nnsight", Broken)
    with pytest.raises(UnavailableError, match="does not run here: AttributeError: no such hook"):
        nnsight_reader(subject)


def test_an_out_of_memory_error_without_message_gives_a_row(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(_: Subject) -> None:
        raise torch.OutOfMemoryError

    contestants = {**CONTESTANTS, SIMILARITY: replace(CONTESTANTS[SIMILARITY], prepare=lacking)}
    monkeypatch.setattr("harness.lab.cost.cost_run.CONTESTANTS", contestants)
    cell = Cell(SMALL_KIND, "tiny", TOKENS, 25, LAYERS, 2)
    result = measure_cell(cell, subject, Conditions((PLAIN, SIMILARITY), 1, 1.0, "cpu", "auto", Path("unused")))
    assert dict(result.absent) == {SIMILARITY: "OutOfMemoryError()"}


def test_a_costly_contestant_that_uses_up_the_budget_runs_once(subject: Subject) -> None:
    cell = Cell(SMALL_KIND, "tiny", TOKENS, 25, LAYERS, 2)
    result = measure_cell(cell, subject, Conditions((PLAIN, NAIVE), None, 1e-3, "cpu", "auto", Path("unused")))
    assert len(result.times[PLAIN]) == 3
    first, *later = result.times[NAIVE]
    assert first is not None
    assert later == [None, None]
    assert result.peaks[NAIVE] > result.peaks[PLAIN]


def test_every_contestant_runs_once_per_round_in_rotating_order() -> None:
    ran: list[str] = []
    runs = {name: (lambda name=name: ran.append(name)) for name in "abc"}
    times = race(runs, synchronise=lambda: None, rounds=4)
    rounds = ["".join(ran[start : start + 3]) for start in range(0, 12, 3)]
    assert rounds == ["abc", "acb", "cab", "cba"]
    assert all(len(seconds) == 4 and None not in seconds for seconds in times.values())


def test_costly_contestants_stop_while_others_run_at_least_three_rounds() -> None:
    def slow() -> None:
        import time

        time.sleep(0.02)

    times = race({"quick": lambda: None, "slow": slow}, synchronise=lambda: None, costly=["slow"], budget=0.01)
    assert [len(seconds) for seconds in times.values()] == [3, 3]
    assert times["slow"][1:] == [None, None]


def test_the_peak_counts_simultaneous_allocations() -> None:
    def run() -> str:
        first = torch.zeros(1000, 250)
        second = first * 2  # 2 MB at the same time
        del first, second
        torch.zeros(1000, 300)
        return "read"

    peak, read = peak_bytes(run, CPU)
    assert peak == pytest.approx(2e6, rel=1e-3)
    assert read == "read"


def test_misuse_gives_a_one_line_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tokens", "20", "--layers", "1"]) == 2
    assert "20 tokens hold no image" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--contestants", "nobody"])
    assert "unknown 'nobody'" in capsys.readouterr().err
    assert _command(["--json", "kept.json", "--tokens", "64"]) == _command(["--json=kept.json", "--tokens", "64"])
    assert _command(["--tokens", "64", "--json", "kept.json"]) == "python -m harness.lab.cost --tokens 64"
    assert [(cell.tokens, cell.layers) for cell in drawn_cells((64, 300), (2,))] == [(64, 2), (300, 2)]


def test_the_breakdown_covers_the_probe_but_not_the_model(subject: Subject) -> None:
    breakdown = measure_breakdown(subject, passes=1)
    functions = {operation.function.split(".")[0] for operation in breakdown.operations}
    operations = {(operation.function.split(".")[0], operation.operation) for operation in breakdown.operations}
    assert {"similarity", "attention", "last_token", "lens"} <= functions
    assert ("precision", "matmul") in operations
    assert not {"silu", "scaled_dot_product_attention", "embedding"} & {name for _, name in operations}
    assert "% plain" in breakdown_lines(breakdown)[1]
