"""Chat templates of checkpoints: rendered as transformers does, in a process whose limits hold for every prompt."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import processing_utils
from transformers.utils import chat_template_utils

from harness.models.prompts import chat, template_process
from harness.models.prompts.chat import PromptError, prompt_text, refuse_endless_template
from harness.models.prompts.chat_templates import HARNESS_TEMPLATES
from harness.models.prompts.template_process import EndlessTemplateError, RenderingError, TemplateProcessError, render
from harness.models.vlm import Vlm

REST = "<image>{{ messages[0]['content'][1]['text'] }}"
TRIAL = "Describe the image."
INSTRUCTION = "what is it?"
PARTS = [{"type": "image"}, {"type": "text", "text": INSTRUCTION}]
FORMS = {
    "tojson": "{{ messages | tojson(indent=2) }}{{ messages | tojson(sort_keys=True, ensure_ascii=True) }}",
    "loopcontrols": "{% for i in range(9) %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "generation": "a{% generation %}b{{ 1 + 1 }}{% endgeneration %}c",
    "namespace": "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "dict": "{{ dict(a=1, b='x') }}{{ dict.fromkeys([1, 2], 0) }}",
    "variables": "{{ tools }}{{ documents }}{{ add_generation_prompt }}{{ bos_token }}{{ eos_token }}{{ pad_token }}",
    "undefined": "{{ nothing }}{{ nothing is defined }}{{ strftime_now is defined }}{{ raise_exception is defined }}",
    "signs": "  \n\u00e9 \u2028 \U0001f600 \x1b[31m\n  {%- if true %} x \n{% endif %}\r\n y\t\n\n",
    "half a sign": "{{ '\\ud83d' }}",
    "macro": "{% macro m(x, y=2) %}{{ x ~ y ~ caller() }}{% endmacro %}{% call m(1) %}!{% endcall %}",
    "roles": "{{ messages[0].role }}{{ messages | length }}{{ messages[0].content[0] }}",
}
# Each behaves in a trial and not with this instruction.
DETECT_PROMPT = "{% set real = 'INSTRUCTION' in messages | string %}".replace("INSTRUCTION", INSTRUCTION)
NESTED_LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
ENDLESS = {
    "hangs": DETECT_PROMPT + "{% if real %}" + NESTED_LOOPS + "{% endif %}",
    "fills memory": DETECT_PROMPT + "{% if real %}{{ ('a' * 4000000000) | length }}{% endif %}",
    "fills memory in a filter": DETECT_PROMPT + "{% if real %}{{ ('a' | center(4000000000)) | length }}{% endif %}",
    "writes": DETECT_PROMPT + "{% if real %}{{ 'many words' * 200000 }}{% endif %}",
    "computes a number": DETECT_PROMPT + "{% if real %}{{ (8 + messages | length) ** 99999999 % 7 }}{% endif %}",
    "has no end of depth": DETECT_PROMPT + "{% macro m(x) %}{{ m(x + 'aaaaaaaaaaaa' * 99999999) }}{% endmacro %}"
    "{% if real %}{{ m('') }}{% endif %}",
    "a long list": DETECT_PROMPT + "{% if real %}{{ ([1] * 2000000000) | length }}{% endif %}",
}


def with_template(vlm: Vlm, template: str) -> Any:
    """Return the tiny processor with another chat template."""
    processor = copy.copy(vlm.processor)
    processor.chat_template = template
    return processor


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_prompt_is_byte_for_byte_that_of_transformers(vlm: Vlm, form: str) -> None:
    processor = with_template(vlm, form)
    for content in (PARTS, INSTRUCTION, [*PARTS[:1], {"type": "text", "text": "\u00df\x00\ud800 {{ 1 }}"}]):
        rendered = render(form, processor.tokenizer.special_tokens_map, content)
        assert rendered == processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )


def test_the_arguments_are_those_that_transformers_passes(vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[dict[str, Any]] = []

    def record_arguments(**arguments: Any) -> Any:
        received.append(arguments)
        return ["heard"], []

    monkeypatch.setattr(processing_utils, "render_jinja_template", record_arguments)
    processor = with_template(vlm, REST + "arguments")
    processor.apply_chat_template([{"role": "user", "content": PARTS}], add_generation_prompt=True)
    requests: list[Any] = []
    monkeypatch.setattr(template_process._PROCESS, "request", lambda request: requests.append(request) or {"text": ""})
    render(processor.chat_template, processor.tokenizer.special_tokens_map, PARTS)
    # Defaults of omitted arguments.
    defaults = {"tools": None, "documents": None}
    defaults |= {"return_assistant_tokens_mask": False, "continue_final_message": False}
    assert defaults | requests[0]["arguments"] == received[0]


def test_a_checkpoints_template_is_compiled_in_the_other_process_only(
    vlm: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiling computes constants, in branches that are never taken too: up to gigabytes, and no trial shows them.
    def refuse(template: Any) -> None:
        pytest.fail("compiled here")

    monkeypatch.setattr(chat_template_utils, "_compile_jinja_template", refuse)
    processor = with_template(vlm, REST + "{% if false %}{{ 'a' * 4000000000 }}{% endif %}")
    refuse_endless_template(processor, "here")
    assert prompt_text(processor, INSTRUCTION) == "<image>" + INSTRUCTION


@pytest.mark.slow
@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_recognises_the_trial_is_stopped_at_its_use(
    vlm: Vlm, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_process, "SECONDS", 1)
    processor = with_template(vlm, REST + template)
    refuse_endless_template(processor, "here")
    assert prompt_text(processor, TRIAL) == "<image>" + TRIAL
    with pytest.raises(PromptError, match=r"^the chat template of LlavaProcessor does not finish within 1 s, 1 GB"):
        prompt_text(processor, INSTRUCTION)
    # The next template has a process again.
    assert prompt_text(with_template(vlm, REST), INSTRUCTION) == "<image>" + INSTRUCTION


def test_the_harnesss_own_templates_need_no_process(vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "render", lambda *arguments: pytest.fail("a process was asked"))
    for template in HARNESS_TEMPLATES:
        assert INSTRUCTION in prompt_text(with_template(vlm, template), INSTRUCTION)


def test_a_prompt_just_below_the_limit_is_rendered(vlm: Vlm) -> None:
    text = "{{ 'many words' * 99999 }}"
    assert len(render(text, {}, INSTRUCTION)) == 999_990
    with pytest.raises(EndlessTemplateError):
        render(text + "many words and more", {}, INSTRUCTION)


@pytest.mark.slow
def test_an_error_of_a_template_is_short_and_printable(vlm: Vlm) -> None:
    with pytest.raises(RenderingError) as caught:
        render("{{ raise_exception('\x1b]0;evil\x07' * 99999) }}", {}, INSTRUCTION)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 10_000


@pytest.mark.slow
def test_prompts_of_several_threads_are_not_mixed_up() -> None:
    texts = [f"text {k}" for k in range(400)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: render("{{ messages[0].content }}", {}, text), texts)) == texts


@pytest.mark.slow
def test_a_process_that_was_killed_is_opened_again() -> None:
    assert render("{{ messages[0].content }}", {}, "before") == "before"
    process = template_process._PROCESS.open()
    process.kill()
    process.wait()
    assert render("{{ messages[0].content }}", {}, "behind") == "behind"


@pytest.mark.slow
def test_a_process_that_cannot_be_started_or_is_ended_is_no_fault_of_the_template(
    vlm: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    send = template_process._send

    def terminate_and_send(process: Any, content: Any) -> None:
        process.terminate()
        process.wait()
        send(process, content)

    processor = with_template(vlm, REST + "without process")
    template_process._PROCESS.close()
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", refuse)
        with pytest.raises(TemplateProcessError, match=r"cannot be started .*unavailable"):
            prompt_text(processor, INSTRUCTION)
    with monkeypatch.context() as patched:
        patched.setattr(template_process, "_send", terminate_and_send)
        with pytest.raises(TemplateProcessError, match=r"renders chat templates ended \(status "):
            prompt_text(processor, INSTRUCTION)
    assert prompt_text(processor, INSTRUCTION) == f"<image>{INSTRUCTION}without process"


@pytest.mark.slow
def test_an_interrupted_prompt_leaves_no_reply_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    send = template_process._send

    def send_and_interrupt(process: Any, content: Any) -> None:
        send(process, content)
        raise KeyboardInterrupt

    template_process.start()
    monkeypatch.setattr(template_process, "_send", send_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        render("{{ messages[0].content }}", {}, "interrupted")
    monkeypatch.setattr(template_process, "_send", send)
    assert render("{{ messages[0].content }}", {}, "next") == "next"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system forks no processes")
def test_a_fork_starts_its_own_process() -> None:
    program = """
        import os, warnings
        from harness.models.prompts.template_process import render
        warnings.simplefilter("ignore")
        form = "{{ messages[0].content }}"
        assert render(form, {}, "first") == "first"
        child = os.fork()
        texts = [f"{os.getpid()} {k}" for k in range(300)]
        right = [render(form, {}, text) for text in texts] == texts
        if not child:
            os._exit(0 if right else 1)
        assert right and os.waitpid(child, 0)[1] == 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=240)


