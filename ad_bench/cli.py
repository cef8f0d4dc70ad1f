"""The command line: one function a command, which reads its words and calls. Heavy imports stand inside."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

DONE, SOME_FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

HELP = """\
adbench: industrial image anomaly detection, methods compared on equal terms

usage: adbench COMMAND [key=value ...] [options]

  run       fit and score:   adbench run method=patchcore dataset=mvtec
                             adbench run -m method=patchcore,padim dataset=mtd seed=0,1,2
                             adbench run suite=demo
  report    tables from the records: results/tables, results/leaderboard.csv
  list      methods | datasets | metrics | protocols | backbones | suites
  show      a method's or data set's settings, sources and published figures
  data      check | prepare: is the data there, whole, and decoded once
  evaluate  metrics for anomaly maps that another program wrote
  doctor    what works on this machine: devices, weights, data, versions

adbench COMMAND --help says more. Exit codes: 0 done, 1 some cells failed, 2 wrong use, 130 interrupted.
"""

RUN_HELP = """\
usage: adbench run method=NAME [dataset=NAME] [key=value ...] [-m] [--config-dir DIR] [--dry-run]

Fits and scores every cell (method x data set x category x protocol x seed) that has no record yet.

  method=patchcore           adbench list methods
  dataset=mvtec              default: synthetic (made on the spot); adbench list datasets
  category=bottle,cable      default: all that the disk has
  seed=0,1,2                 default: 0
  protocol=few_shot protocol.shots=4      default: the method's own, mostly full
  backbone=resnet18          instead of the method's; backbone.weights=FILE | random | bundled
  paths.data=DIR             the folder of the data sets; dataset.root=DIR points at one
  runtime.device=cpu         default: cuda where there is one
  runtime=debug              a few images: does it run?
  rerun=failed|always        default: never what has a record
  save.maps=true save.model=true
  method.model.coreset_ratio=0.01         any setting of the method's YAML: a row of its own in the tables
  suite=demo                 a named list of runs

  -m, --multirun      sweep over values with commas, glob(*) or range(): -m method=patchcore,padim
  --config-dir DIR    a folder of yours with method/NAME.yaml, dataset/NAME.yaml, suite/NAME.yaml
  --dry-run           say what would run
"""

REPORT_HELP = """\
usage: adbench report [dataset=NAME,...] [paths.results=DIR] [--show] [--config-dir DIR]

Writes results/tables/<dataset>/{table9_image_auroc,table9_image_aupr,table10_pixel_auroc,table10_pixel_aupr}
as CSV, LaTeX and Markdown, and results/leaderboard.{csv,md}, from the records alone.

  --show    print the leaderboard and the tables
"""

LIST_HELP = """\
usage: adbench list methods|datasets|metrics|protocols|backbones|suites [--json] [--config-dir DIR]
"""

SHOW_HELP = """\
usage: adbench show method=NAME [dataset=NAME] [key=value ...] [--config-dir DIR]

