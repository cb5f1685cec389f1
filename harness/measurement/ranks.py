"""Several processes that measure together, each its share of the batches; started by accelerate launch or torchrun."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from harness.errors import PhaseError, print_to_stderr
from harness.measurement.heartbeats import Heartbeats
from harness.measurement.rank_errors import ProcessError as ProcessError
from harness.measurement.rank_errors import portable, received
from harness.measurement.rank_settings import Setting, difference

T = TypeVar("T")

# How long a process waits for the others, which meet when each has done its whole share: where everything is kept for
# one and nothing for another, or memory is short for one alone, all that is measured must fit in.
PATIENCE = timedelta(hours=6)
# Marks an error that all processes have heard of.
_TOLD = "phase_told_to_all"


@dataclass(frozen=True, slots=True)
class _Told:
    """What one process says at a meeting: where it is, what went wrong (class and sentence), and what it has."""

    what: str
    problem: tuple[type[PhaseError], str] | None
    value: Any
    ending: str = ""


@dataclass
class Processes:
    """This process among all: number `rank` of `count`, and number `local_rank` on its machine.

    All of them run the same code and meet in `gathered`, `agreed`, `of_first` and `wait`, in the same order. One
    process alone meets nobody, and torch.distributed is not even imported for it. Of xdist's workers each is alone, but
    `shares_machine` others on the machine. Where `stop_reason` is given, it is the reason to stop before the next
    batch, and all take it over where they meet. A process waits for `patience`, and reports with `say` one that stands
    still.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    shares_machine: bool = False
    stop_reason: str = ""
    patience: timedelta = PATIENCE
    say: Callable[[str], None] = field(default=print_to_stderr, repr=False, compare=False)
    _heartbeats: Heartbeats = field(init=False, repr=False, compare=False)
    _lost: str = field(default="", repr=False)
    _met: bool = field(default=False, repr=False)
    _meeting: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        self._heartbeats = Heartbeats(self.rank, self.count)

    @property
    def first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    @property
    def connected(self) -> bool:
        """Whether this process has met the others, and has not lost them."""
        return self._met and not self._lost

    def begin_batch(self, work: str) -> None:
        """Show the others that this process comes to another batch, or raise if it is to end.

        Args:
            work: names the batch, for those that wait for this process.

        Raises:
            ProcessError: it is to end.
        """
        self._stop()
        self._heartbeats.beat(work)

    def _stop(self) -> None:
        if self.stop_reason:
            raise ProcessError(self.stop_reason)

    def share(self, n: int) -> range:
        """Which of `n` batches are this process's: whole ones in turn, so that they are composed as by one process."""
        return range(self.rank, n, self.count)

    def gather(self, what: str, work: Callable[[], Sequence[T]]) -> list[T]:
        """What all processes have made of their shares, in the order of the batches.

        Args:
            what: names the work in messages; the same in every process.
            work: gives one object for each batch of `share(n)`, to be sent with pickle.

        Raises:
            PhaseError: what went wrong in any process, the same in all of them; another exception stays itself in the
                process that raised it.
            ProcessError: a process is lost, or at another piece of work.
        """
        shares = [list(part) for part in self._meet(what, work)]
        longest = max(map(len, shares))
        return [part[turn] for turn in range(longest) for part in shares if turn < len(part)]

    def agree_on_first(self, what: str, work: Callable[[], T]) -> T:
        """Return the first process's result of work that all do; raises as `gathered`."""
        result: T = self._meet(what, work, sends=self.first)[0]
        return result

    def run_on_first(self, what: str, work: Callable[[], T]) -> T:
        """Return the result of work that the first process alone does; raises as `gathered`."""
        result: T = self._meet(what, work if self.first else lambda: None)[0]
        return result

    def wait(self, what: str) -> None:
        """Goes on when all processes are here; raises as `gathered`."""
        self._meet(what, lambda: None)

    def require_same_settings(self, what: str, verb: str, settings: Callable[[], Mapping[str, Setting]]) -> None:
        """Assert that all processes have the same settings; raises as `gathered`.

        Args:
            what: names the meeting; the same in every process.
            verb: what a process does with its settings, for the sentence.
            settings: gives them by the names that the sentence has for them.

        Raises:
            ProcessError: they differ; the same sentence in all processes names the settings and both values.
        """
        if self.several and (problem := difference(verb, self.gather(what, lambda: [settings()]))):
            raise ProcessError(problem)

    def leave(self) -> None:
        """Wait for all and leaves them; for the end of a program."""
        if not self.connected:
            return
        with contextlib.suppress(ProcessError):
            self.wait("the end")
            from accelerate import PartialState

            PartialState().destroy_process_group()
        self._met = False

    def device(self, name: str) -> str:
        """Return the device of that name for this process: its own GPU where all would take the first.

        Raises:
            ProcessError: more processes than GPUs; workers take turns.
        """
        if name not in ("auto", "cuda") or not (self.several or self.shares_machine):
            return name
        import torch

        if not torch.cuda.is_available():
            return name
        gpus = torch.cuda.device_count()
        if self.several and self.local_rank >= gpus:
            raise ProcessError(
                f"process {self.local_rank + 1} on this machine has no GPU of its own, there are {gpus}: start as many "
                "processes as there are GPUs"
            )
        return f"cuda:{self.local_rank % gpus}"

    def _meet(self, what: str, work: Callable[[], Any], *, sends: bool = True) -> list[Any]:
        """The results of all processes by rank; an error in one of them is raised in all."""
        if not self.several:
            return [work()]
        outermost, self._meeting = not self._meeting, True
        try:
            return self._held(what, work, sends)
        except Exception as error:
            # An error that is kept and raised again in a later meeting is news there.
            if outermost and hasattr(error, _TOLD):
                delattr(error, _TOLD)
            raise
        finally:
            if outermost:
                self._meeting = False

    def _held(self, what: str, work: Callable[[], Any], sends: bool) -> list[Any]:
        # A store that was lost with the others does not take a sign, and may block.
        if self._lost:
            raise _marked(ProcessError(self._lost))
        # Before any work: who ends from now on is missed at once, and not waited for.
        self._join(what)
        self._heartbeats.beat(what)
        own: Exception | None = None
        value = None
        try:
            value = work()
        except Exception as error:
            # All have met over this one already, inside of this work.
            if hasattr(error, _TOLD):
                raise
            own = error
        told = self._exchange(_Told(what, portable(own, self.rank), value if sends else None, self.stop_reason))
        self.stop_reason = self.stop_reason or next((one.ending for one in told if one.ending), "")
        for rank, one in enumerate(told):
            if one.problem is not None:
                raise _marked(own if own is not None and rank == self.rank else received(*one.problem))
        if len({one.what for one in told}) > 1:
            places = ", ".join(f"process {rank} is at {one.what}" for rank, one in enumerate(told))
            differ = f"the processes are not at the same work: {places}; give all the same options and files"
            raise self._parted(self.stop_reason or differ)
        return [one.value for one in told]

    def _join(self, what: str) -> None:
        if self._met:
            return
        from accelerate import PartialState

        waiting = self._heartbeats.waiting("the start", self.patience, self.say)
        with self._losing(what), waiting, warnings.catch_warnings():
            # That the number of threads was chosen where OMP_NUM_THREADS was not set.
            warnings.simplefilter("ignore")
            # Only plain objects travel, so their way is the CPU's, wherever the models are.
            PartialState(cpu=True, timeout=self.patience, **self._common_store())
        self._met = True

    def _common_store(self) -> dict[str, Any]:
        """The store of all processes, when all have come to it; nothing where the caller's program has joined them."""
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        if distributed.is_initialized():
            return {}
        store, _, _ = next(rendezvous("env://", self.rank, self.count, timeout=self.patience))
        self._heartbeats.store = store
        self._heartbeats.beat("the start", 0)
        self._heartbeats.await_all(self.patience, self._stop)
        return {"store": store}

    def _exchange(self, mine: _Told) -> list[_Told]:
        from accelerate.utils import gather_object

        try:
            content = pickle.dumps(mine)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            content = pickle.dumps(_Told(mine.what, portable(error, self.rank), None))
        with self._losing(mine.what), self._heartbeats.waiting(mine.what, self.patience, self.say):
            told = gather_object([content])
        # Sent by processes that the same user started with the same code.
        return [pickle.loads(one) for one in told]  # noqa: S301

    @contextlib.contextmanager
    def _losing(self, what: str) -> Iterator[None]:
        """Turn what torch raises over others that are gone into one sentence, said from now on."""
        try:
            yield
        except ProcessError as error:
            raise self._parted(str(error)) from None
        except (RuntimeError, OSError) as error:
            reason, late = "one of them ended", "imed out" in str(error)
            if late:
                silent = self._heartbeats.silent() or "one of them is late"
                reason = f"{silent} and did not come within {self.patience.total_seconds():g} seconds"
            sentence = (
                f"process {self.rank} of {self.count} lost the others at {what}: {reason}; look at what it printed, "
                "and start all of them again"
            )
            if late and not self.first and self._heartbeats.leads:
                # The first process does not say it.
                self.say(sentence)
            raise self._parted(sentence) from None

    def _parted(self, sentence: str) -> Exception:
        self._lost = sentence
        return _marked(ProcessError(sentence))


@functools.cache
def processes() -> Processes:
    """This process among those that accelerate launch or torchrun started; one alone where neither did."""
    environment = os.environ
    count = int(environment.get("WORLD_SIZE") or 1)
    if count < 2 or "RANK" not in environment:
        worker = environment.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
        return Processes(local_rank=int(worker), shares_machine=True) if worker.isdigit() else Processes()
    return Processes(int(environment["RANK"]), count, int(environment.get("LOCAL_RANK") or 0))


def _marked(error: Exception) -> Exception:
    setattr(error, _TOLD, True)
    return error