@pytest.mark.slow
def test_the_process_imports_no_module_of_the_current_directory(tmp_path: Path) -> None:
    for name in ("json", "jinja2", "transformers", "harness"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('from the current directory')")
    root = Path(__file__).parents[3]
    program = f"import sys; sys.path.insert(0, {str(root)!r}); sys.path.remove('')\n"
    program += "from harness.models.prompts.template_process import render\nprint(render('{{ 1 + 1 }}', {}, ''))"
    completed = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=240, capture_output=True, text=True
    )
    assert completed.stdout == "2\n"


@pytest.mark.slow
def test_the_process_ignores_module_paths_that_are_not_text(monkeypatch: pytest.MonkeyPatch) -> None:
    # A frequent slip in a conftest.py; Python passes over it, too.
    monkeypatch.setattr(sys, "path", [Path("/no/text"), *sys.path])
    template_process._PROCESS.close()
    assert render("{{ 3 * 3 }}", {}, "a path") == "9"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="ends a process by a signal")
def test_the_process_ends_with_its_parent() -> None:
    program = """
        import os
        from harness.models.prompts import chat
        from harness.models.prompts import template_process
        template_process.render("{{ 1 }}", {}, "")
        print(template_process._PROCESS.open().pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.wait(240)
    if psutil.pid_exists(pid):
        psutil.wait_procs([psutil.Process(pid)], timeout=240)
    # In a container nobody may collect it.
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
