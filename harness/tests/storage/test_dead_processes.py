"""Tags in file names show which processes of this host have ended; processes of other hosts count as running."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.storage import dead_processes
from harness.storage.dead_processes import is_dead, owner_tag
from harness.tests.support.case_runs import ROOT

PRINT_TAG = "from harness.storage.dead_processes import owner_tag; print(owner_tag(), flush=True); input()"


@pytest.fixture
def other_process() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRINT_TAG], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def read_tag(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_tag_is_valid_in_file_names_and_its_process_is_alive() -> None:
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9]+-[0-9a-f]{8}", owner_tag())
    assert owner_tag() == owner_tag()
    assert not is_dead(owner_tag())


def test_a_killed_process_is_dead_before_and_after_its_parent_waits(
    other_process: subprocess.Popen[str],
) -> None:
    tag = read_tag(other_process)
    assert f"-{other_process.pid}-" in tag
    assert not is_dead(tag)
    other_process.kill()
    if hasattr(os, "waitid"):
        # Wait for the end but leave the entry in the process table.
        os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(tag) == Path("/proc/self/stat").exists()
    other_process.communicate()
    assert is_dead(tag)


def test_a_later_process_with_the_same_id_is_not_the_owner() -> None:
    host, pid, start = owner_tag().split("-")
    assert is_dead(f"{host}-{pid}-{int(start, 16) ^ 1:08x}")
    # An unknown start time is not evidence of another process.
    assert not is_dead(f"{host}-{pid}-00000000")


def test_tags_of_other_hosts_and_malformed_tags_are_not_dead(other_process: subprocess.Popen[str]) -> None:
    host, pid, start = read_tag(other_process).split("-")
    other_process.communicate("")
    assert is_dead(f"{host}-{pid}-{start}")
    elsewhere = f"{int(host, 16) ^ 1:08x}"
    for name in (
        f"{elsewhere}-{pid}-{start}",
        f"{host}-{pid}",
        f"{host}-{pid}-{start}.x",
        f"{host}-{pid}-{start}\n",
        f"{host}--{pid}-{start}",
        f"{host}-9999999999-{start}",
        f"{host}-0-00000000",
        f"{host}-\uff11\uff12-{start}",
        "tmpabcd123",
        "",
    ):
        assert not is_dead(name), name


FORK = """
import os
from harness.storage.dead_processes import owner_tag
print(os.getpid(), owner_tag(), flush=True)
if child := os.fork():
    os.waitpid(child, 0)
else:
    print(os.getpid(), owner_tag(), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_hosts_with_the_same_name_differ_by_their_machine_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def host(machine: str) -> str:
        monkeypatch.setattr(Path, "read_text", lambda *_: machine)
        return dead_processes._host.__wrapped__()

    assert host("0" * 32) == host("0" * 32) != host("1" * 32)


def test_a_forked_process_has_its_own_tag() -> None:
    out = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pids, tags = zip(*(line.split() for line in out.splitlines()), strict=True)
    assert len(set(tags)) == 2
    assert all(f"-{pid}-" in tag and is_dead(tag) for pid, tag in zip(pids, tags, strict=True))


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise PermissionError

    host, pid, start = owner_tag().split("-")
    monkeypatch.setattr(dead_processes.os, "kill", refused)
    monkeypatch.setattr(dead_processes, "_state_and_start", lambda _: ("", "00000000"))
    assert not is_dead(f"{host}-{pid}-{start}")
