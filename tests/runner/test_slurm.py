"""`launch=slurm` on a real Slurm of one node, and what needs none: options, answers, signals."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from ad_bench.config import conf_dir
from ad_bench.errors import ResultsError, UsageError
from ad_bench.records import Record, read_all
from ad_bench.runner import packs, slurm, sweep
from ad_bench.runner.plan import Plan
from ad_bench.runner.stopping import Terminated
from tests.runner.conftest import write_category

pytestmark = pytest.mark.xdist_group("slurm")
Call = Callable[..., subprocess.CompletedProcess[str]]
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slurm_single_node.sh"
TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
MAX_ARRAY = 8


def launch(**settings: object) -> DictConfig:
    """conf/launch/slurm.yaml with its defaults, and what a test sets."""
    parts = [OmegaConf.load(conf_dir() / "launch" / f"{name}.yaml") for name in ("local", "slurm")]
    merged = OmegaConf.merge(*parts, settings)
    assert isinstance(merged, DictConfig)
    return merged


# Without Slurm


def options(**settings: object) -> dict[str, object]:
    return slurm.sbatch_options(launch(**settings))


def test_the_settings_become_options_of_sbatch() -> None:
    plain = options()
    assert plain["gres"] == "gpu:1"
    assert plain["mem"] == "16384M"
    assert plain["additional_parameters"] == {"requeue": True, "signal": "B:USR2@120"}
    assert plain["setup"] == ["export HF_HUB_OFFLINE=1"]
    assert options(shards=2)["gres"] == "shard:2"
    more = options(more={"hold": True, "nice": 5, "requeue": False})["additional_parameters"]
    assert more == {"hold": True, "nice": 5, "signal": "B:USR2@120"}


def test_a_job_without_gpus_sees_none() -> None:
    hidden = "export CUDA_VISIBLE_DEVICES="
    cpu = options(gpus=0)
    assert cpu["gres"] is None
    assert cpu["setup"] == [hidden, "export HF_HUB_OFFLINE=1"]
    assert hidden not in options(gpus=0, more={"gres": "gpu:a100:1"})["setup"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"gpus": "two"}, "launch.gpus=two: expected a whole number, at least 0"),
        ({"parallel": 0}, "launch.parallel=0: expected a whole number, at least 1"),
        ({"memory_gb": float("nan")}, "launch.memory_gb=nan: expected a number"),
        ({"minutes": 2}, "launch.warn_seconds=120: a job of launch.minutes=2"),
        ({"more": {"--time": 5}}, "launch.more.time: adbench sets it; use launch.minutes"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match="launch") as caught:
        options(**settings)
    assert str(caught.value).startswith(text)


def test_the_largest_array_is_the_sites() -> None:
    assert slurm.most_in_array("MaxArraySize            = 20001\nMaxJobCount = 10000") == 20001
    assert slurm.most_in_array("MaxArraySize = 0") == 1  # a site without arrays
    assert slurm.most_in_array("no such line") == 1001


def test_answers_of_squeue_and_sacct_are_read() -> None:
    text = "12_3|RUNNING\n12_[4-6,9%2]|PENDING\n13|CANCELLED by 1000\n12_7.batch|\n\n14_[0-4:2]|PENDING\n"
    waiting = {f"12_{i}": "PENDING" for i in (4, 5, 6, 9)} | {f"14_{i}": "PENDING" for i in (0, 2, 4)}
    assert dict(slurm.parse_states(text)) == {"12_3": "RUNNING", "13": "CANCELLED", **waiting}


def program(folder: Path, name: str, *lines: str) -> None:
    path = folder / name
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_states_are_quiet_where_slurm_is_not_there_or_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.states(["1_0"]) == {}
    program(tmp_path, "squeue", "exec /bin/sleep 60")
    program(tmp_path, "sacct", "echo accounting is off >&2; echo '1_1|FAILED'; exit 1")
    monkeypatch.setattr(slurm, "ANSWER_SECONDS", 0.3)
    start = time.monotonic()
    assert slurm.states(["1_0", "1_1"]) == {"1_1": "FAILED"}
    assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")


def test_what_slurm_took_before_it_refused_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    count = tmp_path / "count"
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    program(tmp_path, "srun", "exit 1")
    program(tmp_path, "scontrol", "echo 'MaxArraySize = 2'")
    program(
        tmp_path,
        "sbatch",
        f"echo x >> {count}",
        f"[ $(wc -l < {count}) -lt 3 ] || {{ echo 'error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; }}",
        f"echo Submitted batch job 7$(wc -l < {count})",
    )
    paths = [tmp_path / f"{number}.json" for number in range(5)]
    with pytest.raises(slurm.SubmitError, match=r"PerUserLimit\. 4 jobs are queued") as caught:
        slurm.submit(paths, launch(), tmp_path / "logs")
    assert [job.id for job in caught.value.jobs] == ["71_0", "71_1", "72_0", "72_1"]
    assert [job.pack for job in caught.value.jobs] == paths[:4]


def test_no_slurm_and_no_folder_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no sbatch on PATH"):
        slurm.submit([tmp_path / "pack.json"], launch(), tmp_path)
    for name in ("sbatch", "srun", "scontrol"):
        program(tmp_path, name, "echo 'Unable to contact slurm controller' >&2; exit 1")
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"cannot write .*file/logs: Not a directory"):
        slurm.submit([tmp_path / "pack.json"], launch(), tmp_path / "file" / "logs")
    with pytest.raises(UsageError, match="Unable to contact slurm controller; nothing was submitted"):
        slurm.submit([tmp_path / "pack.json"], launch(), tmp_path / "logs")


def test_without_submitit_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'adbench\[slurm\]'"):
        slurm.submit([tmp_path / "pack.json"], launch(), tmp_path)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Callable[..., object], list[str]]]:
    """A job in this process, whose work is what a test gives it, and what happened to it in order."""
    numbers = (signal.SIGTERM, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    happened: list[str] = []
    signal.signal(signal.SIGUSR2, lambda *_: happened.append("queued again"))

    def run(work: Callable[[], int], minutes: int = 240, kept: str = "") -> object:
        def run_pack(pack: Path) -> int:
            try:
                return work()
            except Terminated:
                os.kill(os.getpid(), signal.SIGTERM)  # Slurm is not patient: nothing may come of it
                happened.append("workers stopped")
                raise Terminated(kept) from None

        monkeypatch.setattr(sweep, "run_pack", run_pack)
        monkeypatch.setattr(packs, "read_pack", lambda path: Plan())
        return slurm.PackJob(Path("pack.json"), minutes)()

    yield run, happened
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def signalled(number: int) -> Callable[[], int]:
    def work() -> int:
        os.kill(os.getpid(), number)
        time.sleep(5)
        return 0

    return work


def test_a_job_near_its_limit_is_queued_again_once_its_work_has_stopped(
    job: tuple[Callable[..., object], list[str]],
) -> None:
    run, happened = job
    with pytest.raises(SystemExit):
        run(signalled(signal.SIGUSR2))
    assert happened == ["workers stopped", "queued again"]


def test_a_job_that_came_no_further_is_not_queued_for_ever(
    job: tuple[Callable[..., object], list[str]],
) -> None:
    run, happened = job
    with pytest.raises(SystemExit, match="Queue the rest with a larger"):
        run(signalled(signal.SIGUSR2), minutes=0)
    assert happened == ["workers stopped"]
    signal.signal(signal.SIGUSR2, lambda *_: happened.append("queued again"))
    with pytest.raises(SystemExit):
        run(signalled(signal.SIGUSR2), minutes=0, kept="the checkpoint of epoch 7 of 100")
    assert happened == ["workers stopped", "workers stopped", "queued again"]


def test_a_terminated_job_stops_and_is_not_queued_again_by_itself(
    job: tuple[Callable[..., object], list[str]],
) -> None:
    run, happened = job
    with pytest.raises(SystemExit) as caught:
        run(signalled(signal.SIGTERM))
    assert caught.value.code == 130
    assert happened == ["workers stopped"]


def test_a_finished_job_is_not_queued_again(job: tuple[Callable[..., object], list[str]]) -> None:
    run, happened = job
    assert run(lambda: 3) == 3
    os.kill(os.getpid(), signal.SIGUSR2)
    assert happened == []


# On a real Slurm


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """The environment of a shell that talks to a Slurm of this session."""
    pytest.importorskip("submitit", reason="no submitit: pip install 'adbench[slurm]'")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in TOOLS if shutil.which(name, path=path) is None]
    if absent:
        pytest.skip(f"no {', '.join(absent)}: apt-get install slurm-wlm munge (scripts/slurm_single_node.sh)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own are closed to munge's clients
    folder.chmod(0o755)
    env = {**os.environ, "SLURM_DEV_DIR": str(folder), "SLURM_DEV_MAXARRAY": str(MAX_ARRAY)}
    started = subprocess.run([SCRIPT, "up"], env=env, capture_output=True, text=True, timeout=120)
    try:
        if started.returncode:
            pytest.skip(f"Slurm does not start here: {started.stderr.strip()[-500:]}")
        yield {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder / 'bin'}:{path}"}
    finally:
        subprocess.run([SCRIPT, "down"], env=env, capture_output=True, timeout=120, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def on_cluster(cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same, for this process too."""
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    return cluster


