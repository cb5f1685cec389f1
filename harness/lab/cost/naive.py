"""The same measures the way one would write them first: everything kept, every pair of tokens, the whole vocabulary.

Nothing here is shared with the probe, so that it is an oracle of it as well as a contestant: what both give must agree.
It knows decoders built as Llama's (input_layernorm, self_attn.v_proj, self_attn.o_proj).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from harness.lab.cost.subject import AbsentError, Subject

KS = (1, 5)
_MOST_OF_MEMORY = 0.7


@dataclass(frozen=True, slots=True)
class NaiveReadings:
    """What the naive way gives, a row per sample; P = L + 1 hidden states as transformers returns them.

    The last of them is already normed, unlike residual point L. similarity: (batch, P, 5), in the order of
    `GroupSums.similarities`. norm_shares: (batch, L, 4), in the order of `ShareReader`. hits: int (batch, P, 2, 2).
    """

    similarity: torch.Tensor
    norm_shares: torch.Tensor
    hits: torch.Tensor


def naive_reader(subject: Subject) -> Callable[[], NaiveReadings]:
    """Return the function that reads the batch naively.

    Raises:
        AbsentError: on a CPU whose memory the attention matrices would fill, where the system would end the process.
    """
    batch, tokens = subject.groups.real.shape
    heads = subject.anatomy.text_config.num_attention_heads
    needed = subject.anatomy.depth * heads * batch * tokens**2 * subject.model.dtype.itemsize
    if subject.device.type == "cpu" and needed > _MOST_OF_MEMORY * physical_memory():
        raise AbsentError(f"needs more than {needed / 1e6:,.1f} MB for its attention matrices")
    return partial(read_naively, subject)


def physical_memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_naively(subject: Subject) -> NaiveReadings:
    """Every measure of one batch from eager attention with all its matrices and all hidden states kept."""
    before = subject.model.config._attn_implementation
    subject.model.set_attn_implementation("eager")
    try:
        output = subject.forward(output_attentions=True, output_hidden_states=True)
        # A model around a language model of its own hands on that one's output.
        output = getattr(output, "language_model_outputs", output)
        *inputs, last = output.hidden_states
        layers = zip(subject.anatomy.layers, inputs, output.attentions, strict=True)
        with torch.inference_mode():
            similarity = [_similarities(subject, states) for states in output.hidden_states]
            shares = [_shares(subject, _norms(*layer)) for layer in layers]
            # The last of them has gone through the final norm already.
            hits = [_hits(subject, states) for states in [*map(subject.anatomy.final_norm, inputs), last]]
            return NaiveReadings(*(torch.stack(readings, dim=1) for readings in (similarity, shares, hits)))
    finally:
        subject.model.set_attn_implementation(before)


def _similarities(subject: Subject, states: torch.Tensor) -> torch.Tensor:
    """Means of the full matrix of cosines, (batch, 5), of hidden states (batch, tokens, d)."""
    unit = torch.nn.functional.normalize(_wide(states), dim=-1)
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
    """Norms of what each token gives the last one in a layer, (batch, tokens): every head's transformed values first.

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
    transformed = torch.einsum("bhjv,ohv->bhjo", _wide(values), _wide(output).view(-1, heads, dim))
    vectors = (_wide(weights[:, :, -1]).unsqueeze(-1) * transformed).sum(1)
    norms: torch.Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return norms


def _shares(subject: Subject, norms: torch.Tensor) -> torch.Tensor:
    """Shares of the last token's row on image, instruction, other and itself, (batch, 4)."""
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
    """Words among the best entries of some image token, int (batch, 2, len(KS)), of normed states."""
    references = subject.task.references
    counts = torch.zeros((len(states), 2, len(KS)), dtype=torch.long)
    for row, image in enumerate(subject.groups.image):
        weight = next(subject.anatomy.unembedding.parameters())
        logits = _wide(states[row][image]) @ _wide(weight).T
        best = logits.topk(max(KS), dim=-1).indices.cpu()
        for column, k in enumerate(KS):
            decoded = set(best[:, :k].flatten().tolist())
            for kind, words in enumerate((references.words[row], references.chance_words[row])):
                counts[row, kind, column] = sum(not decoded.isdisjoint(word) for word in words)
    return counts


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
