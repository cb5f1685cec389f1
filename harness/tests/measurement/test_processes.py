"""Several processes measure like one: same numbers, one output and one error for all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.measurement.ranks import ProcessError, Processes, processes
from harness.tests.support.case_runs import ROOT
from harness.tests.support.process_runs import ACCELERATE, PYTHON, TORCHRUN, free_port, read_files, run_cases, run_ranks

ALONE = Processes()


def test_a_single_process_does_not_import_torch_distributed() -> None:
    program = """if True:
        import sys
        from harness.measurement.ranks import processes
        single = processes()
        assert (single.first, single.several, single.device("auto")) == (True, False, "auto")
        assert list(single.share(3)) == [0, 1, 2]
        assert single.gather("all", lambda: ["a", "b"]) == ["a", "b"]
        assert single.agree_on_first("all", lambda: 7) == single.run_on_first("all", lambda: 7) == 7
        single.wait("nobody")
        single.leave()
        assert not {"torch", "accelerate"} & set(sys.modules), "a heavy import"
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "PYTEST_XDIST_WORKER")}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=ROOT)


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "4"}])
def test_without_a_launcher_there_is_one_process(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processes.cache_clear()
    assert processes() == ALONE
    processes.cache_clear()


@pytest.mark.parametrize(("n", "count"), [(0, 2), (1, 3), (7, 2), (8, 4)])
def test_every_batch_belongs_to_one_process(n: int, count: int) -> None:
    shares = [list(Processes(rank, count).share(n)) for rank in range(count)]
    assert sorted(batch for share in shares for batch in share) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    second, third = Processes(1, 3, 1), Processes(2, 3, 2)
    assert [second.device(name) for name in ("auto", "cuda", "cpu", "cuda:0")] == ["cuda:1", "cuda:1", "cpu", "cuda:0"]
    assert ALONE.device("auto") == "auto"
    with pytest.raises(ProcessError, match="process 3 on this machine has no GPU of its own, there are 2"):
        third.device("auto")
    worker = Processes(local_rank=5, shares_machine=True)
    assert (worker.device("auto"), worker.several) == ("cuda:1", False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert third.device("auto") == "auto"


@pytest.mark.slow
def test_two_processes_exchange_results_and_errors() -> None:
    """Results are in order, errors are the same in both processes, and a lost process is reported."""
    first, second = (process.communicate(timeout=100)[0].splitlines() for process in started())
    unforeseen = "process 1 failed with ZeroDivisionError: nobody thought of it (meeting.py:"
    assert first[:6] == [
        "5 batches: ['b0', 'b1', 'b2', 'b3', 'b4']",
        "1 batches: ['b0']",
        "0 batches: []",
        "agreed: 0",
        "of the first: [0]",
        "broken: ReadingError: sample tiny-3 is NaN",
    ]
    assert first[6].startswith(f"unforeseen: ProcessError: {unforeseen}")
    assert first[7].startswith("not to be sent: ProcessError: process 0 failed with AttributeError: ")
    assert first[8:11] == [
        "the same: None",
        "others: ProcessError: process 1 started with size 4, process 0 with 8: start all processes with the same",
        "in step: ['b0', 'b1', 'b2']",
    ]
    assert second[:6] + second[7:] == first[:6] + first[7:11]
    assert second[6] == "unforeseen: ZeroDivisionError: nobody thought of it"
    gone = "ProcessError: process 0 of 2 lost the others at batches: one of them ended; read its output"
    assert [line.split(": ", 1)[1].split(", and")[0] for line in first[11:]] == [gone, gone]


def started() -> list[subprocess.Popen[str]]:
    launched = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "harness.tests.support.meeting"],
            env=os.environ | launched | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]


@pytest.mark.slow
def test_two_processes_write_the_same_files_as_one_and_print_once(tmp_path: Path) -> None:
    assert run_cases(tmp_path, "one", PYTHON, "--phase-update-new").returncode == 0
    launchers = {"torchrun": TORCHRUN, "accelerate": (*ACCELERATE, "--main_process_port", free_port())}
    for name, launcher in launchers.items():
        done = run_cases(tmp_path, name, launcher, "--phase-update-new")
        output = done.stdout
        assert done.returncode == 0, output + done.stderr
        assert (tmp_path / f"{name}.json").read_bytes() == (tmp_path / "one.json").read_bytes()
        assert read_files(tmp_path / name) == read_files(tmp_path / "one")
        assert output.count("phase: 2 processes share the samples of each pair") == 1
        assert output.count("baselines: 0 matched, 0 changed, 2 new, 0 unused") == 1
        assert len(re.findall(r"\b24 passed\b", output)) == 1