QUEUED = ("launch=slurm", "launch.gpus=0", "launch.cpus=1", "launch.memory_gb=1", "runtime.device=cpu")


def queued(tmp_path: Path) -> list[dict[str, str]]:
    """The jobs of the newest sweep."""
    newest = max((tmp_path / "results" / "sweeps").glob("*.json"))
    found: list[dict[str, str]] = json.loads(newest.read_text())["jobs"]
    return found


def wait_for(what: Callable[[], object], seconds: float, said: Callable[[], object] = lambda: "") -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, said()
        time.sleep(0.1)


def logs(tmp_path: Path) -> str:
    return "\n".join(
        f"== {log.name}\n{log.read_text()}" for log in sorted((tmp_path / "results").rglob("*log*"))
    )


def ended(tmp_path: Path, jobs: list[dict[str, str]], seconds: float = 60) -> dict[str, str]:
    """How the jobs ended, once they all have."""
    ids = [job["id"] for job in jobs]
    known: dict[str, str] = {}

    def over() -> bool:
        known.update(slurm.states(ids))
        return known.keys() == set(ids) and not {*known.values()} & {"PENDING", "RUNNING", "COMPLETING"}

    wait_for(over, seconds, lambda: f"{known}\n{logs(tmp_path)}")
    return known


def test_three_thousand_cells_are_queued_in_seconds(
    adbench: Call, on_cluster: dict[str, str], tmp_path: Path
) -> None:
    for category in ("bottle", "cable"):
        write_category(tmp_path / "data" / "mvtec", category)
    words = ("run", "method=random", "dataset=mvtec", "seed=range(0,1500)", "launch.more={hold: true}")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = adbench(*words, *QUEUED)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # seconds of a processor: the machine may be busy
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
    assert answer.returncode == 0, answer.stderr
    assert "3000 cells: 3000 to run" in answer.stderr
    jobs = queued(tmp_path)
    written = [json.loads((tmp_path / "results" / job["pack"]).read_text()) for job in jobs]
    assert sum(len(entry["cells"]) for pack in written for entry in pack["entries"]) == 3000
    assert len(jobs) > 2 * MAX_ARRAY
    assert max(int(job["id"].partition("_")[2]) for job in jobs) == MAX_ARRAY - 1
    assert slurm.states(job["id"] for job in jobs) == {job["id"]: "PENDING" for job in jobs}
    subprocess.run(["scancel", *{job["id"].partition("_")[0] for job in jobs}], check=True)
    assert set(ended(tmp_path, jobs).values()) == {"CANCELLED"}


