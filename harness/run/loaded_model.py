"""The model that a session holds: loaded when it is first asked for, one at a time, or given by a fixture."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import PhaseError, copy_without_traceback, first_line
from harness.measurement.ranks import Processes, processes
from harness.run.option_row import is_from_fixture
from harness.run.options import Options

if TYPE_CHECKING:
    from harness.judgement.weights import WeightParts
    from harness.models.vlm import Vlm


@dataclass
class LoadedModel:
    """Keeps one model loaded; the one before is let go. Models of fixtures stay as long as their fixtures do.

    `on_load` is told of every model before it is measured, `fixture_value` gives what a fixture returns. `parts` holds
    the hashes of the weights of every model that was loaded, where models are held against each other.
    """

    options: Options
    say: Callable[[str], None]
    processes: Processes = field(default_factory=processes)
    on_load: Callable[[Vlm], None] = lambda _: None
    fixture_value: Callable[[str], Any] | None = None
    parts: dict[str, WeightParts] = field(default_factory=dict)
    _vlm: Vlm | None = None
    _given: dict[str, Vlm] = field(default_factory=dict)
    _failed: dict[str, BaseException] = field(default_factory=dict)

    def vlm(self, model: str) -> Vlm:
        """Return the model of that name.

        Raises:
            PhaseError: it cannot be loaded, or its fixture gives no `Vlm`, or not on the device or in the data type
                that was asked for. It is raised again at every call, without another try.
        """
        if model in self._failed:
            raise self._failed[model]
        if self._vlm is None or self._vlm.name != model:
            self.release()
            try:
                own = is_from_fixture(self.options.model(model))
                vlm = self._of_fixture(model) if own else self.load(model)
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
        """Return a model from its weights, on another device or in another data type than asked for if so said."""
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
            PhaseError: one of them cannot be loaded. An unforeseen error is left to `vlm`.
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
        """Let go of the loaded model and its memory.

        A test that failed with it lives on as Python's last exception, and would keep it alive beside the next.
        """
        self._vlm = None
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            vars(sys).pop(name, None)
        gc.collect()

    def _of_fixture(self, name: str) -> Vlm:
        if name not in self._given:
            from harness.models.vlm import Vlm

            assert self.fixture_value is not None
            try:
                given = self.fixture_value(name)
            except PhaseError:
                raise
            except Exception as error:  # A user's own code; the frames of libraries behind it fill many screens.
                raise PhaseError(
                    f"the fixture {name} raised {type(error).__name__}: {first_line(error)} ({_own_line(error)})"
                ) from error
            if not isinstance(given, Vlm):
                raise PhaseError(
                    f"the fixture {name} returns {type(given).__name__!r}, and --phase-model fixture:{name} needs a "
                    "harness.Vlm: return harness.Vlm(name, model, processor, harness.find_anatomy(model))"
                )
            self._refuse_elsewhere(name, given)
            vlm = replace(given, name=name)
            vlm.model.eval()
            self.on_load(vlm)
            self._given[name] = vlm
        return self._given[name]

    def _refuse_elsewhere(self, name: str, vlm: Vlm) -> None:
        """A fixture decides where its model lies and in what type; what the options say must not be another."""
        from harness.models.vlm import choose_device, choose_dtype

        device, dtype = self.options.device, self.options.dtype
        if device != "auto" and choose_device(device).type != vlm.device.type:
            raise PhaseError(f"--phase-device {device}: the fixture {name} gives its model on {vlm.device}; move it")
        if dtype != "auto" and choose_dtype(dtype, vlm.device, bundled=False) != vlm.dtype:
            said = str(vlm.dtype).removeprefix("torch.")
            raise PhaseError(f"--phase-dtype {dtype}: the fixture {name} gives its model in {said}; convert it there")


def _own_line(error: Exception) -> str:
    """Return the innermost line of an error outside of installed packages."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
