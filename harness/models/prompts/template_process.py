"""Chat templates of checkpoints rendered in a process of their own, with limits of time, memory and characters.

Templates are programs: transformers' sandbox keeps them away from Python, and not from computing for ever. The first
trial and all prompts are rendered here alike, so a template that recognises the trial gains nothing.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from harness.errors import PhaseError
from harness.models.prompts.template_program import LIMITED

#: Seconds of computing of one rendering; waiting for a busy machine does not count, up to `_PATIENCE`.
SECONDS = 10
_PATIENCE = 120
#: Characters of the longest prompt of one image and one instruction; the models' own are a thousand times shorter.
LONGEST = 1_000_000
_MEMORY = 1 << 30  # bytes
_PROGRAM = Path(__file__).with_name("template_program.py")
# Exit statuses of a process that met a limit of its own or the system's, or ran out of stack.
_STOPPED = {LIMITED} | {-getattr(signal, name) for name in ("SIGXCPU", "SIGKILL", "SIGSEGV") if hasattr(signal, name)}


class EndlessTemplateError(PhaseError):
    """A rendering met one of the limits; the message is the rest of a sentence that begins with the template."""


class TemplateProcessError(PhaseError):
    """The process that renders cannot be started, or was ended from outside."""


class RenderingError(PhaseError):
    """A template raised an error, which is the message."""


def render(template: str, tokens: Mapping[str, Any], content: Any) -> str:
    """Return the prompt of a user's message as transformers renders it, byte for byte.

    Args:
        template: the text of a chat template.
        tokens: special tokens by name, as a tokenizer's `special_tokens_map`.
        content: of the message, text or a list of parts; plain JSON.

    Raises:
        EndlessTemplateError: the rendering met a limit.
        RenderingError: the template raised an error.
        TemplateProcessError: the process cannot be started, or ended for another reason.
    """
    return _rendered(template, json.dumps(dict(tokens)), json.dumps(content))


def start() -> None:
    """Open the process, which takes half a second beside the caller's own work."""
    with _PROCESS.lock:
        _PROCESS.open()


@lru_cache(maxsize=256)
def _rendered(template: str, tokens: str, content: str) -> str:
    messages = [{"role": "user", "content": json.loads(content)}]
    arguments = {"conversations": [messages], "chat_template": template, "add_generation_prompt": True}
    reply = _PROCESS.ask({"arguments": json.loads(tokens) | arguments, "seconds": SECONDS, "longest": LONGEST})
    if "error" in reply:
        raise RenderingError(reply["error"])
    return str(reply["text"])


class _TemplateProcess:
    """The process that renders templates; it stays open, and is opened again after it met a limit."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> subprocess.Popen[bytes]:
        """Open the process, unless it is open; does not wait until it is ready."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own program; isolated from the current directory
                    [sys.executable, "-I", str(_PROGRAM)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as error:
                raise TemplateProcessError(
                    f"the process that renders chat templates cannot be started ({error}): allow more processes"
                ) from error
            # As Python does: entries that are no text are passed over.
            path = [entry for entry in sys.path if entry and isinstance(entry, str)]
            _send(self._process, {"path": path, "memory": _MEMORY})
        return self._process

    def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the reply to a request.

        Raises:
            EndlessTemplateError: the process met a limit.
            TemplateProcessError: the process cannot be started, or ended for another reason.
        """
        with self.lock:
            process = self.open()
            timer = Timer(_PATIENCE, process.kill)
            timer.daemon = True
            timer.start()
            try:
                _send(process, request)
                assert process.stdout is not None
                line = process.stdout.readline()
                waited = not timer.is_alive()
            except BaseException:
                # A reply that nobody has read would be taken for that of the next request.
                self.close()
                raise
            finally:
                timer.cancel()
            if line.endswith(b"\n"):
                reply: Mapping[str, Any] = json.loads(line)
                return reply
            status = process.wait()
            self.close()
        if waited or status in _STOPPED:
            raise EndlessTemplateError(
                f"does not come to an end within {SECONDS} s, {_MEMORY >> 30} GB of memory and {LONGEST:,} characters: "
                "mend chat_template.jinja beside its config.json"
            )
        raise TemplateProcessError(
            f"the process that renders chat templates ended (status {status}): start the run again"
        )

    def close(self) -> None:
        """End the process, if it is open."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _send(process: subprocess.Popen[bytes], content: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(content).encode("ascii") + b"\n")
        process.stdin.flush()
    except OSError:
        pass  # It has ended, and its status says why.


def _forget() -> None:
    """Leave the process to the parent, in a fork of it."""
    global _PROCESS
    _PROCESS = _TemplateProcess()


_PROCESS = _TemplateProcess()
atexit.register(lambda: _PROCESS.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
