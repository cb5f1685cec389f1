"""Program of the process that renders chat templates: a request a line, a reply a line. `template_process` runs it."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from pathlib import Path

#: Exit status of a rendering that met the limit of memory or of characters.
LIMITED = 3
_LONGEST_ERROR = 1000  # characters of an error's text, which a template may choose


def main() -> None:
    """Answer requests from stdin until it is closed; the first line has the module path and the limit of memory."""
    # Ctrl-C goes to all processes of a terminal; this one ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, replies = sys.stdin.buffer, sys.stdout
    sys.stdout = sys.stderr
    settings = json.loads(requests.readline())
    sys.path[:] = settings["path"]
    from transformers.utils.chat_template_utils import render_jinja_template

    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_AS", settings["memory"] + _address_space())
    for line in requests:
        request = json.loads(line)
        _limit("RLIMIT_CPU", math.ceil(time.process_time()) + request["seconds"])
        try:
            reply = {"text": render_jinja_template(**request["arguments"])[0][0]}
        except MemoryError:
            sys.exit(LIMITED)
        except Exception as error:  # A template raises what it likes, and jinja2 what it meets.
            reply = {"error": (str(error).strip() or type(error).__name__)[:_LONGEST_ERROR]}
        if len(reply.get("text", "")) > request["longest"]:
            sys.exit(LIMITED)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _limit(name: str, amount: int) -> None:
    """Limit a resource of this process as far as the system can."""
    try:
        import resource

        kind = getattr(resource, name)
        resource.setrlimit(kind, (amount, resource.getrlimit(kind)[1]))
    except (ImportError, AttributeError, OSError, ValueError):
        pass


def _address_space() -> int:
    """Return the bytes of address space that the process has already, 0 where the system does not say."""
    try:
        import resource

        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return 0


if __name__ == "__main__":
    main()
