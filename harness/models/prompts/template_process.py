"""Rendering of checkpoints' chat templates in a separate process, with limits of time, memory and characters.

Templates are programs: transformers' sandbox isolates them from Python but does not stop endless loops. The trial by
`chat.refuse_endless_template` and all prompts are rendered in the same way, so no template can evade the limits by
recognising the trial.
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

#: CPU seconds of one rendering. Wall time on a busy machine may be longer, up to `_PATIENCE` seconds.
SECONDS = 10
_PATIENCE = 120
#: Characters of the longest prompt of one image and one instruction, a thousand times those of known models.
LONGEST = 1_000_000
_MEMORY = 1 << 30  # bytes
_PROGRAM = Path(__file__).with_name("template_program.py")
# Exit statuses of a process that reached its own or the system's limit, or exhausted the stack.
_STOPPED = {LIMITED} | {-getattr(signal, name) for name in ("SIGXCPU", "SIGKILL", "SIGSEGV") if hasattr(signal, name)}


class EndlessTemplateError(PhaseError):
    """A rendering reached one of the limits; the message is the predicate of a sentence about the template."""


class TemplateProcessError(PhaseError):
    """The rendering process cannot be started, or was ended from outside."""


class RenderingError(PhaseError):
    """A template raised an error, whose text is the message."""


def render(template: str, tokens: Mapping[str, Any], content: Any) -> str:
    """Return the prompt of a user's message, identical to that of transformers.

    Args:
        template: the text of a chat template.
        tokens: special tokens by name, from a tokenizer's `special_tokens_map`.
        content: the content of the message, a text or a list of parts; plain JSON.

    Raises:
        EndlessTemplateError: the rendering reached a limit.
        RenderingError: the template raised an error.
        TemplateProcessError: the process cannot be started, or ended for another reason.
    """
    return _rendered(template, json.dumps(dict(tokens)), json.dumps(content))


def start() -> None:
    """Open the process in the background, which takes half a second."""
    with _PROCESS.lock:
        _PROCESS.open()


@lru_cache(maxsize=256)
def _rendered(template: str, tokens: str, content: str) -> str:
    messages = [{"role": "user", "content": json.loads(content)}]
    arguments = {"conversations": [messages], "chat_template": template, "add_generation_prompt": True}
    reply = _PROCESS.request({"arguments": json.loads(tokens) | arguments, "seconds": SECONDS, "longest": LONGEST})
    if "error" in reply:
        raise RenderingError(reply["error"])
    return str(reply["text"])


class _TemplateProcess:
    """The process that renders templates; it stays open and is reopened after it reached a limit."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> subprocess.Popen[bytes]:
        """Open the process unless it is open, without waiting until it is ready."""
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
            # Like Python, skip entries that are not text.
            path = [entry for entry in sys.path if entry and isinstance(entry, str)]
            _send(self._process, {"path": path, "memory": _MEMORY})
        return self._process

    def request(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a message and return the reply.

        Raises:
            EndlessTemplateError: the process reached a limit.
            TemplateProcessError: the process cannot be started, or ended for another reason.
        """
        with self.lock:
            process = self.open()
            timer = Timer(_PATIENCE, process.kill)
            timer.daemon = True
            timer.start()
            try:
                _send(process, message)
                assert process.stdout is not None
                line = process.stdout.readline()
                waited = not timer.is_alive()
            except BaseException:
                # An unread reply would be taken for the reply to the next request.
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
                f"does not finish within {SECONDS} s, {_MEMORY >> 30} GB of memory and {LONGEST:,} characters: "
                "fix chat_template.jinja beside its config.json"
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
        pass  # The process has ended; its exit status gives the reason.


def _forget() -> None:
    """Forget the process in a fork, because it belongs to the parent."""
    global _PROCESS
    _PROCESS = _TemplateProcess()


_PROCESS = _TemplateProcess()
atexit.register(lambda: _PROCESS.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