@pytest.mark.slow
def test_two_processes_exclude_the_same_samples_as_one(tmp_path: Path) -> None:
    for name, launcher in {"one": PYTHON, "two": TORCHRUN}.items():
        chosen = ("-k", "inter_similarity and llava", "--phase-update-new", "--phase-batch-size", "4")
        done = run_cases(tmp_path, name, launcher, *chosen, TINY_FAULT="refused")
        assert done.returncode != 0, "62 samples are too few for a baseline"
        assert done.stdout.count("phase: tiny: left out 2 (LlavaProcessor rejects its image of 1200 x 5 pixels") == 1
        assert done.stdout.count("needs at least 64 samples, not 62") > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("sample", "1 of 64 samples cannot be measured: sample tiny-63: the picture is torn"),
        ("own", "process 1 failed with ValueError: the second process has a fault of its own (tiny_pairs.py:"),
        ("dead", "process 0 of 2 lost the others at "),
        ("ended", "ended by its launcher (SIGTERM), as when another process fails"),
    ],
)
def test_a_fault_of_one_process_is_one_sentence_and_no_process_hangs(tmp_path: Path, fault: str, sentence: str) -> None:
    done = run_cases(tmp_path, "faulty", TORCHRUN, "-k", "inter_similarity and llava", TINY_FAULT=fault)
    assert done.returncode != 0
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout
    # After a process has died, its launcher may end the other before it reports its tests.
    ended = fault == "dead" and "ended by its launcher (SIGTERM)" in done.stdout
    skipped = "" if fault == "ended" else "1 skipped.* "
    assert re.search(rf"{skipped}1 error\b", done.stdout) or ended


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all(tmp_path: Path) -> None:
    done = run_cases(tmp_path, "signalled", TORCHRUN, "-k", "inter_similarity", TINY_FAULT="ended")
    assert "! Interrupted: ended by its launcher (SIGTERM), as when another process fails" in done.stdout
    assert "tiny-other" not in done.stdout
    assert "run different work" not in done.stdout


def test_after_the_others_are_lost_nothing_is_sent_or_measured() -> None:
    class HangingStore:
        def set(self, *_: object) -> None:
            raise AssertionError("writing to a store whose host hangs would block")

    alone = Processes(1, 2, _lost="process 0 is silent", _met=True)
    alone._heartbeats.store = HangingStore()
    with pytest.raises(ProcessError, match="process 0 is silent"):
        alone.gather("batches", lambda: [alone.begin_batch("batch 1")])


@pytest.mark.slow
def test_different_options_are_reported_before_a_model_is_loaded(tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    both = run_ranks(tmp_path, (), ("--phase-batch-size", "4"), TINY_LOADS=str(loads))
    assert [process.wait(200) for process in both] == [pytest.ExitCode.USAGE_ERROR] * 2
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    sentence = "ERROR: process 1 started with --phase-batch-size 4, process 0 with 8: start all processes with the same"
    assert sentence in first.splitlines()
    assert second == ""
    assert not loads.exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_process_that_hangs_is_named_and_the_wait_is_bounded(tmp_path: Path) -> None:
    bounded = ("--phase-process-timeout", "9")
    first, second = run_ranks(tmp_path, bounded, bounded, TINY_FAULT="stopped", TINY_SILENCE="1")
    try:
        assert first.wait(200) == pytest.ExitCode.TESTS_FAILED
    finally:
        second.kill()
        second.wait()
    output = (tmp_path / "0.txt").read_text()
    named = r"process 1 has not answered since \d\d:\d\d:\d\d \(at tiny-llava-tiny\)"
    assert re.search(
        rf"^phase: {named}: it hangs, or one batch takes that long; process 0 waits until 20", output, re.M
    )
    assert re.search(rf"lost the others at tiny-llava-tiny: {named} and did not arrive within 9 seconds", output)
    assert "Traceback" not in output
