"""Packs of cells as array jobs of Slurm, through submitit, and how those jobs do.

submitit keeps its own pickles and the jobs' logs in the folder of a sweep: written and read by one user, and
never part of a record. All of ours that a pickle holds is the path of a pack.

A job is one Python process that takes the place of its batch script, without srun: since Slurm 22.05 a step
has one CPU unless told again, and a signal to a step reaches the server of the workers too. Slurm tells the
batch process alone, by SIGUSR2, that the time limit is near; SIGTERM (scancel, preemption) it sends to all.
Imports no torch, and submitit only to submit.
"""

from __future__ import annotations

import datetime
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ad_bench.errors import ResultsError, UsageError

INTERRUPTED = 130
ANSWER_SECONDS = 5.0
# Options of sbatch that would undo what a job is made of, and the setting that is meant instead.
OURS = {
    "array": "launch.parallel",
    "chdir": "the folder that adbench is called in",
    "error": "nothing: logs lie with the sweep",
    "nodes": "nothing: a job is one process on one node",
    "ntasks": "nothing: a job is one process on one node",
    "output": "nothing: logs lie with the sweep",
    "signal": "launch.warn_seconds",
    "time": "launch.minutes",
    "wrap": "launch.setup",
}


@dataclass(frozen=True)
class Job:
    """One job of Slurm: `123_4`, or `123` where it is no part of an array."""

    id: str
    pack: Path


class SubmitError(UsageError):
    """Slurm took only some of the jobs: `jobs` are queued, and run."""

    def __init__(self, text: str, jobs: Sequence[Job]) -> None:
        super().__init__(text)
        self.jobs = list(jobs)


@dataclass(frozen=True)
class PackJob:
    """What a job runs: a pack, stopped and queued again where a signal says that time is short."""

    pack: Path
    minutes: int  # its time limit

    def __call__(self) -> int:
        """Run what the pack lacks; returns how many cells failed.

        Slurm queues a preempted job again, and nobody a cancelled one; at the time limit that is up to the
        job, and submitit's handler does it: here when the workers have stopped, not in the middle of a line.
        """
        from ad_bench.runner.stopping import Terminated
        from ad_bench.runner.sweep import run_pack

        queue_again: Any = signal.getsignal(signal.SIGUSR2)
        received: list[int] = []

        def stop(number: int, frame: object) -> None:
            _ignore_signals()  # the next one must not stop the stopping
            received.append(number)
            raise Terminated

        started, begun = time.monotonic(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        failed, kept = None, ""
        try:
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGUSR2, stop)
            failed = run_pack(self.pack)
            _ignore_signals()  # of a finished pack there is nothing to save, and nothing to queue again
        except KeyboardInterrupt as stopped:
            if not received:
                raise
            kept = str(stopped)
        if failed is not None:
            return failed
        said = f"finished cells{f' and {kept}' if kept else ''} are kept"
        if received == [signal.SIGUSR2]:
            print(f"adbench: time is short; {said}", flush=True)
            half = 30.0 * self.minutes  # s; before it, what is short is no limit but a preempted job's grace
            if time.monotonic() - started > half and not kept and not self._finished_since(begun):
                sys.exit(
                    f"adbench: in launch.minutes={self.minutes} no cell was finished and no checkpoint kept: "
                    "the same would happen again. Queue the rest with a larger launch.minutes"
                )
            queue_again(signal.SIGUSR2, None)  # does not return: it exits, or says why it may not
        print(f"adbench: stopped; {said}, the same command goes on", flush=True)
        sys.exit(INTERRUPTED)

    def _finished_since(self, begun: str) -> bool:
        from ad_bench.runner.packs import read_pack

        records = [cell.done for cell in read_pack(self.pack).cells if cell.done]
        return any(str(record.get("date", "")) >= begun for record in records)

    def checkpoint(self) -> Any:
        """What submitit queues again: the same, since records and checkpoints say how far it came."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _ignore_signals() -> None:
    for one in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(one, signal.SIG_IGN)


def submit(packs: Sequence[Path], launch: DictConfig, folder: Path) -> list[Job]:
    """A job for each pack, in arrays as large as the site allows; logs and submitit's files in `folder`.

    Raises UsageError where submitit or Slurm is not there, ResultsError where the folder cannot be written,
    SubmitError where Slurm refuses: what it took before stays queued.
    """
    executor = _executor(launch, folder)
    size, minutes = array_size(), int(launch.minutes)
    jobs: list[Job] = []
    for first in range(0, len(packs), size):
        chunk = packs[first : first + size]
        try:
            with redirect_stderr(StringIO()):  # submitit prints what it raises
                made = executor.submit_array([PackJob(pack.absolute(), minutes) for pack in chunk])
        except Exception as error:  # submitit's errors have no class in common
            text = str(error).strip() or type(error).__name__
            raise SubmitError(f"the jobs could not be queued: {text}{_queued(jobs)}", jobs) from error
        jobs += [Job(str(job.job_id), pack) for job, pack in zip(made, chunk, strict=True)]
    return jobs


def _queued(jobs: Sequence[Job]) -> str:
    arrays = sorted({job.id.partition("_")[0] for job in jobs})
    return f". {len(jobs)} jobs are queued and run: {', '.join(arrays)} (scancel ends them)" if jobs else ""


def _executor(launch: DictConfig, folder: Path) -> Any:
    options = sbatch_options(launch)
    try:
        import submitit
    except ImportError as error:
        raise UsageError("launch=slurm needs submitit: pip install 'adbench[slurm]'") from error
    absent = [name for name in ("sbatch", "srun", "scontrol") if shutil.which(name) is None]
    if absent:
        raise UsageError(
            f"launch=slurm needs Slurm, and there is no {absent[0]} on PATH: call it on a login node of the "
            "cluster, or use launch=local"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"cannot write {folder}: {error.strerror or error}; set paths.results") from error
    # No id in the folder's name: it must be there when Slurm opens a job's log.
    executor = submitit.SlurmExecutor(
        folder=folder,
        max_num_timeout=_whole(launch, "requeues", 0),
        python=f"exec {shlex.quote(sys.executable)}",
    )
    try:
        executor.update_parameters(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"launch: {error}") from error
    return executor


def sbatch_options(launch: DictConfig) -> dict[str, Any]:
    """The settings of conf/launch/slurm.yaml as submitit's; raises UsageError where one makes no sense."""
    minutes, warn = _whole(launch, "minutes", 1), _whole(launch, "warn_seconds", 1)
    if warn >= 60 * minutes:
        raise UsageError(
            f"launch.warn_seconds={warn}: a job of launch.minutes={minutes} would be warned as it starts"
        )
    memory = launch.memory_gb
    if isinstance(memory, bool) or not isinstance(memory, int | float) or not memory >= 0:
        raise UsageError(f"launch.memory_gb={memory}: expected a number, 0 for all that a node has")
    gpus = _whole(launch, "gpus", 0)
    devices = f"gpu:{gpus}" if gpus else None
    if launch.shards is not None:
        devices = f"shard:{_whole(launch, 'shards', 1)}"
    further = {"requeue": True, "signal": f"B:USR2@{warn}", **_further(launch)}
    setup = [str(line) for line in launch.setup or ()]
    if not devices and not any(key.startswith(("gpu", "gres", "tres")) for key in further):
        setup.insert(0, "export CUDA_VISIBLE_DEVICES=")  # those of a node are for jobs that asked
    return {
        "job_name": "adbench",
        "time": minutes,
        "partition": launch.partition,
        "account": launch.account,
        "cpus_per_task": _whole(launch, "cpus", 1),
        "mem": f"{round(1024 * memory)}M",
        "gres": devices,
        "array_parallelism": _whole(launch, "parallel", 1),
        "setup": setup,
        "wckey": None,  # submitit's own would be refused where a site has keys of its own
        "use_srun": False,
        "stderr_to_stdout": True,
        "additional_parameters": {k: v for k, v in further.items() if v is not None and v is not False},
    }


