"""Slow float64 implementations of the measures' definitions, against which the fast code is tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.models.prompts.prompt import TokenGroups
from harness.models.vlm import Vlm


def to_float64(tensor: torch.Tensor) -> Any:
    """Return the tensor as a float64 array."""
    return tensor.detach().to(torch.float64).cpu().numpy()


def cosine(a: Any, b: Any) -> float:
    """Return the cosine of two vectors, 0 if either is zero."""
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.dot(a, b) / norms) if norms else 0.0


def mean_cosine_across(states: Any, first: Any, second: Any, other_states: Any = None) -> float:
    """Return the mean cosine over all pairs of rows in `first` and `second` (of `other_states` if passed)."""
    others = states if other_states is None else other_states
    cosines = [cosine(states[i], others[j]) for i in np.flatnonzero(first) for j in np.flatnonzero(second)]
    return float(np.mean(cosines))


def mean_cosine_within(states: Any, members: Any) -> float:
    """Return the mean cosine over all ordered pairs of different rows in `members`."""
    rows = np.flatnonzero(members)
    return float(np.mean([cosine(states[i], states[j]) for i in rows for j in rows if i != j]))


def similarities(states: torch.Tensor, groups: TokenGroups) -> Any:
    """Return the five curves of `GroupSums.similarities`, (batch, 5)."""
    state_rows = to_float64(states)
    image, text, instruction = (getattr(groups, name).numpy() for name in ("image", "text", "instruction"))
    return np.array(
        [
            [
                mean_cosine_across(state_rows[row], image[row], text[row]),
                mean_cosine_across(state_rows[row], image[row], instruction[row]),
                mean_cosine_within(state_rows[row], image[row]),
                mean_cosine_within(state_rows[row], text[row]),
                mean_cosine_within(state_rows[row], instruction[row]),
            ]
            for row in range(len(state_rows))
        ]
    )


def norm_ratio(states: torch.Tensor, groups: TokenGroups) -> Any:
    """Return the mean norm of the image states over the mean norm of the text states, (batch,)."""
    rows = []
    for row, state_rows in enumerate(to_float64(states)):
        image, text = (
            [np.linalg.norm(state_rows[i]) for i in np.flatnonzero(getattr(groups, name)[row].numpy())]
            for name in ("image", "text")
        )
        rows.append(np.mean(image) / np.mean(text))
    return np.array(rows)


def step_cosines(before: torch.Tensor, after: torch.Tensor, groups: TokenGroups) -> Any:
    """Return the mean cosine of a token's states at two points, for image and text tokens, (batch, 2)."""
    first, second = to_float64(before), to_float64(after)
    return np.array(
        [
            [
                np.mean([cosine(first[row, i], second[row, i]) for i in np.flatnonzero(members[row].numpy())])
                for members in (groups.image, groups.text)
            ]
            for row in range(len(first))
        ]
    )


def image_share(weights: Any, queries: Any, image: Any) -> float:
    """Return the mean weight of some queries on the image, of softmax weights (heads, queries, keys) of one sample."""
    return float(np.mean([[head[i][image].sum() for i in np.flatnonzero(queries)] for head in weights]))


