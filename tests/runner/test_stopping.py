"""Signals and limits, in processes of their own: what waits, what does not, what is raised where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import os, signal, sys, time
from ad_bench.errors import UsageError
from ad_bench.runner import stopping
from ad_bench.runner.stopping import Terminated, TimeUp, limited, saving, whole

def send(signum):
    os.kill(os.getpid(), signum)
    for _ in range(10):  # handlers run between two steps
        pass

stopping.install()
"""


def run(code: str) -> list[str]:
    """The lines that a script prints."""
    found = subprocess.run(
        [sys.executable, "-c", BEGIN + code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


def test_a_stop_waits_for_what_must_be_whole() -> None:
    lines = run("""
for signum in (signal.SIGINT, signal.SIGTERM):
    try:
        with whole():
            with whole():
                send(signum)
            print("written")
        print("no stop")
    except KeyboardInterrupt as stop:
        print(type(stop).__name__)
""")
    assert lines == ["written", "KeyboardInterrupt", "written", "Terminated"]


def test_a_failure_inside_does_not_swallow_the_stop() -> None:
    lines = run("""
try:
    with whole():
        send(signal.SIGTERM)
        raise OSError("disk full")
except Terminated as stop:
    print(type(stop.__context__).__name__)
""")
    assert lines == ["OSError"]


@pytest.mark.parametrize("signum", ["SIGINT", "SIGTERM"])
def test_two_at_once_are_one_and_a_later_one_does_not_wait(signum: str) -> None:
    lines = run(f"""
stopping.ONE_SIGNAL = 0.2
try:
    with whole():
        send(signal.{signum})
        send(signal.{signum})
        print("one")
        time.sleep(0.3)
        send(signal.{signum})
        print("not cut short")
except KeyboardInterrupt:
    print("stopped")
""")
    assert lines == ["one", "stopped"]


def test_a_training_may_save_itself_until_the_grace_ends() -> None:
    lines = run("""
start = time.monotonic()
try:
    with limited(None, 0.5), saving():
        send(signal.SIGTERM)
        print(stopping.asked())
        time.sleep(30)
except Terminated:
    print(0.4 < time.monotonic() - start < 10)
try:
    with limited(None, 0.5):
        print("begun")
except Terminated:
    print("nothing new begins")
""")
    assert lines == ["True", "True", "nothing", "new", "begins"]


def test_outside_of_a_training_nothing_waits() -> None:
    lines = run("""
with limited(None, 30):
    first = saving()
    first.__enter__()
    second = saving()
    second.__enter__()
    first.__exit__(None, None, None)  # garbage of an earlier training
    print(stopping._state.saver is not None)
    second.__exit__(None, None, None)
    try:
        send(signal.SIGTERM)
    except Terminated:
        print("stopped")
""")
    assert lines == ["True", "stopped"]


def test_a_limit_strikes_any_python_waits_for_what_is_whole_and_ends_with_its_fit() -> None:
    lines = run("""
try:
    with limited(0.2 / 60, 1):
        while True:
            try:
                pass
            except Exception:
                pass
except TimeUp:
    print("struck")
try:
    with limited(0.2 / 60, 1):
        with whole():
            time.sleep(0.4)
            print("written", stopping.left() < 10)
except TimeUp:
    print("then struck")
with limited(0.2 / 60, 1):
    pass
time.sleep(0.4)
print("alive", stopping.left())
""")
    assert lines == ["struck", "written", "True", "then", "struck", "alive", "inf"]


def test_a_limit_that_a_destructor_swallowed_strikes_again() -> None:
    lines = run("""
stopping.AGAIN = 0.2
class Held:
    def __del__(self):
        time.sleep(0.6)
try:
    with limited(0.1 / 60, 1):
        one = Held()
        del one
        time.sleep(30)
except TimeUp:
    print("struck")
""")
    assert lines == ["struck"]


def test_who_stops_all_wins_over_a_limit() -> None:
    lines = run("""
try:
    with limited(0.1 / 60, 1), whole():
        send(signal.SIGTERM)
        time.sleep(0.3)
except Terminated:
    print("terminated")
""")
    assert lines == ["terminated"]


def test_an_ignored_interrupt_stays_ignored_and_a_foreign_timer_stays() -> None:
    lines = run("""
signal.signal(signal.SIGINT, signal.SIG_IGN)
stopping.install()
send(signal.SIGINT)
signal.setitimer(signal.ITIMER_REAL, 50)
with limited(None, 1):
    pass
print(signal.getitimer(signal.ITIMER_REAL)[0] > 40)
""")
    assert lines == ["True"]


@pytest.mark.parametrize(
    ("minutes", "grace", "said"),
    [("0", "1", "runtime.max_minutes=0:"), ("None", "-1", "runtime.grace_seconds=-1:")],
)
def test_values_that_mean_nothing_are_refused(minutes: str, grace: str, said: str) -> None:
    lines = run(f"""
try:
    stopping.check({minutes}, {grace})
except UsageError as error:
    print(error)
""")
    assert lines[0] == said