Prints the composed settings, where each file lies, and the figures that were published for the method.
"""

DATA_HELP = """\
usage: adbench data check|prepare dataset=NAME [category=...] [key=value ...] [--deep]

  check     finds the data, compares it with the published counts and says what is missing
            --deep also decodes every image and mask
  prepare   decodes every image once for method=NAME (default: patchcore's geometry)
"""

EVALUATE_HELP = """\
usage: adbench evaluate --maps DIR --dataset NAME [--name METHOD] [--scores FILE.csv] [key=value ...]

Scores anomaly maps that another program wrote, and puts the row into the tables.

  --maps DIR     one .npy, .npz or .tiff for each test image, at the image's path below the data set:
                 DIR/bottle/test/good/000.tiff for bottle/test/good/000.png; of any size
  --dataset NAME mvtec, mtd, folder, ...
  --name METHOD  how the row is called (default: external)
  --scores FILE  CSV with the columns path and score; without it an image scores its map's maximum
  category=...   paths.data=DIR, dataset.root=DIR, paths.results=DIR as in adbench run
"""

DOCTOR_HELP = "usage: adbench doctor [paths.data=DIR]\n\nWhat works on this machine and what does not.\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return DONE
    if words[0] in ("-V", "--version", "version"):
        from ad_bench import __version__

        print(f"adbench {__version__}")
        return DONE
    name, *rest = words
    if name not in COMMANDS:
        from ad_bench.errors import closest

        return _complain(f"no command '{name}'.{closest(name, COMMANDS, 'adbench --help lists them')}")
    command, text = COMMANDS[name]
    if "-h" in rest or "--help" in rest:
        print(text, end="")
        return DONE
    from ad_bench.errors import AdbenchError, DataError, UsageError, WeightsError

    try:
        return command(rest)
    except KeyboardInterrupt:
        print("\nadbench: interrupted; finished cells are kept, the same command goes on", file=sys.stderr)
        return INTERRUPTED
    except (UsageError, DataError, WeightsError) as error:
        return _complain(str(error))
    except AdbenchError as error:
        _complain(str(error))
        return SOME_FAILED
    except BrokenPipeError:  # `adbench list methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _complain(text: str) -> int:
    for line in text.splitlines():
        print(f"adbench: {line}", file=sys.stderr)
    return WRONG_USE


class Words:
    """The words of one command: overrides, flags and options, each checked against what is known."""

    def __init__(self, words: Sequence[str], flags: Sequence[str] = (), options: Sequence[str] = ()) -> None:
        self.overrides: list[str] = []
        self.flags: set[str] = set()
        self.options: dict[str, list[str]] = {}
        waiting = list(words)
        while waiting:
            word = waiting.pop(0)
            name, equals, value = word.partition("=")
            if word in flags:
                self.flags.add(word)
            elif name in options:
                if not equals and not waiting:
                    self._refuse(f"{name} needs a value after it")
                self.options.setdefault(name, []).append(value if equals else waiting.pop(0))
            elif word.startswith("-"):
                self._refuse(f"no option '{word}'.{self._near(name, [*flags, *options])}")
            else:
                self.overrides.append(word)

    @staticmethod
    def _refuse(text: str) -> NoReturn:
        from ad_bench.errors import UsageError

        raise UsageError(text)

    @staticmethod
    def _near(name: str, known: Sequence[str]) -> str:
        from ad_bench.errors import closest

        return closest(name, known, f"Known here: {', '.join(known) or 'none'}, --help")

    def option(self, name: str) -> str | None:
        """The last value given for an option."""
        return self.options.get(name, [None])[-1]

    @property
    def config_dirs(self) -> list[Path]:
        """The user's own folders of YAML files."""
        return [Path(folder) for folder in self.options.get("--config-dir", [])]

    def take(self, key: str, default: str) -> str:
        """Split `key=value` off the overrides."""
        found = [word for word in self.overrides if word.startswith(f"{key}=")]
        self.overrides = [word for word in self.overrides if word not in found]
        return found[-1].partition("=")[2] if found else default


def run(argv: Sequence[str]) -> int:
    """Fit and score what has no record yet."""
    words = Words(argv, ["-m", "--multirun", "--dry-run"], ["--config-dir"])
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: what is half done leaves nothing behind
    from ad_bench import config

    for folder in words.config_dirs:
        # A user's method lives beside its YAML, or on PYTHONPATH.
        sys.path.insert(0, str(folder.expanduser().resolve()))
    chosen = config.choices(words.overrides, words.config_dirs, bool(words.flags & {"-m", "--multirun"}))
    from ad_bench.runner.plan import make_plan

    plan = make_plan(chosen)
    from ad_bench.runner import sweep

    if "--dry-run" in words.flags:
        sweep.print_plan(plan)
        return DONE
    return SOME_FAILED if sweep.run_plan(plan) else DONE


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def report(argv: Sequence[str]) -> int:
    """Tables from the records."""
    words = Words(argv, ["--show"], ["--config-dir"])
    results = Path(words.take("paths.results", "results"))
    names = words.take("dataset", "")
    _no_more(words)
    from ad_bench.report import collect, show, write_report

    datasets = names.split(",") if names else None
    board = collect(results, words.config_dirs)
    written = write_report(results, datasets=datasets, config_dirs=words.config_dirs, board=board)
    if "--show" in words.flags:
        show(results, datasets=datasets, config_dirs=words.config_dirs, board=board)
    print(f"{len(written)} files below {results}: {', '.join(sorted({p.suffix[1:] for p in written}))}")
    return DONE


def _no_more(words: Words) -> None:
    if words.overrides:
        words._refuse(f"'{words.overrides[0]}' means nothing here; --help lists what does")


def list_(argv: Sequence[str]) -> int:
    """The catalogue."""
    words = Words(argv, ["--json"], ["--config-dir"])
    from ad_bench import catalogue

    what = words.overrides[0] if words.overrides else ""
    catalogue.print_list(what, words.config_dirs, "--json" in words.flags)
    return DONE


def show(argv: Sequence[str]) -> int:
    """One method or data set in full."""
    words = Words(argv, [], ["--config-dir"])
    from ad_bench import catalogue

    catalogue.print_choice(words.overrides, words.config_dirs)
    return DONE


def data(argv: Sequence[str]) -> int:
    """Is the data there, and whole."""
    words = Words(argv, ["--deep"], ["--config-dir"])
    from ad_bench import datacheck
    from ad_bench.errors import UsageError, closest

    verbs: dict[str, Callable[[], bool]] = {
        "check": lambda: datacheck.check(words.overrides, words.config_dirs, "--deep" in words.flags),
        "prepare": lambda: datacheck.prepare(words.overrides, words.config_dirs),
    }
    verb = words.overrides.pop(0) if words.overrides else ""
    if verb not in verbs:
        raise UsageError(f"adbench data {verb}: expected check or prepare.{closest(verb, verbs)}")
    return DONE if verbs[verb]() else SOME_FAILED


def evaluate(argv: Sequence[str]) -> int:
    """Metrics for other programs' anomaly maps."""
    words = Words(argv, [], ["--maps", "--dataset", "--name", "--scores", "--config-dir"])
    from ad_bench.errors import UsageError

    if not words.option("--maps") or not words.option("--dataset"):
        raise UsageError("adbench evaluate needs --maps DIR and --dataset NAME; --help shows the layout")
    from ad_bench.runner.external import evaluate_external

    evaluate_external(
        Path(words.option("--maps") or ""),
        [f"dataset={words.option('--dataset')}", *words.overrides],
        words.config_dirs,
        words.option("--name") or "external",
        Path(scores) if (scores := words.option("--scores")) else None,
    )
    return DONE


def doctor(argv: Sequence[str]) -> int:
    """What works here."""
    words = Words(argv)
    from ad_bench import doctor as checks

    data_folder = Path(words.take("paths.data", "data"))
    _no_more(words)
    return DONE if checks.print_report(data_folder) else SOME_FAILED


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "run": (run, RUN_HELP),
    "report": (report, REPORT_HELP),
    "list": (list_, LIST_HELP),
    "show": (show, SHOW_HELP),
    "data": (data, DATA_HELP),
    "evaluate": (evaluate, EVALUATE_HELP),
    "doctor": (doctor, DOCTOR_HELP),
}

if __name__ == "__main__":
    sys.exit(main())