def test_what_sbatch_says_is_passed_on(
    adbench: Call, on_cluster: dict[str, str], data: Path, tmp_path: Path
) -> None:
    answer = adbench("run", "method=random", "dataset=mvtec", "launch.partition=nowhere", *QUEUED)
    assert answer.returncode == 2
    assert "invalid partition specified: nowhere" in answer.stderr
    assert "Traceback" not in answer.stderr


METHODS = '''"""A quick method, and a training that takes its time while a gate is shut."""
import os
import time
from pathlib import Path

import torch

from ad_bench.contract import Method, Prediction


class Brightness(Method):
    def __init__(self, power: float):
        super().__init__()
        self.power = power
        self.register_buffer("mean", torch.zeros(()))

    def fit(self, train, run):
        self.mean = torch.stack([b.images.mean() for b in train.batches(batch_size=1)]).mean()

    def predict(self, inputs):
        maps = (inputs.images.mean(1) - self.mean).abs() ** self.power
        return Prediction(maps.amax((1, 2)), maps)


class Slumber(Brightness):
    """Every epoch draws, so that a training that lost one ends with another mean."""

    def fit(self, train, run):
        super().fit(train, run)
        gate = Path(os.environ["GATE"])
        for epoch in run.epochs(200):
            self.mean += 1e-3 * torch.rand(())
            if run.seed == 0 and gate.exists():
                if epoch == 3:
                    (gate / os.environ["SLURM_JOB_ID"]).touch()
                time.sleep(0.2)
'''


