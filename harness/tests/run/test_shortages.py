"""Out-of-memory errors of all libraries are recognised, and no other errors."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from harness.errors import is_out_of_memory


@pytest.mark.parametrize(
    "words",
    [
        "could not create a primitive",
        "could not create a memory object",
        "could not execute a primitive",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
        "std::bad_alloc",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "unable to mmap 64 bytes from file <model.safetensors>: Cannot allocate memory (12)",
        "MPS backend out of memory (MPS allocated: 1 GB)",
    ],
)
def test_out_of_memory_messages_of_all_libraries_are_recognised(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(ValueError(words))


def test_other_errors_are_no_shortage_of_memory() -> None:
    assert is_out_of_memory(MemoryError())
    for words in (
        "shape mismatch",
        "could not create a primitive descriptor for the matmul primitive",
        "CUDA error: device-side assert triggered",
        "index 5 is out of bounds for dimension 0 with size 3",
    ):
        assert not is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(KeyboardInterrupt())


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space of a process")
def test_onednn_out_of_memory_raises_a_known_message() -> None:
    program = """
        import resource, torch
        from harness.errors import is_out_of_memory
        layer, few, many = torch.nn.Conv2d(3, 64, 14, 14), torch.zeros(1, 3, 28, 28), torch.zeros(16, 3, 336, 336)
        torch.set_num_threads(1)
        layer(few), is_out_of_memory(RuntimeError())
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), -1))
        for _ in range(9):
            try:
                layer(many)
            except Exception as error:
                problem = error
                if not is_out_of_memory(problem):
                    raise
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        print(type(problem).__name__, problem)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("RuntimeError")
