"""The loaded model of a session: one at a time, loaded at first use or returned by a fixture."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import PhaseError, copy_without_traceback, first_line
from harness.interface import option_text
from harness.measurement.ranks import Processes, processes
from harness.run.option_row import is_from_fixture
from harness.run.options import Options

if TYPE_CHECKING:
    from harness.judgement.weights import WeightParts
    from harness.models.vlm import Vlm


@dataclass
class LoadedModel:
    """Keeps one model loaded and releases the previous one; models of fixtures stay loaded.

    `on_load` is called with every model before it is measured, `fixture_value` returns the value of a fixture. With
    --phase-against, `parts` holds the weight hashes of every loaded model.
    """

    options: Options
    say: Callable[[str], None]
    processes: Processes = field(default_factory=processes)
    on_load: Callable[[Vlm], None] = lambda _: None
    fixture_value: Callable[[str], Any] | None = None
    parts: dict[str, WeightParts] = field(default_factory=dict)
    _vlm: Vlm | None = None
    _from_fixtures: dict[str, Vlm] = field(default_factory=dict)
    _failed: dict[str, BaseException] = field(default_factory=dict)

    def vlm(self, model: str) -> Vlm:
        """Return the model of that name.

        Raises:
            PhaseError: the model cannot be loaded, or its fixture returns no `Vlm` or one of another device or data
                type than requested. Later calls raise the same error again.
        """
        if model in self._failed:
            raise self._failed[model]
        if self._vlm is None or self._vlm.name != model:
            self.release()
            try:
                in_memory = is_from_fixture(self.options.model(model))
                vlm = self._from_fixture(model) if in_memory else self.load(model)
                if self.options.against is not None and model not in self.parts:
                    from harness.judgement.weights import weight_parts

                    self.parts[model] = weight_parts(vlm)
                self._vlm = vlm
            except Exception as error:
                self._failed[model] = copy_without_traceback(error)
                raise
        return self._vlm

    def failed(self, model: str) -> bool:
        """Return True if the model could not be loaded."""
        return model in self._failed

    def load(self, model: str, device: str | None = None, dtype: str | None = None) -> Vlm:
        """Load a model from its weights; `device` and `dtype` override the options."""
        from harness.models.vlm import load_vlm

        options = self.options
        vlm = load_vlm(
            options.model(model),
            cache=options.cache,
            device=self.processes.device(device or options.device),
            dtype=dtype or options.dtype,
            download=options.download,
            say=self.say,
        )
        self.on_load(vlm)
        return vlm

    def refuse_unloadable(self, model: str) -> None:
        """Raise the error of a checkpoint's configuration or processor before any weight is loaded.

        Raises:
            PhaseError: one of them cannot be loaded. An unexpected error is left to `vlm`.
        """
        from harness.models.registry import FROM_HUB, LoadRequest

        options, entry = self.options, self.options.model(model)
        if entry.loader != FROM_HUB:
            return
        import torch

        from harness.models.pretrained import refuse_unloadable

        request = LoadRequest(options.cache, torch.float32, torch.device("cpu"), options.download, self.say)
        try:
            refuse_unloadable(entry, request)
        except PhaseError:
            raise
        except Exception:  # Shown with its frames by the test that needs the model.
            return

    def release(self) -> None:
        """Release the loaded model and its memory.

        Python's last exception would otherwise keep the model of a failed test in memory.
        """
        if self._vlm is None and not self._failed:
            return
        self._vlm = None
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            vars(sys).pop(name, None)
        gc.collect()

    def _from_fixture(self, name: str) -> Vlm:
        if name not in self._from_fixtures:
            from harness.models.vlm import Vlm

            assert self.fixture_value is not None
            try:
                value = self.fixture_value(name)
            except PhaseError:
                raise
            except Exception as error:  # The fixture is user code; its line is more useful than library frames.
                raise PhaseError(
                    f"the fixture {name} raised {type(error).__name__}: {first_line(error)} ({_user_line(error)})"
                ) from error
            if not isinstance(value, Vlm):
                raise PhaseError(
                    f"the fixture {name} returns {type(value).__name__!r}, and "
                    f"{option_text('model', f'fixture:{name}')} needs a harness.Vlm: return harness.Vlm(name, model, "
                    "processor)"
                )
            self._refuse_mismatch(name, value)
            vlm = replace(value, name=name)
            vlm.model.eval()
            self.on_load(vlm)
            self._from_fixtures[name] = vlm
        return self._from_fixtures[name]

    def _refuse_mismatch(self, name: str, vlm: Vlm) -> None:
        """Raise PhaseError if the options request another device or data type than the fixture's model has."""
        from harness.models.vlm import choose_device, choose_dtype

        device, dtype = self.options.device, self.options.dtype
        if device != "auto" and choose_device(device).type != vlm.device.type:
            raise PhaseError(
                f"{option_text('device', device)}: the fixture {name} returns its model on {vlm.device}; "
                "move it in the fixture"
            )
        if dtype != "auto" and choose_dtype(dtype, vlm.device, bundled=False) != vlm.dtype:
            actual = str(vlm.dtype).removeprefix("torch.")
            raise PhaseError(
                f"{option_text('dtype', dtype)}: the fixture {name} returns its model in {actual}; "
                "convert it in the fixture"
            )


def _user_line(error: Exception) -> str:
    """Return the innermost line of an error outside of installed packages."""
    frames = traceback.extract_tb(error.__traceback__)
    user_frames = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{Path(user_frames[-1].filename).name}, line {user_frames[-1].lineno}"
