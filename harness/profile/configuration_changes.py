"""The settings in which two configurations differ, ordered by their effect on a forward pass."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.profile.configuration import CHECKPOINT, MODULES
from harness.profile.measures import layer_ranges

#: The largest number of changed settings that a message names.
MAX_NAMED_SETTINGS = 6

# The order of changed settings: the first pattern that matches a key gives its rank. A key without a match comes
# between the two tables, because an unknown setting may affect the computation.
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
    """The settings that differ between two configurations, each as 'key: before -> after'.

    `changed` holds the relevant changes in order. `added` and `removed` hold settings of one configuration only, if
    another version of transformers writes other fields or the modules have other paths.
    """

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return all changes."""
        return [*self.changed, *self.added, *self.removed]

    def abridged(self, most: int = MAX_NAMED_SETTINGS) -> list[str]:
        """Return the first changes, and the number of further ones."""
        named = list(self.changed[:most])
        unnamed = len(self.changed) - len(named)
        if unnamed:
            named.append(f"{unnamed} more settings" if named else _counted(unnamed, "setting"))
        counts = [f"{_counted(len(self.added), 'setting')} added"] if self.added else []
        counts += [f"{_counted(len(self.removed), 'setting')} removed"] if self.removed else []
        return named + ([", ".join(counts)] if counts else [])


def configuration_changes(
    after: Mapping[str, Any], before: Mapping[str, Any], *, same_release: bool = True
) -> ConfigurationChanges:
    """Compare two configurations of `configuration.read_configuration`; an empty one means that none was stored.

    Args:
        after: the later configuration.
        before: the earlier configuration.
        same_release: True if both were read with one version of transformers. Then a field in only one of them is a
            change; between two versions it is usually a new default, and is counted separately.
    """
    if not (after and before):
        return ConfigurationChanges()
    keys = sorted((after.keys() | before.keys()) - {CHECKPOINT}, key=_order)
    # A null field is equivalent to a missing one.
    keys = [key for key in keys if after.get(key) != before.get(key) and not _only_saved(key, after, before)]
    one_sided = [key for key in keys if key not in after or key not in before]
    modules = [key for key in one_sided if key.startswith(MODULES)]
    # A wrapper such as an adapter changes the path of every module.
    counted = set(modules if len(modules) > MAX_NAMED_SETTINGS else ()) if same_release else set(one_sided)
    return ConfigurationChanges(
        changed=tuple(_merged([key for key in keys if key not in counted], after, before)),
        added=tuple(_change(key, after, before) for key in keys if key in counted and key in after),
        removed=tuple(_change(key, after, before) for key in keys if key in counted and key in before),
    )


def _only_saved(key: str, after: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Return True for a class name in only one configuration, because saving a configuration adds it."""
    return key.rpartition(".")[2] == "architectures" and None in (after.get(key), before.get(key))


def _order(key: str) -> tuple[int, bool, str]:
    rank = next((index for index, pattern in enumerate(_FIRST) if pattern.search(key)), len(_FIRST))
    if _LAST.search(key):
        rank = len(_FIRST) + 1
    return rank, key.startswith(MODULES), key


def _merged(keys: Sequence[str], after: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Return one line per change, without attributes of modules that repeat a changed field of the configuration.

    Attributes with one name and the same change share a line.
    """
    field_values = {_values(key, after, before) for key in keys if not key.startswith(MODULES)}
    groups: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        values = _values(key, after, before)
        if not key.startswith(MODULES):
            groups[key, values] = [key]
        elif values not in field_values:
            groups.setdefault((key.rpartition(".")[2], values), []).append(key)
    return [_line(group, values) for (_, values), group in groups.items()]


def _line(keys: Sequence[str], values: str) -> str:
    alike = f" (and {_counted(len(keys) - 1, 'module')} alike)" if len(keys) > 1 else ""
    return f"{keys[0].removeprefix(MODULES)}: {values}{alike}"


def _change(key: str, after: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    return _line([key], _values(key, after, before))


def _values(key: str, after: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Return the values of a setting as 'before -> after', or only a list's entries if they all change alike."""
    old, new = (settings.get(key, _ABSENT) for settings in (before, after))
    lists = [value for value in (old, new) if isinstance(value, list)]
    if lists and _ABSENT not in (old, new) and len(lists[0]) == len(lists[-1]):
        size = len(lists[0])
        # If all layers of a stack share a value, only that value is stored.
        pairs = zip(*(value if isinstance(value, list) else [value] * size for value in (old, new)), strict=True)
        entries = {
            index: _arrow(*pair)
            for index, pair in enumerate(pairs, start=1)
            if pair[0] != pair[1] and (len(lists) == 2 or None not in pair)
        }
        if len(set(entries.values())) == 1 and len(entries) < size:
            noun = ("layer", "layers") if "*" in key else ("entry", "entries")
            return f"{next(iter(entries.values()))} in {noun[len(entries) > 1]} {layer_ranges(entries)}"
    return _arrow(old, new)


def _arrow(old: Any, new: Any) -> str:
    return f"{_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = f"[{', '.join(map(_shown, value))}]" if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