def _whole(launch: DictConfig, key: str, least: int) -> int:
    value = launch[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"launch.{key}={value}: expected a whole number, at least {least}")
    return value


def _further(launch: DictConfig) -> dict[str, Any]:
    """launch.more, its names as submitit spells them."""
    more: Any = OmegaConf.to_container(launch.more) if OmegaConf.is_config(launch.more) else launch.more
    if not isinstance(more, dict | None):
        raise UsageError(f"launch.more={more}: expected options of sbatch, as {{qos: long, hold: true}}")
    named = {str(key).lstrip("-").replace("-", "_"): value for key, value in (more or {}).items()}
    for key in named:
        if key in OURS:
            raise UsageError(f"launch.more.{key}: adbench sets it; use {OURS[key]}")
    return named


def array_size() -> int:
    """The most jobs that an array of this site may have; 1 where it allows no arrays. Raises UsageError."""
    try:
        asked = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip()
        raise UsageError(f"Slurm does not answer: {said}; nothing was submitted") from error
    return most_in_array(asked.stdout)


def most_in_array(config: str) -> int:
    """MaxArraySize, the highest index plus one, from `scontrol show config`; Slurm's default else."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    return max(1, int(found[1])) if found else 1001


def states(ids: Iterable[str]) -> dict[str, str]:
    """PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, ... of the jobs that Slurm still knows.

    squeue tells of those that wait, run or have just ended, sacct of older ones where a site keeps account.
    Empty where Slurm is not there or does not answer within 5 s.
    """
    wanted = set(ids)
    arrays = ",".join(sorted({one.partition("_")[0] for one in wanted}))
    if not wanted:
        return {}
    end = time.monotonic() + ANSWER_SECONDS
    asked = [
        _ask(["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={arrays}"]),
        _ask(
            [
                "sacct",
                "--noheader",
                "--allocations",
                "--parsable2",
                "--format=JobID,State",
                f"--jobs={arrays}",
            ]
        ),
    ]
    known: dict[str, str] = {}
    for process in asked:
        for one, state in _answered(process, end):
            if one in wanted:
                known.setdefault(one, state)
    return known


def _ask(command: list[str]) -> subprocess.Popen[str] | None:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None


def _answered(process: subprocess.Popen[str] | None, end: float) -> Iterable[tuple[str, str]]:
    if process is None:
        return []
    try:
        said, _ = process.communicate(timeout=max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return []
    finally:
        if process.stdout:
            process.stdout.close()
    return list(parse_states(said))


def parse_states(text: str) -> Iterable[tuple[str, str]]:
    """(id, state) of lines as `123_4|CANCELLED by 0`; an id such as 123_[5-7,9%2] stands for its jobs."""
    for line in text.splitlines():
        one, _, state = line.strip().partition("|")
        if not state:
            continue
        array, _, indices = one.partition("_")
        for index in _expanded(indices):
            yield (f"{array}_{index}" if index else array), state.split()[0]


def _expanded(indices: str) -> Iterable[str]:
    if not indices.startswith("["):
        return [indices]
    parts = re.findall(r"(\d+)(?:-(\d+)(?::(\d+))?)?", indices.strip("[]").partition("%")[0])
    return [str(i) for a, b, step in parts for i in range(int(a), int(b or a) + 1, int(step or 1))]
