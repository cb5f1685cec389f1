"""Program of the process that renders chat templates, one request and one reply per line; see `template_process`."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from pathlib import Path

#: Exit status of a rendering that reached the limit of memory or characters.
LIMITED = 3
_LONGEST_ERROR = 1000  # characters of an error's text, which the template controls


def main() -> None:
    """Answer requests from stdin until it closes; the first line has the module path and the memory limit."""
    # Ctrl-C signals all processes of a terminal; this process ends with its parent instead.
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
        except Exception as error:  # A template may raise any type.
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
    """Return the bytes of address space in use by this process; 0 if the system does not report them."""
    try:
        import resource

        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return 0


if __name__ == "__main__":
    main()
