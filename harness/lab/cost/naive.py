"""A straightforward implementation of the measures: all states stored, every pair of tokens, the full vocabulary.

It shares no code with the probe, so it serves as a test oracle as well as a contestant: both must give the same values.
It supports decoders built like Llama's (input_layernorm, self_attn.v_proj, self_attn.o_proj).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from harness.lab.cost.subject import Subject, UnavailableError

KS = (1, 5)
_MEMORY_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class NaiveReadings:
    """Readings of the naive implementation, one row per sample, at the P = L + 1 hidden states of transformers.

    The last hidden state is already normed, unlike residual point L. similarity: (batch, P, 5), in the order of
    `GroupSums.similarities`. norm_shares: (batch, L, 4), in the order of `ShareReader`. hits: int (batch, P, 2, 2).
    """

    similarity: torch.Tensor
    norm_shares: torch.Tensor
    hits: torch.Tensor


def naive_reader(subject: Subject) -> Callable[[], NaiveReadings]:
    """Return the function that reads the batch naively.

    Raises:
        UnavailableError: the attention matrices would fill the CPU's memory, so the system would kill the process.
    """
    batch, tokens = subject.groups.real.shape
    heads = subject.anatomy.text_config.num_attention_heads
    needed = subject.anatomy.depth * heads * batch * tokens**2 * subject.model.dtype.itemsize
    if subject.device.type == "cpu" and needed > _MEMORY_SHARE * physical_memory():
        raise UnavailableError(f"needs more than {needed / 1e6:,.1f} MB for its attention matrices")
    return partial(read_naively, subject)


def physical_memory() -> int:
    """Return the physical memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_naively(subject: Subject) -> NaiveReadings:
    """Return every measure of one batch, computed from eager attention matrices and all hidden states."""
    before = subject.model.config._attn_implementation
    subject.model.set_attn_implementation("eager")
    try:
        output = subject.forward(output_attentions=True, output_hidden_states=True)
        # Some models nest the language model's output in their own.
        output = getattr(output, "language_model_outputs", output)
        *inputs, last = output.hidden_states
        layers = zip(subject.anatomy.layers, inputs, output.attentions, strict=True)
        with torch.inference_mode():
            similarity = [_similarities(subject, states) for states in output.hidden_states]
            shares = [_shares(subject, _norms(*layer)) for layer in layers]
            # The final norm is already applied to the last hidden state.
            hits = [_hits(subject, states) for states in [*map(subject.anatomy.final_norm, inputs), last]]
            return NaiveReadings(*(torch.stack(readings, dim=1) for readings in (similarity, shares, hits)))
    finally:
        subject.model.set_attn_implementation(before)


def _similarities(subject: Subject, states: torch.Tensor) -> torch.Tensor:
    """Return group means (batch, 5) of the full cosine matrix of hidden states (batch, tokens, d)."""
    unit = torch.nn.functional.normalize(_upcast(states), dim=-1)
    rows = []
    for cosines, image, text, instruction in zip(
        unit @ unit.transpose(1, 2), subject.groups.image, subject.groups.text, subject.groups.instruction, strict=True
    ):
        within = []
        for group in (image, text, instruction):
            square = cosines[group][:, group]
            within.append(square[~torch.eye(len(square), dtype=torch.bool, device=square.device)].mean())
        across = [cosines[image][:, group].mean() for group in (text, instruction)]
        rows.append(torch.stack([*across, *within]))
    return torch.stack(rows)


def _norms(layer: Any, states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the norms (batch, tokens) of each token's contribution to the last token in a layer.

    Every head's values are transformed first.

    Args:
        layer: a decoder layer.
        states: its input, (batch, tokens, d).
        weights: its attention, (batch, heads, tokens, tokens).
    """
    heads = weights.shape[1]
    values = layer.self_attn.v_proj(layer.input_layernorm(states))
    output = layer.self_attn.o_proj.weight
    dim = output.shape[1] // heads
    values = values.view(*values.shape[:2], -1, dim).transpose(1, 2)
    values = values.repeat_interleave(heads // values.shape[1], dim=1)
    transformed = torch.einsum("bhjv,ohv->bhjo", _upcast(values), _upcast(output).view(-1, heads, dim))
    vectors = (_upcast(weights[:, :, -1]).unsqueeze(-1) * transformed).sum(1)
    norms: torch.Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return norms


def _shares(subject: Subject, norms: torch.Tensor) -> torch.Tensor:
    """Return the shares (batch, 4) of the last token's row that fall on image, instruction, other and itself."""
    rows = []
    for row, image, instruction, other in zip(
        norms, subject.groups.image, subject.groups.instruction, subject.groups.other, strict=True
    ):
        last = torch.zeros_like(image)
        last[-1] = True
        parts = [row[group & ~last].sum() for group in (image, instruction, other)]
        total = torch.stack([*parts, row[-1]])
        rows.append(total / total.sum())
    return torch.stack(rows)


def _hits(subject: Subject, states: torch.Tensor) -> torch.Tensor:
    """Count the words among the top entries of any image token: int (batch, 2, len(KS)); the states are normed."""
    references = subject.task.references
    counts = torch.zeros((len(states), 2, len(KS)), dtype=torch.long)
    for row, image in enumerate(subject.groups.image):
        weight = next(subject.anatomy.unembedding.parameters())
        logits = _upcast(states[row][image]) @ _upcast(weight).T
        best = logits.topk(max(KS), dim=-1).indices.cpu()
        for column, k in enumerate(KS):
            decoded = set(best[:, :k].flatten().tolist())
            for kind, words in enumerate((references.words[row], references.chance_words[row])):
                counts[row, kind, column] = sum(not decoded.isdisjoint(word) for word in words)
    return counts


def _upcast(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
