"""Attention knockout by definition: the complete model with eager attention and a mask that forbids pairs of tokens."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from harness.models.anatomy import Anatomy
from harness.models.forward_pass import prompt_options
from harness.models.likelihood import answered_inputs
from harness.models.prompts.prompt import Batch
from harness.probe.answer_pass import AnswerPass, Blocked
from harness.probe.answered_prompts import AnsweredPrompts
from harness.probe.knockout import Knockout
from harness.releases.tiny.prompts import TinyPrompt


def blocked_likelihoods(
    model: Any, anatomy: Anatomy, run: Any, prompts: AnsweredPrompts, blocked: Blocked | None = None
) -> Any:
    """Return the log-likelihood of each answer in float64, (n,), from the model's own logits with eager attention."""
    before, longest = anatomy.text_config._attn_implementation, prompts.targets.shape[1]
    forbidden = torch.zeros(len(prompts.real), prompts.tokens, prompts.tokens, dtype=torch.bool)
    for row in range(0 if blocked is None else len(forbidden)):
        assert blocked is not None
        for query in blocked.queries[row].nonzero().flatten().tolist():
            for key in blocked.keys[row].nonzero().flatten().tolist():
                forbidden[row, query, key] = query != key

    def hide(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[-2:] == forbidden.shape[-2:]:
            value = value.expand(len(forbidden), -1, -1, -1)
            if value.dtype == torch.bool:
                return value & ~forbidden[:, None]
            return value.masked_fill(forbidden[:, None], torch.finfo(value.dtype).min)
        return value

    def hide_keys(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tuple(map(hide, args)), {name: hide(value) for name, value in kwargs.items()}

    with contextlib.ExitStack() as stack, torch.inference_mode():
        for layer in () if blocked is None else blocked.layers:
            hook = anatomy.layers[layer].register_forward_pre_hook(hide_keys, with_kwargs=True)
            stack.callback(hook.remove)
        stack.callback(model.set_attn_implementation, {anatomy.attention_key: before})
        model.set_attn_implementation({anatomy.attention_key: "eager"})
        output = run(longest + 1)
    logits = (getattr(output, "language_model_outputs", None) or output).logits[:, -longest - 1 : -1].double()
    values = logits.log_softmax(-1).gather(2, prompts.targets[..., None])[..., 0]
    return (values * prompts.is_token).sum(1).numpy()


def answered_prompt(model: Any, prompt: TinyPrompt, seed: int = 0) -> tuple[AnsweredPrompts, Any]:
    """Return a prompt of the sweep with an answer of drawn tokens per sample, of 5 and 3 tokens, and its run."""
    batch = len(prompt.inputs["input_ids"])
    ids = prompt.inputs["input_ids"][~(prompt.groups.image | prompt.separators)]
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
    targets = ids[order[: 5 * batch]].view(batch, 5).clone()
    is_token = torch.ones(batch, 5, dtype=torch.bool)
    is_token[1:, 3:] = False
    targets[~is_token] = 0
    prompts = AnsweredPrompts.of(prompt.groups, targets, is_token, range(batch))
    inputs = answered_inputs(Batch(prompt.inputs, prompt.groups, ()), model.config.model_type, targets, is_token)
    return prompts, lambda positions: model(**inputs, **prompt_options(model, positions))


def measure_answers(model: Any, anatomy: Anatomy, prompts: AnsweredPrompts, run: Any, knockout: Knockout) -> AnswerPass:
    with torch.inference_mode():
        return AnswerPass(
            model, anatomy, prompts, run, knockout.starts, checking=not knockout.checked, unembeds=knockout.unembeds
        )
