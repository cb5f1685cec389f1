"""The knockout of a pair in sentences and as JSON types: where the image enters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.analysis.knockout_reading import NEEDED_SHARE, KnockoutReading, Loss
from harness.analysis.turning_points import BoundaryInterval
from harness.judgement.phases import interval_record, json_number
from harness.report.recorded_verdicts import interval, number

#: The legend labels of the paths of a knockout.
PATH_LABELS: Mapping[str, str] = {
    "later": "all later tokens",
    "answer": "the caption only",
    "instruction": "the instruction only",
}
#: The legend labels of its controls.
CONTROL_LABELS: Mapping[str, str] = {
    "noise": "noise for the image",
    "blank": "grey image",
    "other": "other tokens blocked",
}


def flow_sentences(knockout: KnockoutReading) -> tuple[str, ...]:
    """Return two sentences: the window whose loss is largest, and the layer from which on the image is not needed.

    A single sentence if the loss without the image is not confirmed.
    """
    total = knockout.total
    if total.share is None:
        return (
            f"Without the image the caption loses {total.effect:.3g} nats ({_span(total)}), which is not confirmed: "
            "this model or data makes no use of the image.",
        )
    largest = max(knockout.paths["later"], key=lambda loss: loss.effect)
    entry = (
        f"Of the {total.effect:.3g} nats that the image contributes to a caption, {_share(largest)} are lost if "
        f"{_layers(largest)} cannot attend to it ({largest.effect:.3g} nats, {_span(largest)})."
    )
    needed = knockout.last_needed
    assert needed is not None
    if needed.estimate > total.layers[1]:
        return entry, f"The image is needed up to the last layer, {total.layers[1]}."
    late = next(loss for loss in knockout.onward if loss.layers[0] == needed.estimate)
    cost = f"for {_share(late)} of it" if late.effect > 0.0 else "without a loss"
    return (
        entry,
        f"From layer {needed:g} on the image tokens can be dropped {cost} ({late.effect:.2g} nats, {_span(late)}).",
    )


def describe_flow(knockout: KnockoutReading | None) -> str:
    """Return a description of the figure for screen readers: the sentences, and the loss of each window."""
    if knockout is None:
        return "Attention knockout was not measured."
    losses = ", ".join(f"{loss.effect:.3g} nats in {_layers(loss)}" for loss in knockout.paths["later"])
    return f"{' '.join(flow_sentences(knockout))} Losses by window: {losses}."


def knockout_record(knockout: KnockoutReading) -> dict[str, Any]:
    """Return the losses as JSON types."""
    needed = knockout.last_needed
    return {
        "window": knockout.window,
        "n": knockout.n,
        "level": json_number(knockout.level),
        "total": _loss_record(knockout.total),
        "windows": _losses_record(knockout.paths["later"]),
        "paths": {path: _losses_record(losses) for path, losses in knockout.paths.items() if path != "later"},
        "controls": {control: _losses_record(losses) for control, losses in knockout.controls.items()},
        "onward": _losses_record(knockout.onward),
        "last_needed": None
        if needed is None
        else {"layer": json_number(needed.estimate), "interval": interval_record(needed)[1:], "share": NEEDED_SHARE},
    }


def recorded_knockout(entry: Mapping[str, Any]) -> KnockoutReading:
    """Return the losses of a record, the inverse of `knockout_record`, without those of the samples.

    Raises:
        KeyError, TypeError, ValueError: the entry is damaged.
    """
    needed = entry["last_needed"]
    layer = None if needed is None else BoundaryInterval(number(needed["layer"]), *interval(needed["interval"]))
    later = {"later": entry["windows"]}
    return KnockoutReading(
        window=int(entry["window"]),
        n=int(entry["n"]),
        total=_recorded_loss(entry["total"]),
        paths={path: _recorded_losses(losses) for path, losses in (later | entry["paths"]).items()},
        controls={control: _recorded_losses(losses) for control, losses in entry["controls"].items()},
        onward=_recorded_losses(entry["onward"]),
        last_needed=layer,
        level=number(entry["level"]),
    )


def _losses_record(losses: Iterable[Loss]) -> list[dict[str, Any]]:
    return list(map(_loss_record, losses))


def _loss_record(loss: Loss) -> dict[str, Any]:
    return {
        "layers": list(loss.layers),
        "effect": json_number(loss.effect),
        "interval": [json_number(end) for end in loss.interval],
        "share": None if loss.share is None else json_number(loss.share),
        "per_token": json_number(loss.per_token),
    }


def _recorded_losses(entries: Iterable[Mapping[str, Any]]) -> tuple[Loss, ...]:
    return tuple(map(_recorded_loss, entries))


def _recorded_loss(entry: Mapping[str, Any]) -> Loss:
    first, last = map(int, entry["layers"])
    share = None if entry["share"] is None else number(entry["share"])
    return Loss((first, last), number(entry["effect"]), interval(entry["interval"]), share, number(entry["per_token"]))


def _layers(loss: Loss) -> str:
    first, last = loss.layers
    return f"layers {first}-{last}" if last > first else f"layer {first}"


def _share(loss: Loss) -> str:
    assert loss.share is not None
    return f"{100 * loss.share:.2g} %" if abs(loss.share) < 1.0 else f"{100 * loss.share:.0f} %"


def _span(loss: Loss) -> str:
    low, high = loss.interval
    return f"{low:.2g} to {high:.2g}"
