"""How a process is stopped: Ctrl-C, SIGTERM, a time limit. The one place of their handlers; imports no torch.

Python runs handlers in the main thread, between two steps of its own code. So a stop reaches any Python, and
one long call into a library ends first. Limits and the grace after SIGTERM need Linux or macOS.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ad_bench.errors import UsageError

# s. Slurm signals every process of a job, and a supervisor hands the signal on: together they are one.
ONE_SIGNAL = 2.0
AGAIN = 10.0  # s until the limit strikes once more: raised inside a destructor, Python drops an exception


class Terminated(KeyboardInterrupt):
    """SIGTERM."""


class TimeUp(BaseException):
    """The time limit. No Exception: a method that catches its own must not catch it."""


@dataclass
class _State:
    grace: float = 25.0  # s
    asked: float | None = None  # when SIGTERM came, time.monotonic()
    interrupted: float | None = None  # when SIGINT came
    saver: object | None = None  # set while a training runs that saves itself when asked
    grace_ends: float | None = None
    limit: float | None = None
    armed: bool = False
    whole: int = 0  # depth of what must not be cut short
    pending: BaseException | None = None  # what waits for its end


_state = _State()


def install() -> None:
    """From now on SIGINT and SIGTERM stop this process as this module says. For main threads.

    SIGINT raises KeyboardInterrupt at once. SIGTERM raises Terminated: in a training that saves itself when
    it has done so, at the latest after the grace; elsewhere at once. Neither cuts short what is `whole`,
    unless it comes a second time.
    """
    global _state
    _state = _State()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a shell's background jobs
        signal.signal(signal.SIGINT, _on_interrupt)
    signal.signal(signal.SIGTERM, _on_terminate)


def asked() -> bool:
    """Whether SIGTERM has come: what can be saved is to be saved now."""
    return _state.asked is not None


def left() -> float:
    """Seconds until the time limit; infinity where there is none."""
    return float("inf") if _state.limit is None else _state.limit - time.monotonic()


def check(minutes: float | None, grace: float) -> None:
    """Raise UsageError for values of `limited` that mean nothing."""
    if minutes is not None and not minutes > 0:
        raise UsageError(f"runtime.max_minutes={minutes}: expected minutes above 0, or null for no limit")
    if not grace >= 0:
        raise UsageError(f"runtime.grace_seconds={grace}: expected seconds, 0 or more")
    if minutes is not None and not hasattr(signal, "setitimer"):
        raise UsageError(f"runtime.max_minutes={minutes} needs Linux or macOS; set it to null here")


@contextmanager
def limited(minutes: float | None, grace: float) -> Iterator[None]:
    """TimeUp is raised inside after so many minutes; a training inside has `grace` seconds to save itself.

    Raises Terminated where SIGTERM came before.
    """
    if asked():  # an earlier fit ended just then
        raise Terminated
    _state.grace, _state.saver = grace, None
    _state.limit = None if minutes is None else time.monotonic() + 60.0 * minutes
    _arm()
    try:
        yield
    finally:
        _state.limit, _state.saver = None, None
        if isinstance(_state.pending, TimeUp):
            _state.pending = None
        _arm()


@contextmanager
def saving() -> Iterator[None]:
    """A training that looks at `asked` after every epoch, saves itself then and raises Terminated."""
    mine = _state.saver = object()
    try:
        yield
    finally:
        if _state.saver is mine:  # not where garbage of an earlier training is collected late
            _state.saver = None


@contextmanager
def whole() -> Iterator[None]:
    """What is written inside is not cut short: a stop is raised at its end."""
    _state.whole += 1
    try:
        yield
    finally:
        _state.whole -= 1
        if not _state.whole and _state.pending is not None:
            error, _state.pending = _state.pending, None
            raise error


def _on_interrupt(*_: object) -> None:
    before, now = _state.interrupted, time.monotonic()
    if before is None or now - before > ONE_SIGNAL:
        _state.interrupted = now
        _stop(KeyboardInterrupt(), at_once=before is not None)


def _on_terminate(*_: object) -> None:
    first, now = _state.asked, time.monotonic()
    if first is None:
        _state.asked = now
        if _state.saver is None:
            _stop(Terminated())
        else:
            _state.grace_ends = now + _state.grace
            _arm()
    elif now - first > ONE_SIGNAL:
        _stop(Terminated(), at_once=True)


def _on_alarm(*_: object) -> None:
    now = time.monotonic()
    try:
        if _state.grace_ends is not None and now >= _state.grace_ends:
            _state.grace_ends = None
            _stop(Terminated())
        if _state.limit is not None and now >= _state.limit:
            _state.limit = now + AGAIN
            _stop(TimeUp())
    finally:
        _arm()


def _stop(error: BaseException, at_once: bool = False) -> None:
    if at_once or not _state.whole:
        raise error
    if not isinstance(_state.pending, KeyboardInterrupt):  # who wants to stop all wants more than a limit
        _state.pending = error


def _arm() -> None:
    """Set the one timer to whatever ends first."""
    if not hasattr(signal, "setitimer"):
        return
    ends = [end for end in (_state.grace_ends, _state.limit) if end is not None]
    if ends:
        signal.signal(signal.SIGALRM, _on_alarm)
        signal.setitimer(signal.ITIMER_REAL, max(min(ends) - time.monotonic(), 1e-3))
    elif _state.armed:  # else the timer is not ours
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    _state.armed = bool(ends)
