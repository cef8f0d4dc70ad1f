"""Worker processes of one machine: a fit at a time to each, and one that dies takes nothing with it.

Each worker has a pipe of its own and shares no queue or lock with another. The pools of libraries do, so that
a worker killed at the wrong moment can block the rest. Workers fork from a server process that has imported
torch once: a new one is there in milliseconds.
"""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from omegaconf import OmegaConf

from ad_bench.errors import AdbenchError, UsageError, WorkerError
from ad_bench.runner.packs import UNKNOWN, Kind, kind
from ad_bench.runner.plan import Fit, Sharing
from ad_bench.runner.progress import Watch

PATIENCE = 5.0  # s between two looks for workers that do not answer
SLACK = 60.0  # s that a fit may take longer than its limit before its worker is killed
SHOWN = 0.2  # s between two messages of a stage's progress
FAILED_STARTS = 3  # workers that die one after the other before they are ready: something is wrong with all


@dataclass
class Task:
    """A fit that waits, and how often a worker has died under it."""

    fit: Fit
    seconds: float
    deaths: int = 0
    error: str | None = None  # set when it is given up: a worker then records that, and runs nothing


class Tasks:
    """What waits: long fits first, else those that keep a worker's data and backbone warm."""

    def __init__(self, fits: Sequence[Fit], seconds: Sequence[float | None], workers: int) -> None:
        costs = [UNKNOWN if one is None else one for one in seconds]
        self.long = sum(costs) / max(4 * workers, 1)
        self.kinds: dict[Kind, list[Task]] = defaultdict(list)
        for fit, cost in zip(fits, costs, strict=True):
            self.kinds[kind(fit)].append(Task(fit, cost))
        for waiting in self.kinds.values():  # begun last, a long one would keep all waiting
            waiting.sort(key=lambda task: -task.seconds if task.seconds > self.long else 0.0)
        self.last: list[Task] = []  # under which a worker died: when all else is done

    def __bool__(self) -> bool:
        return bool(self.last) or any(self.kinds.values())

    def take(
        self,
        warm: Kind | None,
        busy: Counter[Kind],
        own: Sharing | None = None,
        others: Container[Sharing | None] = (),
    ) -> Task | None:
        """The next for a worker that is warm for a kind; else of the kind that has most left for a worker.

        own: what it shares the features of, if any; others: what its neighbours do.
        """
        if warm is not None and self.kinds.get(warm):
            return self._of(self.kinds[warm], own, others)
        open_ = {one: sum(t.seconds for t in waiting) for one, waiting in self.kinds.items() if waiting}
        if open_:
            most = max(open_, key=lambda one: open_[one] / (busy[one] + 1))
            return self._of(self.kinds[most], own, others)
        return self.last.pop(0) if self.last else None

    def _of(self, waiting: list[Task], own: Sharing | None, others: Container[Sharing | None]) -> Task:
        """A long one; else one whose features the worker has; else one whose features no other one has."""
        if waiting[0].seconds > self.long:
            return waiting.pop(0)
        found = None
        if own is not None:
            found = next((i for i, task in enumerate(waiting) if task.fit.sharing is own), None)
        if found is None:
            found = next((i for i, task in enumerate(waiting) if task.fit.sharing not in others), 0)
        return waiting.pop(found)


@dataclass
class Worker:
    """One process, seen from the supervisor."""

    process: Any
    pipe: Connection
    slot: int
    task: Task | None = None
    ready: bool = False
    stage: str = ""
    ends: float = math.inf  # time.monotonic() after which it does not answer any more
    kind: Kind | None = None
    sharing: Sharing | None = None
    configs: set[int] = field(default_factory=set)  # that it has been sent: many fits share one


@dataclass(frozen=True)
class Slot:
    """Where a worker runs: a CUDA device by the name that CUDA_VISIBLE_DEVICES takes, or the CPU."""

    device: str | None
    threads: int
    sharing: int  # workers on the device