def softmax(logits: Any) -> Any:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def last_row_norms(
    query: Any, key: Any, value: Any, visible: Any, output_weight: Any, scaling: float
) -> tuple[Any, Any, Any]:
    """Return softmax weights (heads, keys), norms (keys,) and sum (d,) of sum_h alpha_j^h v_j^h W_O^h for one sample.

    query: (heads, dim) of the last token. key, value: (key heads, keys, dim). visible: bool (keys,). output_weight: as
    torch stores it, (d, heads x dim): head h owns columns h x dim to (h + 1) x dim.
    """
    heads = query.shape[0]
    keys, served = key.shape[1], heads // key.shape[0]
    weights = np.zeros((heads, keys))
    vectors = np.zeros((keys, output_weight.shape[0]))
    value_dim = value.shape[2]
    for head in range(heads):
        logits = np.array([np.dot(query[head], key[head // served, j]) * scaling for j in range(keys)])
        weights[head] = softmax(np.where(visible, logits, -np.inf))
        output = output_weight[:, head * value_dim : (head + 1) * value_dim]
        for j in range(keys):
            vectors[j] += weights[head, j] * (output @ value[head // served, j])
    return weights, np.linalg.norm(vectors, axis=1), vectors.sum(0)


def rotate(vector: Any, cosines: Any, sines: Any) -> Any:
    """Return a head's vector rotated by RoPE. The vector's halves are the two coordinates of each plane."""
    half = len(vector) // 2
    return vector * cosines + np.concatenate([-vector[half:], vector[:half]]) * sines


def capture_attention_inputs(vlm: Vlm, inputs: Mapping[str, torch.Tensor]) -> list[tuple[Any, Any, Any, Any]]:
    """Return per layer the attention module's input, its RoPE cosines and sines, and the output of W_O."""
    captured: list[list[Any]] = [[] for _ in vlm.anatomy.layers]
    handles = []
    for index, layer in enumerate(vlm.anatomy.layers):

        def before(_: nn.Module, args: Any, kwargs: Any, layer_index: int = index) -> None:
            cosines, sines = kwargs["position_embeddings"]
            captured[layer_index] += [to_float64(kwargs["hidden_states"]), to_float64(cosines), to_float64(sines)]

        def after(_: nn.Module, __: Any, output: torch.Tensor, layer_index: int = index) -> None:
            captured[layer_index].append(to_float64(output))

        handles.append(layer.self_attn.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(layer.self_attn.o_proj.register_forward_hook(after))
    with torch.inference_mode():
        vlm.model(**inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    return [tuple(layer) for layer in captured]


def attention(vlm: Vlm, inputs: Mapping[str, torch.Tensor], groups: TokenGroups) -> list[list[tuple[Any, Any, Any]]]:
    """Return weights, norms and summed vectors of the last token, [layer][sample]."""
    config = vlm.anatomy.text_config
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    real = groups.real.numpy()
    result = []
    captured = capture_attention_inputs(vlm, inputs)
    for layer, (states, cosines, sines, _) in zip(vlm.anatomy.layers, captured, strict=True):
        attn = layer.self_attn

        def project(name: str, row: Any, attn: Any = attn) -> Any:
            linear = getattr(attn, name)
            return row @ to_float64(linear.weight).T + (0.0 if linear.bias is None else to_float64(linear.bias))

        rows = []
        for sample in range(len(states)):
            tokens = len(states[sample])
            at = sample if len(cosines) > 1 else 0
            dim = to_float64(attn.q_proj.weight).shape[0] // heads
            query = project("q_proj", states[sample, -1]).reshape(heads, dim)
            query = np.stack([rotate(head, cosines[at, -1], sines[at, -1]) for head in query])
            key = project("k_proj", states[sample]).reshape(tokens, key_heads, dim)
            key = np.stack(
                [[rotate(key[j, h], cosines[at, j], sines[at, j]) for j in range(tokens)] for h in range(key_heads)]
            )
            value = project("v_proj", states[sample]).reshape(tokens, key_heads, dim).transpose(1, 0, 2)
            rows.append(last_row_norms(query, key, value, real[sample], to_float64(attn.o_proj.weight), dim**-0.5))
        result.append(rows)
    return result


def shares(amounts: Any, groups: TokenGroups, row: int) -> Any:
    """Return the shares of `amounts` (keys,) on image, instruction, other and the last token itself."""
    names = ("image", "instruction", "other")
    totals = dict.fromkeys((*names, "self"), 0.0)
    last = len(amounts) - 1
    for j, amount in enumerate(amounts):
        for name in names:
            if j != last and bool(getattr(groups, name)[row, j]):
                totals[name] += amount
    totals["self"] = amounts[last]
    whole = sum(totals.values())
    return np.array([totals[name] / whole for name in (*names, "self")])


def logits(state: Any, weight: Any, bias: Any = None) -> Any:
    """Return the logit of every vocabulary entry for one normed state (d,)."""
    rows = np.array([np.dot(entry, state) for entry in weight])
    return rows if bias is None else rows + bias


def is_word_in_top_k(logits_of_states: Sequence[Any], word: Sequence[int], k: int) -> bool:
    """Return True if, at any state, fewer than k vocabulary entries have a larger logit than an entry of the word."""
    for all_logits in logits_of_states:
        descending = np.sort(all_logits)[::-1]
        if any(int((descending > all_logits[entry]).sum()) < k for entry in word):
            return True
    return False
