"""The settings in which two configurations differ, those first that change what a forward pass computes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.profile.configuration import CHECKPOINT, MODULES
from harness.profile.measures import layer_ranges

#: The number of changed settings that a message names.
MAX_NAMED_SETTINGS = 6

# The order of changed settings: the first pattern that a key has decides, and a key that has none stands between the
# two tables, because a setting that nobody knows may change numbers.
_FIRST = tuple(
    map(
        re.compile,
        (
            r"rope|rotary|inv_freq|theta",
            r"eps(ilon)?$",
            r"(^|[._])act(ivation)?(_fn|_func|$|[._])|hidden_act|approximate",
            r"feature_(layer|select)|select_(layer|strategy|feature)",
            r"image_processor\.",
            r"scal|softcap|window|causal|attn_implementation|quantization",
            r"(hidden|intermediate|head|patch|image)_(size|dim)|num_.*(layers|heads|tokens)|layer_types",
        ),
    )
)
_LAST = re.compile(
    r"dropout|initializer|use_cache|return_dict|output_(attentions|hidden_states|router_logits)|"
    r"(bos|eos|pad|unk|sep|cls|decoder_start)_token_id|tie_word_embeddings|problem_type|pretraining_tp|architectures|"
    r"chunk_size_feed_forward|max_position_embeddings|max_length|temperature|top_[kp]|beam|penalty|"
    r"(tokenizer|extractor|video_processor|^processor)\.class$|torchvision"
)
_ABSENT = "absent"
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class ConfigurationChanges:
    """The settings that are not the same in two configurations, each as 'key: then -> now'.

    `changed` holds those to look at, in order; `added` and `removed` those that only one of the configurations has
    because another version of transformers writes other fields, or because its modules have other paths.
    """

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Every change."""
        return [*self.changed, *self.added, *self.removed]

    def abridged(self, most: int = MAX_NAMED_SETTINGS) -> list[str]:
        """Return the first changes, and how many more there are."""
        named = list(self.changed[:most])
        more = len(self.changed) - len(named)
        if more:
            named.append(f"{more} more settings" if named else _counted(more, "setting"))
        counts = [f"{_counted(len(self.added), 'setting')} new"] if self.added else []
        counts += [f"{_counted(len(self.removed), 'setting')} gone"] if self.removed else []
        return named + ([", ".join(counts)] if counts else [])


def configuration_changes(
    now: Mapping[str, Any], then: Mapping[str, Any], *, same_release: bool = True
) -> ConfigurationChanges:
    """Compare two configurations of `configuration.read_configuration`; one that is empty was never stored.

    Args:
        now: the later one.
        then: the earlier one.
        same_release: both were read with one version of transformers, so a field of one alone is a change; between
            two versions it is most often a default that was given a field, and is counted apart.
    """
    if not (now and then):
        return ConfigurationChanges()
    keys = sorted((now.keys() | then.keys()) - {CHECKPOINT}, key=_order)
    # A field that is null says as much as one that is not there.
    keys = [key for key in keys if now.get(key) != then.get(key) and not _only_saved(key, now, then)]
    one_sided = [key for key in keys if key not in now or key not in then]
    modules = [key for key in one_sided if key.startswith(MODULES)]
    # A wrapper, as that of an adapter, gives every module another path.
    apart = set(modules if len(modules) > MAX_NAMED_SETTINGS else ()) if same_release else set(one_sided)
    return ConfigurationChanges(
        changed=tuple(_merged([key for key in keys if key not in apart], now, then)),
        added=tuple(_change(key, now, then) for key in keys if key in apart and key in now),
        removed=tuple(_change(key, now, then) for key in keys if key in apart and key in then),
    )


def _only_saved(key: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    """True for the class of a model that only one side names, as a configuration does once it has been saved."""
    return key.rpartition(".")[2] == "architectures" and None in (now.get(key), then.get(key))


def _order(key: str) -> tuple[int, bool, str]:
    rank = next((index for index, pattern in enumerate(_FIRST) if pattern.search(key)), len(_FIRST))
    if _LAST.search(key):
        rank = len(_FIRST) + 1
    return rank, key.startswith(MODULES), key


def _merged(keys: Sequence[str], now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """A line for every change: what modules hold is left out where a field of the configuration says the same.

    Modules whose attributes of one name change in the same way share a line.
    """
    said = {_values(key, now, then) for key in keys if not key.startswith(MODULES)}
    groups: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        values = _values(key, now, then)
        if not key.startswith(MODULES):
            groups[key, values] = [key]
        elif values not in said:
            groups.setdefault((key.rpartition(".")[2], values), []).append(key)
    return [_line(group, values) for (_, values), group in groups.items()]


def _line(keys: Sequence[str], values: str) -> str:
    alike = f" (and {_counted(len(keys) - 1, 'module')} alike)" if len(keys) > 1 else ""
    return f"{keys[0].removeprefix(MODULES)}: {values}{alike}"


def _change(key: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    return _line([key], _values(key, now, then))


def _values(key: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """Return the values of a setting as 'then -> now'; of a list the entries that differ, where they differ alike."""
    one, other = (settings.get(key, _ABSENT) for settings in (then, now))
    lists = [value for value in (one, other) if isinstance(value, list)]
    if lists and _ABSENT not in (one, other) and len(lists[0]) == len(lists[-1]):
        size = len(lists[0])
        # A stack of which every layer had the same value is stored as that value.
        pairs = zip(*(value if isinstance(value, list) else [value] * size for value in (one, other)), strict=True)
        entries = {
            index: _arrow(*pair)
            for index, pair in enumerate(pairs, start=1)
            if pair[0] != pair[1] and (len(lists) == 2 or None not in pair)
        }
        if len(set(entries.values())) == 1 and len(entries) < size:
            noun = ("layer", "layers") if "*" in key else ("entry", "entries")
            return f"{next(iter(entries.values()))} in {noun[len(entries) > 1]} {layer_ranges(entries)}"
    return _arrow(one, other)


def _arrow(one: Any, other: Any) -> str:
    return f"{_shown(one)} -> {_shown(other)}"


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = f"[{', '.join(map(_shown, value))}]" if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
