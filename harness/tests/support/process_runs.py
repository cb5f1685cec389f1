"""Runs of the cases in several processes, started by the usual launchers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from harness.tests.support.case_runs import ROOT

PYTHON = (sys.executable,)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def run_cases(
    home: Path, name: str, launcher: tuple[str, ...], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the cases on two tiny models with separate baselines and cache, and return the completed process."""
    command = [
        *launcher,
        *(
            "-m",
            "pytest",
            "cases/",
            "-p",
            "harness.tests.support.tiny_pairs",
            "-p",
            "no:cacheprovider",
            "-m",
            "regression",
        ),
        *("--phase-model", "tiny-llava", "--phase-model", "tiny-other", "--phase-dataset", "tiny"),
        *("--phase-samples", "64", "--phase-controls", "blank", "--phase-device", "cpu"),
        *("--phase-baselines", str(home / name), "--phase-cache", str(home / f"{name}-cache")),
        *("--phase-json", str(home / f"{name}.json"), *arguments),
    ]
    environment = {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def run_ranks(home: Path, *arguments: tuple[str, ...], **environment: str) -> list[subprocess.Popen[str]]:
    """Start a process of the cases for each rank with its arguments. Each process prints to a separate file."""
    port, launched = free_port(), []
    for rank, rank_arguments in enumerate(arguments):
        command = [
            *(
                sys.executable,
                "-m",
                "pytest",
                "cases/",
                "-p",
                "harness.tests.support.tiny_pairs",
                "-p",
                "no:cacheprovider",
            ),
            *("-k", "inter_similarity", "--phase-model", "tiny-llava", "--phase-dataset", "tiny"),
            *("--phase-samples", "64", "--phase-controls", "blank", "--phase-device", "cpu", "--phase-no-cache"),
            *("--phase-baselines", str(home / "baselines"), "--phase-update-new", *rank_arguments),
        ]
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(arguments)), "OMP_NUM_THREADS": "1"}
        with (home / f"{rank}.txt").open("w") as output:
            launched.append(
                subprocess.Popen(
                    command,
                    env=os.environ | ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} | environment,
                    cwd=ROOT,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
    return launched