def slots(launch: Any, on_cpu: bool, fits: int) -> list[Slot]:
    """A slot for each worker that conf/launch/local.yaml asks for, and that so many fits keep busy.

    A device gets its second worker when each has one. Raises UsageError.
    """
    devices = [] if on_cpu else visible_devices()
    if launch.devices is not None:
        unknown = [d for d in launch.devices if not (isinstance(d, int) and 0 <= d < len(devices))]
        if unknown:
            there = f"0 to {len(devices) - 1}" if devices else "none"
            raise UsageError(
                f"launch.devices={list(launch.devices)}: there are {len(devices)} CUDA devices here, {there}"
            )
        devices = [devices[d] for d in launch.devices]
    each, attempts = launch.workers_per_device, launch.attempts
    for key, value in (("workers_per_device", each), ("attempts", attempts)):
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"launch.{key}={value}: expected a whole number, at least 1")
    among: list[str | None] = [*devices] or [None]
    threads = int(launch.threads or max(1, cores() // (each * len(among))))  # the same for a resumed sweep
    used = [device for _ in range(each) for device in among][:fits]
    sharing = Counter(used)
    return [Slot(device, threads, sharing[device]) for device in used]


def cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def visible_devices() -> list[str]:
    """Names of the CUDA devices that this process may use, without importing torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() and name.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
        return found.stdout.split()
    return []


@dataclass
class Supervisor:
    """Runs fits in workers until all are done; an exception or a signal stops the workers."""

    fits: Sequence[Fit]
    seconds: Sequence[float | None]
    places: Sequence[Slot]
    watch: Watch
    attempts: int
    grace: float  # s that a training has to save itself after SIGTERM
    statuses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.tasks = Tasks(self.fits, self.seconds, len(self.places))
        self.workers: dict[int, Worker] = {}
        self.failed_starts = 0
        self.kept: list[str] = []  # of trainings, after a signal
        self.context = _context(any(fit.weights for fit in self.fits))
        self.left = {id(cell) for fit in self.fits for cell in fit.waiting}

    def run(self) -> Counter[str]:
        """How many cells ended in which status. Raises what a worker could not go on after."""
        try:
            with _environment(self.places[0].threads):
                _start_server()
                # A worker that has told its last record still puts things away: it is dismissed when idle.
                while self.left or any(worker.task for worker in self.workers.values()):
                    self._employ()
                    self._listen()
            self._dismiss()
        except KeyboardInterrupt as stop:
            from ad_bench.runner.stopping import Terminated

            asked = isinstance(stop, Terminated)
            self._stop(signal.SIGTERM if asked else signal.SIGINT, self.grace if asked else 10.0)
            raise type(stop)(", ".join(self.kept)) from None
        except BaseException:
            self._stop(signal.SIGINT, 10.0)
            raise
        return self.statuses

    def _employ(self) -> None:
        """Give every idle worker a task, and start those that are missing while there are tasks for them."""
        for slot in range(len(self.places)):
            worker = self.workers.get(slot)
            if worker is None:
                if not self.tasks:
                    continue
                worker = self.workers[slot] = self._start(slot)
            if worker.task is None and worker.ready:
                busy = Counter(w.kind for w in self.workers.values() if w.task and w.kind)
                others = {w.sharing for w in self.workers.values() if w is not worker} - {None}
                task = self.tasks.take(worker.kind, busy, worker.sharing, others)
                if task is None:
                    continue
                worker.task, worker.kind, worker.sharing = task, kind(task.fit), task.fit.sharing
                worker.ends = time.monotonic() + _longest(task.fit)
                config = task.fit.config
                known = id(config) in worker.configs
                worker.configs.add(id(config))
                bare = dataclasses.replace(task.fit, config=OmegaConf.create())
                with suppress(OSError):  # it died this moment: _listen sees that
                    worker.pipe.send((id(config), None if known else config, bare, task.error))

    def _start(self, slot: int) -> Worker:
        ours, theirs = self.context.Pipe()
        place = self.places[slot]
        process = self.context.Process(target=serve, args=(theirs, place), name=f"adbench worker {slot}")
        process.start()
        theirs.close()  # with the worker's end alone open, its death is the pipe's end
        return Worker(process, ours, slot)

    def _listen(self) -> None:
        late = [worker for worker in self.workers.values() if time.monotonic() > worker.ends]
        for worker in late:  # its end is seen below, as any other
            worker.process.kill()
        for pipe in wait([worker.pipe for worker in self.workers.values()], timeout=PATIENCE):
            worker = next(w for w in self.workers.values() if w.pipe is pipe)
            try:
                self._take(worker, *worker.pipe.recv())
            except (EOFError, OSError):
                self._bury(worker)

    def _take(self, worker: Worker, what: str, *said: Any) -> None:
        if what == "ready":
            worker.ready, self.failed_starts = True, 0
        elif what == "begin":
            worker.stage, total = said
            self.watch.begin(worker.stage, total, worker.slot)
        elif what == "advance":
            done, speed = said
            self.watch.advance(done, speed, worker.slot)
        elif what == "line":
            self.watch.line(*said)
        elif what == "cell":
            text, status, number = said
            assert worker.task is not None
            cell = worker.task.fit.cells[number]
            cell.done = {"status": status}
            self.left.discard(id(cell))
            self.statuses[status] += 1
            self.watch.cell_done(text, lane=worker.slot)
        elif what == "idle":
            if worker.task is not None and worker.task.fit.waiting:
                raise WorkerError(
                    f"{worker.task.fit.waiting[0].id} was run and has no record: a bug of adbench"
                )
            worker.task, worker.ends = None, math.inf
        else:  # "error": no more can be written, or the device is not there
            raise said[0]

    def _bury(self, worker: Worker) -> None:
        """A worker is gone: its task is tried once more at the end, or given up."""
        worker.process.join()
        worker.pipe.close()
        del self.workers[worker.slot]
        how = _ending(worker.process.exitcode)
        if not worker.ready:
            self.failed_starts += 1
            if self.failed_starts == FAILED_STARTS:
                raise WorkerError(f"{FAILED_STARTS} worker processes {how} as they started; nothing can run")
        task = worker.task
        if task is None or not task.fit.waiting:
            return
        task.deaths += 1
        if task.deaths > self.attempts + FAILED_STARTS:
            raise WorkerError(f"no worker lives long enough to record that {task.fit.waiting[0].id} failed")
        if time.monotonic() > worker.ends:
            how = f"did not end within runtime.max_minutes={task.fit.config.runtime.max_minutes:g} and {how}"
            task.deaths = self.attempts
        where = f" in the stage '{worker.stage}'" if worker.stage else ""
        name = task.fit.waiting[0].id
        if task.deaths < self.attempts:
            self.watch.line(f"the worker of {name} {how}{where}; it is tried once more when the rest is done")
        else:
            times = f", {task.deaths} times now" if task.deaths > 1 else ""
            task.error = f"the process that ran it {how}{where}{times}.{_advice(worker.process.exitcode)}"
        self.tasks.last.append(task)

    def _dismiss(self) -> None:
        for worker in self.workers.values():
            worker.pipe.close()
        self._join(10.0)

    def _stop(self, how: signal.Signals, seconds: float) -> None:
        """Ask the workers to end, and after so many seconds end them."""
        for worker in self.workers.values():
            with suppress(OSError):
                if worker.process.is_alive():
                    os.kill(worker.process.pid, how)
        self._join(seconds)

    def _join(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        for worker in self.workers.values():
            while worker.process.is_alive() and time.monotonic() < end:
                self._overhear(worker)  # one that waits for its pipe to be read cannot end
                worker.process.join(0.05)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            self._overhear(worker)

    def _overhear(self, worker: Worker) -> None:
        """What a worker says while it ends."""
        with suppress(Exception):  # what a stop tore is no message
            while not worker.pipe.closed and worker.pipe.poll():
                what, *said = worker.pipe.recv()
                if what == "line":
                    self.watch.line(*said)
                elif what == "cell":
                    self.watch.cell_done(said[0])
                elif what == "kept" and worker.task:
                    self.kept.append(f"{said[0]} ({worker.task.fit.cells[0].id})")


def _context(with_backbones: bool) -> Any:
    """Processes that fork from a server which has imported what every fit needs; no threads run in it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    needed = ["ad_bench.runner.cell"]
    context.set_forkserver_preload([*needed, "ad_bench.parts.backbone"] if with_backbones else needed)
    return context


def _start_server() -> None:
    """The server of the workers, deaf to SIGTERM: a cluster sends that to every process of a job.

    Without its server a worker counts as dead, and nobody waits for what it saves.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver

        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """The threads of libraries that read their number once, when the server of the workers starts."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)


def _longest(fit: Fit) -> float:
    """Seconds after which a fit has ended by its limit, unless one long call into a library holds it."""
    minutes = fit.config.runtime.max_minutes
    return math.inf if minutes is None else 60.0 * minutes + fit.config.runtime.grace_seconds + SLACK


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"
    return f"ended with exit code {code}"


def _advice(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return (
            " The kernel does that when memory runs out (its log says so): fewer launch.workers_per_device, a"
            " smaller runtime.batch_size or method.loader.batch_size need less"
        )
    if code in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGILL):
        return " A library crashed: adbench doctor prints their versions; launch=inline shows more"
    return ""


class PipedWatch(Watch):
    """Says through a worker's pipe what a Watch would show."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.said = pipe, 0.0
        self.bars = None
        self.fit: Fit | None = None
        self.told: set[int] = set()

    def take(self, fit: Fit) -> None:
        """The fit that is talked about from now on."""
        self.fit = fit
        self.told = {number for number, cell in enumerate(fit.cells) if cell.done is not None}

    def tell(self, *said: object) -> None:
        """One whole message; none where the supervisor is gone: what it leads to must still be saved."""
        from ad_bench.runner import stopping

        with stopping.whole(), suppress(OSError):
            self.pipe.send(said)

    def line(self, text: str) -> None:
        """See Watch."""
        self.tell("line", text)

    def cell_done(self, text: str, lane: int = 0) -> None:
        """See Watch."""
        assert self.fit is not None
        for number, cell in enumerate(self.fit.cells):
            if cell.done is not None and number not in self.told:
                self.told.add(number)
                self.tell("cell", text, str(cell.done["status"]), number)

    def begin(self, text: str, total: int | None = None, lane: int = 0) -> None:
        """See Watch."""
        super().begin(text, total)
        self.said = time.monotonic()
        self.tell("begin", text, total)

    def advance(self, done: int, speed: str = "", lane: int = 0) -> None:
        """See Watch."""
        super().advance(done, speed)
        if time.monotonic() - self.said > SHOWN:
            self.said = time.monotonic()
            self.tell("advance", done, speed)


def serve(pipe: Connection, place: Slot) -> None:
    """What a worker does until its pipe ends or a signal stops it."""
    from ad_bench.runner import stopping

    if place.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.device
    stopping.install()
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_receive, args=(pipe, tasks, busy), daemon=True).start()
    watch = PipedWatch(pipe)
    try:
        import torch

        from ad_bench.runner import describe

        torch.set_num_threads(place.threads)
        describe.workers_on_device = place.sharing
        watch.tell("ready")
        configs: dict[int, Any] = {}
        while (task := tasks.get()) is not None:
            busy.set()
            number, config, fit, error = task
            fit.config = configs.setdefault(number, config)
            _work(fit, error, watch)
            busy.clear()
            watch.tell("idle")
    except KeyboardInterrupt as stop:
        if str(stop):  # what was kept
            watch.tell("kept", str(stop))
    finally:
        if watch.presence:
            watch.presence.close()


def _receive(pipe: Connection, tasks: queue.SimpleQueue[Any], busy: threading.Event) -> None:
    """Tasks as they come; where the supervisor is gone a training saves itself and ends."""
    try:
        while True:
            tasks.put(pipe.recv())
    except (EOFError, OSError):
        if busy.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
        tasks.put(None)


def _work(fit: Fit, error: str | None, watch: PipedWatch) -> None:
    from ad_bench.runner.cell import give_up, run_fit

    watch.take(fit)
    try:
        if error is None:
            run_fit(fit, watch)
        else:
            give_up(fit, WorkerError(error), watch)
    except Exception as problem:  # the results cannot be written, or the device is not there: for no cell
        known = isinstance(problem, AdbenchError)
        watch.tell("error", problem if known else WorkerError("".join(traceback.format_exception(problem))))