@pytest.fixture
def methods(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "method").mkdir(parents=True)
    (folder / "slow_methods.py").write_text(METHODS)
    for name in ("Brightness", "Slumber"):
        (folder / "method" / f"{name.lower()}.yaml").write_text(
            f"title: {name}\ntaxonomy: baseline\nsource: ours\nneeds: []\n"
            f"model: {{_target_: slow_methods.{name}, power: 1}}\n"
            "input: {size: 48}\npaper_eval: {size: 48, mask_interpolation: nearest, mask_rule: nearest}\n"
            "loader: {batch_size: 4}\npaper: {arxiv: null, selection: last}\n"
        )
    return folder


def cells(tmp_path: Path) -> dict[tuple[str, str, int], Record]:
    found, problems = read_all(tmp_path / "results")
    assert problems == []
    return {(r["method"], r["category"], r["seed"]): r for r in found}


def tables(adbench: Call, tmp_path: Path) -> dict[str, bytes]:
    assert adbench("report", cwd=tmp_path).returncode == 0
    return {path.name: path.read_bytes() for path in (tmp_path / "results" / "tables").rglob("table*.*")}


def test_a_sweep_survives_a_cancelled_and_a_requeued_job(
    adbench: Call, on_cluster: dict[str, str], data: Path, methods: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    env = {"GATE": str(gate), "ADBENCH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    words = ("run", "-m", "method=brightness,slumber", "dataset=mvtec", "seed=range(0,10)")
    words = (*words, "metric.intervals.replicates=0", "save.pictures=false")
    words = (*words, "runtime.latency_repeats=1", "--config-dir", str(methods))
    slowly = (*words, *QUEUED, "launch.pack_minutes=10")
    answer = adbench(*slowly, env=env)
    assert answer.returncode == 0, answer.stderr
    assert "40 cells: 40 to run" in answer.stderr
    jobs = queued(tmp_path)
    assert len(jobs) == 4
    # In the middle of a training, one job hears that its time ends, another is cancelled.
    ids = [job["id"] for job in jobs]
    wait_for(
        lambda: len(list(gate.iterdir())) == 2 or "FAILED" in slurm.states(ids).values(),
        60,
        lambda: logs(tmp_path),
    )
    assert len(list(gate.iterdir())) == 2, logs(tmp_path)
    raw = subprocess.run(["squeue", "-h", "-r", "-o", "%A %i"], capture_output=True, text=True, check=True)
    names = dict(line.split() for line in raw.stdout.splitlines())
    limited, cancelled = (names[marker.name] for marker in sorted(gate.iterdir()))
    subprocess.run(["scancel", "--batch", "--signal=USR2", limited], check=True)
    subprocess.run(["scancel", cancelled], check=True)
    wait_for(lambda: slurm.states([cancelled]) == {cancelled: "CANCELLED"}, 30, lambda: logs(tmp_path))
    wait_for(lambda: slurm.states([limited]) == {limited: "PENDING"}, 30, lambda: logs(tmp_path))
    assert len({path.parent for path in (tmp_path / "cache" / "checkpoints").rglob("*.pt")}) == 2
    for one in (limited, cancelled):  # the job waited for its worker, and heard what that kept
        (log,) = (tmp_path / "results").rglob(f"{one}_0_log.out")
        assert "finished cells and the checkpoint of epoch" in log.read_text()
    shutil.rmtree(gate)
    how = ended(tmp_path, jobs)
    assert how.pop(cancelled) == "CANCELLED"
    assert set(how.values()) == {"COMPLETED"}, logs(tmp_path)
    assert len(cells(tmp_path)) == 30
    # The same command queues the rest, and nothing else.
    answer = adbench(*slowly, env=env)
    assert "40 cells: 10 to run, 30 already done" in answer.stderr
    ended(tmp_path, queued(tmp_path))
    found = cells(tmp_path)
    assert len(found) == 40
    for category in ("bottle", "cable"):
        assert found["slumber", category, 0]["notes"]["resumed_at_epoch"] > 3
    # As if nothing had happened.
    shutil.copytree(tmp_path / "data", tmp_path / "plain" / "data")
    assert adbench(*words, cwd=tmp_path / "plain", env=env).returncode == 0
    undisturbed = cells(tmp_path / "plain")
    assert {k: r["metrics"] for k, r in found.items()} == {k: r["metrics"] for k, r in undisturbed.items()}
    assert tables(adbench, tmp_path) == tables(adbench, tmp_path / "plain")
    assert tables(adbench, tmp_path)
