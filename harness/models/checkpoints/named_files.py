"""Settings by which a checkpoint names further files, or another model: none may lead out of its directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness.models.weights_error import WeightsError
from harness.storage.file_names import is_plain_name

#: The key of config.json that names the weights in place of transformers' own choice.
NAMED_WEIGHTS = "transformers_weights"
_WEIGHTS = (".safetensors", ".safetensors.index.json")


def is_plain(name: Any) -> bool:
    """True if a value is the name of a file without any directory."""
    return isinstance(name, str) and is_plain_name(name) and "\0" not in name


def is_weights(name: Any) -> bool:
    """True if a value is the plain name of safetensors, or of an index of such files."""
    return is_plain(name) and name.endswith(_WEIGHTS)


def _is_empty(value: Any, _: Path) -> bool:
    return not value


def _is_weights(value: Any, _: Path) -> bool:
    return value is None or is_weights(value)


def _is_plain(value: Any, _: Path) -> bool:
    return not value or all(is_plain(name) for name in (value if isinstance(value, list) else [value]))


def _is_no_address(value: Any, _: Path) -> bool:
    return not isinstance(value, str) or not {":", "/"} & {*value}


def _is_not_there(value: Any, folder: Path) -> bool:
    """True unless a text is a path out of the directory, and there is something.

    The paths of the machine that saved a tokenizer are harmless on another.
    """
    if not isinstance(value, str):
        return True
    try:
        return not Path(value).exists() or Path(value).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):
        return True


# By key: True of a value that does no harm, and what another would do. A key may be given with the one it stands under.
_SETTINGS: Mapping[str, tuple[Callable[[Any, Path], bool], str]] = {
    NAMED_WEIGHTS: (_is_weights, "the weights would be read from there"),
    "attribute_map": (_is_empty, "settings would be read under other names"),
    "configuration_files": (_is_empty, "another file would be read in place of config.json"),
    "fast_tokenizer_files": (_is_plain, "the tokenizer would be read from there"),
    **dict.fromkeys(
        # transformers opens them as they stand, some where tokenizer.json is missing and some before 5.24.
        (
            *("vocab", "vocab_file", "merges", "merges_file", "tokenizer_file", "spm_file", "src_vocab_file"),
            *("tgt_vocab_file", "entity_vocab_file", "monolingual_vocab_file", "emoji_file", "normalizer_file"),
            *("word_shape_file", "word_pronunciation_file"),
        ),
        (_is_not_there, "the tokenizer would be read from there"),
    ),
    "gguf_file": (_is_empty, "the tokenizer would be read from there"),
    "sp_model_kwargs.model_file": (_is_empty, "the tokenizer would be read from there"),
    "font": (_is_plain, "a file would be read from there"),
    "class_info_file": (_is_empty, "a file would be read from there, or from the hub"),
    "model_args.checkpoint_path": (_is_empty, "weights would be read from there"),
    "audio_tokenizer_name_or_path": (_is_empty, "another model would be loaded from there"),
    "use_pretrained_backbone": (_is_empty, "the weights of another model would be fetched"),
    "backbone": (_is_no_address, "another model would be looked up there"),
    "architecture": (_is_no_address, "another model would be looked up there"),
}
_LAST_KEYS = {key.split(".")[-1] for key in _SETTINGS}
# Shell patterns of the settings that transformers reads; those of a training (training_config.json) may name anything.
_READ = ("config.json", "*processor_config.json", "*tokenizer_config.json", "special_tokens_map.json")


def names_files(path: Path) -> bool:
    """True if transformers follows what a file of settings names."""
    return any(fnmatchcase(path.name, pattern) for pattern in _READ)


def refuse_named_files(settings: Mapping[str, Any], path: Path, source: str) -> None:
    """Assert that no setting in the file `path` leads to a file outside of its directory, or to another model.

    Raises:
        WeightsError: a setting does; the message names it.
    """
    for parent, key, value in _items(settings):
        harmless, effect = _SETTINGS.get(key) or _SETTINGS.get(f"{parent}.{key}") or (_is_empty, "")
        if effect and not harmless(value, path.parent):
            raise WeightsError(
                f"the checkpoint {source} has {key} {value!r:.200} in {path.name}, and {effect}: only the safetensors "
                f"and settings in its own directory are read; take {key} out of that file"
            )


def _items(content: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the keys of settings that may name files, at any depth, with the key they stand under and their value."""
    # No recursion: tokenizer_config.json may have 10^5 keys.
    left = [("", content)]
    while left:
        parent, part = left.pop()
        if isinstance(part, dict):
            for key, value in part.items():
                if key in _LAST_KEYS:
                    yield parent, key, value
                if isinstance(value, dict | list):
                    left.append((key, value))
        else:
            left += [(parent, value) for value in part if isinstance(value, dict | list)]
