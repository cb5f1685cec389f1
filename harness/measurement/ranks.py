"""Data-parallel measurement: processes of accelerate launch or torchrun share the batches."""

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
from harness.measurement.rank_errors import from_portable, to_portable
from harness.measurement.rank_settings import Setting, difference

T = TypeVar("T")

# Longest wait for another process. Processes meet after their shares are done. With readings cached for one process
# only, the wait lasts as long as the other's entire measurement.
PATIENCE = timedelta(hours=6)
# Attribute of an error that all processes have received.
_SHARED = "phase_shared_with_all"


@dataclass(frozen=True, slots=True)
class _Message:
    """The message of one process at a meeting: its work, its error as class and text, its value and stop reason."""

    work: str
    problem: tuple[type[PhaseError], str] | None
    value: Any
    stop_reason: str = ""


@dataclass
class Processes:
    """This process in its group: `rank` of `count`, and `local_rank` on its machine.

    All processes run the same code and meet in `gather`, `agree_on_first`, `run_on_first` and `wait`, in the same
    order. A single process never waits and does not import torch.distributed. An xdist worker is single too, with
    `shares_machine` True. A `stop_reason` stops the measurement before the next batch, in all processes. A process
    waits at most `patience` for the others, and reports stalled ones with `say`.
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
        """True if this process prints and writes for all."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """True if there are other processes."""
        return self.count > 1

    @property
    def connected(self) -> bool:
        """True if this process has met the others and has not lost them."""
        return self._met and not self._lost

    def begin_batch(self, work: str) -> None:
        """Signal to the others that this process begins a batch, or raise if it must stop.

        Args:
            work: the name of the batch, for messages of waiting processes.

        Raises:
            ProcessError: `stop_reason` is set.
        """
        self._stop()
        self._heartbeats.beat(work)

    def _stop(self) -> None:
        if self.stop_reason:
            raise ProcessError(self.stop_reason)

    def share(self, n: int) -> range:
        """Return the numbers of this process's batches among `n`, dealt in turn.

        Batches are not split, so that each is composed as in a single process.
        """
        return range(self.rank, n, self.count)

    def gather(self, title: str, work: Callable[[], Sequence[T]]) -> list[T]:
        """Return the results of all processes, in the order of the batches.

        Args:
            title: the name of the work in messages; the same in every process.
            work: returns one object for each batch of `share(n)`; pickle must support it.

        Raises:
            PhaseError: the error of any process, raised in all of them. An exception of another class is raised
                unchanged in its own process.
            ProcessError: a process is lost or runs other work.
        """
        shares = [list(part) for part in self._meet(title, work)]
        longest = max(map(len, shares))
        return [part[turn] for turn in range(longest) for part in shares if turn < len(part)]

    def agree_on_first(self, title: str, work: Callable[[], T]) -> T:
        """Run the work in all processes and return the first one's result; raises as `gather`."""
        result: T = self._meet(title, work, sends=self.first)[0]
        return result

    def run_on_first(self, title: str, work: Callable[[], T]) -> T:
        """Run the work in the first process alone and return its result in all; raises as `gather`."""
        result: T = self._meet(title, work if self.first else lambda: None)[0]
        return result

    def wait(self, title: str) -> None:
        """Wait until all processes have arrived; raises as `gather`."""
        self._meet(title, lambda: None)

    def require_same_settings(self, title: str, verb: str, settings: Callable[[], Mapping[str, Setting]]) -> None:
        """Raise ProcessError if the settings differ between processes; raises also as `gather`.

        Args:
            title: the name of the meeting; the same in every process.
            verb: the verb of the message, in the past tense, such as "started".
            settings: returns the settings by their names in the message.

        Raises:
            ProcessError: settings differ; the same message in all processes names them with both values.
        """
        if self.several and (problem := difference(verb, self.gather(title, lambda: [settings()]))):
            raise ProcessError(problem)

    def leave(self) -> None:
        """Wait for all processes and leave the group, at the end of a program."""
        if not self.connected:
            return
        with contextlib.suppress(ProcessError):
            self.wait("the end")
            from accelerate import PartialState

            PartialState().destroy_process_group()
        self._met = False

    def device(self, name: str) -> str:
        """Return the device for this process; "auto" and "cuda" become one GPU per process.

        Raises:
            ProcessError: there are more processes than GPUs; xdist workers share GPUs instead.
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

    def _meet(self, title: str, work: Callable[[], Any], *, sends: bool = True) -> list[Any]:
        """Return the results of all processes by rank; raise an error of one of them in all."""
        if not self.several:
            return [work()]
        outermost, self._meeting = not self._meeting, True
        try:
            return self._exchange_results(title, work, sends)
        except Exception as error:
            # A stored error may be raised again in a later meeting, where it must be sent again.
            if outermost and hasattr(error, _SHARED):
                delattr(error, _SHARED)
            raise
        finally:
            if outermost:
                self._meeting = False

    def _exchange_results(self, title: str, work: Callable[[], Any], sends: bool) -> list[Any]:
        # Writing to a store that was lost with the others may block.
        if self._lost:
            raise _marked(ProcessError(self._lost))
        # Connect before the work starts, so that a process that ends during it is noticed at once.
        self._join(title)
        self._heartbeats.beat(title)
        own_error: Exception | None = None
        value = None
        try:
            value = work()
        except Exception as error:
            # All processes received this error in a meeting within the work.
            if hasattr(error, _SHARED):
                raise
            own_error = error
        problem = to_portable(own_error, self.rank)
        messages = self._exchange(_Message(title, problem, value if sends else None, self.stop_reason))
        self.stop_reason = next(filter(None, [self.stop_reason, *(each.stop_reason for each in messages)]), "")
        for rank, message in enumerate(messages):
            if message.problem is not None:
                local_error = own_error if rank == self.rank else None
                raise _marked(local_error or from_portable(*message.problem))
        if len({message.work for message in messages}) > 1:
            positions = ", ".join(f"process {rank} is at {message.work}" for rank, message in enumerate(messages))
            reason = f"the processes run different work: {positions}; start all with the same options and files"
            raise self._mark_lost(self.stop_reason or reason)
        return [message.value for message in messages]

    def _join(self, title: str) -> None:
        if self._met:
            return
        from accelerate import PartialState

        waiting = self._heartbeats.waiting("the start", self.patience, self.say)
        with self._report_loss(title), waiting, warnings.catch_warnings():
            # torch warns that it chose the number of threads if OMP_NUM_THREADS is unset.
            warnings.simplefilter("ignore")
            # Only pickled objects are sent, so gloo on the CPU suffices for models on any device.
            PartialState(cpu=True, timeout=self.patience, **self._common_store())
        self._met = True

    def _common_store(self) -> dict[str, Any]:
        """Return the store that all processes share, after all have connected; empty if the program did so itself."""
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        if distributed.is_initialized():
            return {}
        store, _, _ = next(rendezvous("env://", self.rank, self.count, timeout=self.patience))
        self._heartbeats.store = store
        self._heartbeats.beat("the start", 0)
        self._heartbeats.await_all(self.patience, self._stop)
        return {"store": store}

    def _exchange(self, message: _Message) -> list[_Message]:
        from accelerate.utils import gather_object

        try:
            content = pickle.dumps(message)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            content = pickle.dumps(_Message(message.work, to_portable(error, self.rank), None))
        with self._report_loss(message.work), self._heartbeats.waiting(message.work, self.patience, self.say):
            contents = gather_object([content])
        # The senders are processes of the same user and code.
        return [pickle.loads(received) for received in contents]  # noqa: S301

    @contextlib.contextmanager
    def _report_loss(self, title: str) -> Iterator[None]:
        """Replace torch's errors about lost processes by one ProcessError, which later meetings raise again."""
        try:
            yield
        except ProcessError as error:
            raise self._mark_lost(str(error)) from None
        except (RuntimeError, OSError) as error:
            reason, late = "one of them ended", "imed out" in str(error)
            if late:
                silent = self._heartbeats.silent() or "one of them is late"
                reason = f"{silent} and did not arrive within {self.patience.total_seconds():g} seconds"
            message = (
                f"process {self.rank} of {self.count} lost the others at {title}: {reason}; read its output, "
                "and start all processes again"
            )
            if late and not self.first and self._heartbeats.leads:
                # The first process does not report it.
                self.say(message)
            raise self._mark_lost(message) from None

    def _mark_lost(self, message: str) -> Exception:
        self._lost = message
        return _marked(ProcessError(message))


@functools.cache
def processes() -> Processes:
    """Return this process in the group of accelerate launch or torchrun; a single process without them."""
    environment = os.environ
    count = int(environment.get("WORLD_SIZE") or 1)
    if count < 2 or "RANK" not in environment:
        worker = environment.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
        return Processes(local_rank=int(worker), shares_machine=True) if worker.isdigit() else Processes()
    return Processes(int(environment["RANK"]), count, int(environment.get("LOCAL_RANK") or 0))


def _marked(error: Exception) -> Exception:
    setattr(error, _SHARED, True)
    return error
