"""A checkpoint's chat template tried in a process of its own, with limits of time and memory, before it is used here.

Templates are programs: transformers' sandbox keeps them away from Python, and not from computing for ever.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from harness.models.chat import PromptError
from harness.models.template_date import with_fixed_date

#: Seconds of computing; waiting for a busy machine does not count, up to `_PATIENCE`.
SECONDS = 10
_PATIENCE = 120
#: Characters of the longest prompt of one image and one instruction; the models' own are a thousand times shorter.
LONGEST = 1_000_000
_MEMORY = 1 << 30  # bytes
_LIMITED = 3  # the exit status of a trial that met one of the limits
# Sets the sandbox up as transformers does. Other failures than the limits are for transformers to say.
_TRIAL = """
import json, sys
SECONDS, MEMORY, LONGEST, LIMITED = map(int, sys.argv[1:])
import jinja2, jinja2.ext, jinja2.sandbox
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
except (ImportError, OSError, ValueError):
    pass

class Generation(jinja2.ext.Extension):
    tags = {"generation"}
    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)

def refuse(message):
    raise jinja2.TemplateError(message)

given = json.load(sys.stdin)
sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
sandbox.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
sandbox.globals.update(raise_exception=refuse)
for content in given["contents"]:
    try:
        size = 0
        for piece in sandbox.from_string(given["template"]).generate(
            messages=[{"role": "user", "content": content}], add_generation_prompt=True, **given["tokens"]
        ):
            size += len(piece)
            if size > LONGEST:
                sys.exit(LIMITED)
    except MemoryError:
        sys.exit(LIMITED)
    except Exception:  # A template that fails has come to an end; what it lacks is said where a prompt is written.
        pass
"""


def refuse_endless_templates(processor: Any, source: str) -> None:
    """Asserts that the chat templates of a processor come to an end with a prompt of one image and one instruction.

    Args:
        processor: as loaded.
        source: what its checkpoint is called in messages.

    Raises:
        PromptError: a template takes more than 10 s, 1 GB, or writes more than a million characters.
    """
    for owner in (processor, getattr(processor, "tokenizer", None)):
        for template in _texts(getattr(owner, "chat_template", None)):
            if not _ends(with_fixed_date(template), json.dumps(_tokens(processor))):
                raise PromptError(
                    f"the chat template of {source} does not come to an end within {SECONDS} s, {_MEMORY >> 30} GB of "
                    f"memory and {LONGEST:,} characters: mend chat_template.jinja beside its config.json"
                )


def _texts(template: Any) -> Iterator[str]:
    """The template, or those of several names."""
    for text in template.values() if isinstance(template, dict) else [template]:
        if isinstance(text, str):
            yield text


def _tokens(processor: Any) -> dict[str, str]:
    """The special tokens, which templates write."""
    named = getattr(getattr(processor, "tokenizer", None), "special_tokens_map", {})
    return {name: value for name, value in named.items() if isinstance(value, str) and name.isidentifier()}


@lru_cache(maxsize=64)
def _ends(template: str, tokens: str) -> bool:
    contents = [[{"type": "image"}, {"type": "text", "text": "Describe the image."}], "Describe the image."]
    given = json.dumps({"template": template, "tokens": json.loads(tokens), "contents": contents})
    limits = [str(limit) for limit in (SECONDS, _MEMORY, LONGEST, _LIMITED)]
    try:
        done = subprocess.run(  # noqa: S603 - our own program, the template is its input
            [sys.executable, "-I", "-c", _TRIAL, *limits],
            input=given,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    # Killed by a signal: the system keeps the limits itself.
    return done.returncode >= 0 and done.returncode != _LIMITED
