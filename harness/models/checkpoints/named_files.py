"""Settings that name further files or another model, none of which may be outside the checkpoint directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness.models.weights_error import WeightsError
from harness.storage.file_names import is_plain_name

#: The key of config.json that overrides transformers' choice of weight files.
NAMED_WEIGHTS = "transformers_weights"
_WEIGHTS = (".safetensors", ".safetensors.index.json")


def is_plain(name: Any) -> bool:
    """Return True if a value is a file name without a directory."""
    return isinstance(name, str) and is_plain_name(name) and "\0" not in name


def is_weights(name: Any) -> bool:
    """Return True if a value is the plain name of a safetensors file or of an index of such files."""
    return is_plain(name) and name.endswith(_WEIGHTS)


def _is_empty(value: Any, _: Path) -> bool:
    return not value


def _is_weights(value: Any, _: Path) -> bool:
    return value is None or is_weights(value)


def _is_plain(value: Any, _: Path) -> bool:
    return not value or all(is_plain(name) for name in (value if isinstance(value, list) else [value]))


def _is_no_url(value: Any, _: Path) -> bool:
    return not isinstance(value, str) or not {":", "/"} & {*value}


def _is_no_outside_path(value: Any, folder: Path) -> bool:
    """Return True unless a text is an existing path outside the directory.

    Paths from the machine that saved a tokenizer are harmless if they do not exist here.
    """
    if not isinstance(value, str):
        return True
    try:
        return not Path(value).exists() or Path(value).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):
        return True


# By key, optionally with its parent key: a test for harmless values, and the effect of any other value.
_SETTINGS: Mapping[str, tuple[Callable[[Any, Path], bool], str]] = {
    NAMED_WEIGHTS: (_is_weights, "the weights would be read from there"),
    "attribute_map": (_is_empty, "settings would be read under other names"),
    "configuration_files": (_is_empty, "another file would be read in place of config.json"),
    "fast_tokenizer_files": (_is_plain, "the tokenizer would be read from there"),
    **dict.fromkeys(
        # transformers opens these verbatim, some only without tokenizer.json and some only before 5.24.
        (
            *("vocab", "vocab_file", "merges", "merges_file", "tokenizer_file", "spm_file", "src_vocab_file"),
            *("tgt_vocab_file", "entity_vocab_file", "monolingual_vocab_file", "emoji_file", "normalizer_file"),
            *("word_shape_file", "word_pronunciation_file"),
        ),
        (_is_no_outside_path, "the tokenizer would be read from there"),
    ),
    "gguf_file": (_is_empty, "the tokenizer would be read from there"),
    "sp_model_kwargs.model_file": (_is_empty, "the tokenizer would be read from there"),
    "font": (_is_plain, "a file would be read from there"),
    "class_info_file": (_is_empty, "a file would be read from there, or from the hub"),
    "model_args.checkpoint_path": (_is_empty, "weights would be read from there"),
    "audio_tokenizer_name_or_path": (_is_empty, "another model would be loaded from there"),
    "use_pretrained_backbone": (_is_empty, "the weights of another model would be fetched"),
    "backbone": (_is_no_url, "another model would be looked up there"),
    "architecture": (_is_no_url, "another model would be looked up there"),
}
_LAST_KEYS = {key.split(".")[-1] for key in _SETTINGS}
# Shell patterns of the settings files that transformers reads. It does not read others, such as training_config.json.
_READ = ("config.json", "*processor_config.json", "*tokenizer_config.json", "special_tokens_map.json")


def names_files(path: Path) -> bool:
    """Return True if transformers reads a settings file and follows the file names in it."""
    return any(fnmatchcase(path.name, pattern) for pattern in _READ)


def refuse_named_files(settings: Mapping[str, Any], path: Path, source: str) -> None:
    """Raise if a setting in the file `path` names a file outside its directory or another model.

    Raises:
        WeightsError: there is such a setting; the message names it.
    """
    for parent, key, value in _items(settings):
        harmless, effect = _SETTINGS.get(key) or _SETTINGS.get(f"{parent}.{key}") or (_is_empty, "")
        if effect and not harmless(value, path.parent):
            raise WeightsError(
                f"the checkpoint {source} has {key} {value!r:.200} in {path.name}, so {effect}: only the safetensors "
                f"and settings in its own directory are read; remove {key} from that file"
            )


def _items(content: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield (parent key, key, value) for each setting that may name files, at any depth."""
    # A loop instead of recursion: tokenizer_config.json may have 10^5 keys.
    remaining = [("", content)]
    while remaining:
        parent, part = remaining.pop()
        if isinstance(part, dict):
            for key, value in part.items():
                if key in _LAST_KEYS:
                    yield parent, key, value
                if isinstance(value, dict | list):
                    remaining.append((key, value))
        else:
            remaining += [(parent, value) for value in part if isinstance(value, dict | list)]
