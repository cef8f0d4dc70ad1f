"""The command line: one function a command, which reads its words and calls. Heavy imports stand inside."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from ad_bench.runner.status import Status

DONE, SOME_FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

HELP = """\
adbench: industrial image anomaly detection, methods compared on equal terms

usage: adbench COMMAND [key=value ...] [options]

  run       fit and score:   adbench run method=patchcore dataset=mvtec
                             adbench run -m method=patchcore,padim dataset=mtd seed=0,1,2
                             adbench run suite=demo
  status    how a sweep stands: done, running, failed and why, time left; --watch
  report    tables from the records: results/tables, results/leaderboard.csv
  compare   two rows cell by cell, with significance
  list      methods | datasets | metrics | protocols | backbones | suites
  show      a method's or data set's settings, sources and published figures
  data      check | fetch | show | prepare: is the data there and whole, get it, look at it, decode it once
  evaluate  metrics for anomaly maps that another program wrote
  rescore   new metrics, or another paper's pixel rules, for maps that a run kept: no fit
  predict   new images through a model that a run kept: scores, heat maps, a sheet
  pretrain  weights for a backbone from a folder of images: adbench pretrain spd images=DIR out=FILE
  results   export | import: records in one archive, to another lab and from it
  clean     remove what killed runs left behind
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
  launch=local|slurm         in worker processes (launch.workers_per_device=4), or as array jobs of a cluster
  save.maps=true save.model=true
  method.model.coreset_ratio=0.01         any setting of the method's YAML: a row of its own in the tables
  suite=demo                 a named list of runs

  -m, --multirun      sweep over values with commas, glob(*) or range(): -m method=patchcore,padim
  --config-dir DIR    a folder of yours with method/NAME.yaml, dataset/NAME.yaml, suite/NAME.yaml
  --dry-run           say what would run
"""

STATUS_HELP = """\
usage: adbench status [words as in adbench run | paths.results=DIR] [--watch | --json | --table [--csv FILE]]
                      [--config-dir DIR]

Says how many cells are done, failed, skipped, running, waiting; who works on what; why cells failed and where
the traceback is; how the jobs of launch=slurm do; how fast it goes, how long the rest takes, and what to do
next. Without words: of the newest sweep of results/sweeps, and which others are open. It may be called on any
machine that sees the results folder, while a sweep runs and afterwards.

  --watch     again every 5 s until every cell has a record, or Ctrl-C
  --json      one object with all of it
  --table     the plan, its cost and its results as one table: cells done, time spent and to come, scores
              beside the published ones, a line for each row
  --csv FILE  that table also as CSV

Exit codes: 0 all is done, or not all has run yet; 1 some cells failed, 2 wrong use.
"""

CLEAN_HELP = """\
usage: adbench clean [paths.results=DIR] [paths.cache=DIR] [--dry-run] [--checkpoints]

Removes what killed runs left: half-written records, files, checkpoints and image stores, notes of processes
that are dead; and what results/sweeps remembers of sweeps that are complete or began more than 30 days ago,
with their packs and logs. Of living processes it touches nothing, and nothing of other machines that is
younger than a day. Records stay, and so do whole image stores (paths.cache may be deleted at any time).

  --dry-run       say what would be removed
  --checkpoints   also the checkpoints that stopped trainings would go on from; not while something runs

Exit codes: 0 done, 1 something could not be removed, 2 wrong use.
"""

REPORT_HELP = """\
usage: adbench report [dataset=NAME,...] [rank=ROW,ROW,...] [paths.results=DIR] [--show] [--config-dir DIR]

Made from the records alone:
  results/html/index.html    the leaderboard, methods, cells and a gallery of maps as a page: open it by
                             double click, it needs no server and no network
  results/tables/<dataset>/  table9_image_auroc, table9_image_aupr, table10_pixel_auroc, table10_pixel_aupr
                             (the survey's Tables 9 and 10), reproduction (ours against the published
                             figures, with a verdict), costs (with the Pareto front): CSV, LaTeX, Markdown
  results/leaderboard.csv    every row with every metric and cost; leaderboard.md to read
  results/records.csv        every record on a line
  results/ranking/           mean ranks over categories and data sets, with tests and diagrams
  results/claims.md          the survey's claims, tested

  rank=...  the rows to rank, as adbench compare takes them: rank=patchcore,padim,fastflow@short; default:
            the largest comparison without a gap, at most ten methods
  --show    print the leaderboard and the tables
"""

COMPARE_HELP = """\
usage: adbench compare A B [dataset=NAME,...] [metric=NAME] [paths.results=DIR] [--csv FILE] [--json]

Two rows of the records cell by cell (data set and category, averaged over common seeds): both values, A - B,
and whether the choice of test images could have made the difference.

  A, B                rows as the leaderboard names them: patchcore, patchcore@coreset_ratio=0.01, and with
                      their protocol where it is not full: patchcore:few_shot-4
  metric=image_auroc  default; image_aupr, pixel_aupro (original masks), paper.pixel_auroc, ...

Image AUROC is tested by DeLong's test, other image metrics by a paired bootstrap, over the test images of
both rows' samples.csv, which must be the same; p is corrected by Holm over the cells. Pixel metrics are
tested over the cells alone (Wilcoxon).

  --csv FILE          the table, unrounded
  --json              one object instead of the table
"""

PRETRAIN_HELP = """\
usage: adbench pretrain RECIPE images=DIR out=FILE.safetensors [key=value ...] [--config-dir DIR]

Learns weights of a backbone from all images below a folder, without labels. RECIPE is spd
(SPot-the-Difference); key=value changes any setting of conf/pretrain/RECIPE.yaml. A training that is stopped
leaves FILE.training, and the same command goes on. FILE.json says what FILE was made of and its checksum.

  model.backbone.name=resnet18.tv_in1k     the network
  model.backbone.weights=null              start from its published weights; default: from scratch
  "model.backbone.layers=[3]"              its layers up to the last that is to be learnt
  model.objective=simclr                   default: simsiam
  epochs=2 batch_size=32 optimizer.lr=0.005     a short fine-tune, in place of days
  seed=1 device=cpu

With FILE called wide_resnet50_2.spd.safetensors, in the folder that ADBENCH_WEIGHTS names:
  adbench run -m method=spd_patchcore,spd_padim dataset=mvtec
With any name, for the network that it is of:
  adbench run method=spd_patchcore backbone=resnet18 backbone.weights=FILE "variant='SPD (short fine-tune)'"
"""

LIST_HELP = """\
usage: adbench list methods|datasets|metrics|protocols|backbones|suites [--json] [--config-dir DIR]

  adbench list datasets paths.data=DIR      which of them are there, how large they are, their licences
"""

SHOW_HELP = """\
usage: adbench show method=NAME [dataset=NAME] [key=value ...] [--config-dir DIR]
       adbench show dataset=NAME

Prints the composed settings, where each file lies, and the figures that were published for the method.
"""

DATA_HELP = """\
usage: adbench data check|fetch|show|prepare dataset=NAME [category=...] [paths.data=DIR] [key=value ...]

  check     compares what is there with the published counts: lost and empty files, masks without an image,
            images that train and test (equal to the byte), what is missing and where to get it
            --deep  decode every image and mask: damage, wrong sizes, marked normals, equal pixels
            --json  the report with every name
  fetch     downloads, verifies and unpacks the data set below paths.data and checks it; where no direct link
            is known, says where and how to get it. A broken download goes on where it stopped
  show      writes a contact sheet for each category: normal images, each defect, the mask's outline
            --out FILE.png or DIR (default: NAME_CATEGORY.png here); seed=1 draws other images
  prepare   decodes every image once for method=NAME (default: patchcore's geometry)

Exit codes: 0 all is well, 1 something is wrong or missing, 2 wrong use.
"""

EVALUATE_HELP = """\
usage: adbench evaluate --maps DIR --dataset NAME [--name METHOD] [--scores FILE.csv] [key=value ...]
       adbench evaluate --maps DIR --ground-truth DIR [--json FILE] [--normal NAME,...] [--scores FILE.csv]
                        [--name METHOD --as DATASET] [key=value ...]

Scores anomaly maps that another program wrote: for a data set of adbench, or with a folder of masks.

  --maps DIR     one .npy, .npz or .tiff for each test image, at the image's path below the data set:
                 DIR/bottle/test/good/000.tiff for bottle/test/good/000.png; of any size
  --scores FILE  CSV with the columns path and score; without it an image scores its map's maximum

  --dataset NAME mvtec, mtd, folder, ...; the values become a row of the tables
  --name METHOD  how the row is called (default: external)
  category=...   paths.data=DIR, dataset.root=DIR, paths.results=DIR as in adbench run

  --ground-truth DIR  the masks, of one category or of several, or the data set's own folder:
                 DIR/bottle/ground_truth/crack/000_mask.png for MAPS/bottle/test/crack/000.tiff
                   (bottle/, ground_truth/, test/ and _mask may be missing)
                 DIR/breakfast_box/ground_truth/logical_anomalies/000/000.png, 001.png, ... and
                   breakfast_box/defects_config.json: MVTec LOCO, with pixel_spro and a value for each kind
                 DIR/a.png for MAPS/a.npy; here an image with a black mask is normal
                 Masks hold 0 and 1, or 0 and 255. Maps of another size are resized to their mask.
  --normal NAME,...   folders of normal images, whose maps need no mask (default: good,normal,ok)
  --json FILE    all values, reasons and operating points
  --name METHOD --as DATASET   also write records, so that adbench report shows the row under that data set
  category=...   paths.results=DIR, metric.names=[pixel_auroc,...]
"""

RESCORE_HELP = """\
usage: adbench rescore [method=NAME] [dataset=NAME] [category=NAME] [key=value ...] [--dry-run]

Scores the maps that runs kept (adbench run ... save.maps=true) again and writes new records, without a fit.

  method=patchcore dataset=mvtec category=bottle,cable      which records; default: all that have maps
  protocol=few_shot seed=0,1
  metric.aupro_limits=[0.1]             besides those that the record has; so spro_limits and names
  metric.KEY=VALUE                      any setting of the metrics; adbench show method=NAME lists them
  method.paper_eval=padim               pixels judged as that method's paper did: a row of its own
  method.paper_eval.mask_rule=int       one rule; or all: method.paper_eval={size: 224, mask_interpolation:
                                        bilinear, mask_rule: int}
  paths.results=DIR paths.data=DIR dataset.root=DIR         as in adbench run
  rerun=always                          also what has been rescored like this before

  --config-dir DIR    the folder of yours that adbench run was given
  --dry-run           say what would be rescored

Nothing else can change: the geometry and the method are what the maps were made with. Maps kept as float16
(save.maps=true) have ties that the run had not: that moves most metrics by about 0.0001, those of scores with
a large constant part by more; the records say so. save.maps=float32 gives what a run gives, to the last bit.
"""

PREDICT_HELP = """\
usage: adbench predict RECORD IMAGE|FOLDER ... [--out DIR] [--maps] [key=value ...]
                       [--config-dir DIR] [--trust]

Scores images with the model that a run kept (adbench run ... save.model=true).

  RECORD            the run's folder, results/cells/.../<fingerprint>, or its record.json
  threshold=X       an image is anomalous from this score on; pixel_threshold=X where the line runs. Default:
                    where F1 was highest on the run's test set, which is optimistic
  category=NAME     for methods that ask for it; default: the record's
  runtime.device=cpu runtime.batch_size=8

  --out DIR         default: predictions/METHOD-DATASET-CATEGORY
  --maps            also the anomaly maps, float32 TIFF at the size of each image
  --config-dir DIR  the folder of yours that adbench run was given
  --trust           build whatever the run's config.yaml names: it may run any code. Else only what the files
                    of methods name is built

Writes scores.csv (unreadable images with their reason), heatmaps/ on one scale, sheet.png and README.txt,
which says what the scale and the line are. What is done stays after Ctrl-C.

Exit codes: 0 all images are scored, 1 some could not be read, 2 wrong use or a run that cannot score.
"""

RESULTS_HELP = """\
usage: adbench results export FILE.zip|FILE.tar.gz [dataset=NAME,...] [method=NAME,...] [protocol=NAME,...]
                              [--with maps|models|pictures] [--as LAB] [paths.results=DIR]
       adbench results import FILE [--as LAB] [paths.results=DIR]

  export    packs records with their settings, scores and curves into one archive; the same records give the
            same bytes. Folders of this machine (in error texts and settings) and debug runs stay out
            --with KIND  also maps, models, or pictures, which are parts of the data set's images: mind its
                         licence. Again for each kind
            --as LAB     the name under which the records stand elsewhere
  import    checks every file of an archive and merges its records into the results. They carry the name of
            the lab (--as, else the archive's own). What is there already is passed over; where a cell has
            another record both are kept, and the tables show a row for each lab

Exit codes: 0 done, 1 some records were refused (the rest is merged), 2 wrong use or no archive of records.
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
    except KeyboardInterrupt as stop:
        kept = f"finished cells and {stop} are kept" if str(stop) else "finished cells are kept"
        print(f"\nadbench: interrupted; {kept}, the same command goes on", file=sys.stderr)
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
    _stoppable()
    from ad_bench import config

    for folder in words.config_dirs:
        # A user's method lives beside its YAML, or on PYTHONPATH.
        sys.path.insert(0, str(folder.expanduser().resolve()))
    chosen = config.choices(words.overrides, words.config_dirs, bool(words.flags & {"-m", "--multirun"}))
    from ad_bench.runner.plan import make_plan

    dry = "--dry-run" in words.flags
    plan = make_plan(chosen, complete=not dry)
    from ad_bench.runner import sweep

    if dry:
        sweep.print_plan(plan)
        _complete(plan.lacking)
        return DONE
    command = sweep.Command(tuple(words.overrides), tuple(words.config_dirs))
    return SOME_FAILED if sweep.run_plan(plan, command) else DONE


def _complete(lacking: str) -> None:
    """Raise UsageError where a plan that was shown lacks weights."""
    if lacking:
        from ad_bench.errors import UsageError

        raise UsageError(
            f"methods whose weights are missing are not among them; a run would not start:\n{lacking}"
        )


def _stoppable() -> None:
    """SIGTERM ends the process as Ctrl-C does; what is half written leaves nothing behind."""
    from ad_bench.runner import stopping

    stopping.install()


def status(argv: Sequence[str]) -> int:
    """How a sweep stands."""
    words = Words(argv, ["--watch", "--json", "--table", "-m", "--multirun"], ["--config-dir", "--csv"])
    _stoppable()
    if len(words.flags & {"--watch", "--json", "--table"}) > 1:
        words._refuse("--watch is for people, --json for programs, --table for one look: one of them")
    if words.option("--csv") and "--table" not in words.flags:
        words._refuse("--csv FILE writes the table: it goes with --table")
    from ad_bench.runner.status import as_json, status_of

    found, others = status_of(words.overrides, words.config_dirs)
    if "--json" in words.flags:
        import json

        print(json.dumps(as_json(found, others), indent=1))
    elif "--table" in words.flags:
        _print_asked(found, words)
    else:
        from rich.console import Console

        from ad_bench.runner import status_view

        shown = status_view.watch if "--watch" in words.flags else status_view.print_status
        shown(found, others, Console())
    _complete(found.lacking)
    return SOME_FAILED if found.failed else DONE


def _print_asked(found: Status, words: Words) -> None:
    from rich.console import Console

    from ad_bench import records
    from ad_bench.report import asked, collect
    from ad_bench.report.board import DEBUG
    from ad_bench.report.delimited import write_csv
    from ad_bench.report.reproduction import verdicts

    done = {cell.id: records.read(cell.path) for cell in found.cells if cell.status == "done"}
    tabled = any(DEBUG not in (record.get("marks") or ()) for record in done.values())
    judged = verdicts(collect(found.results, found.config_dirs)) if tabled else []
    rows = asked.asked(found.cells, done, judged)
    asked.print_asked(rows, Console())
    if path := words.option("--csv"):
        write_csv(Path(path), asked.asked_csv(rows))


def clean(argv: Sequence[str]) -> int:
    """What killed runs left behind."""
    words = Words(argv, ["--dry-run", "--checkpoints"])
    _stoppable()
    from ad_bench.runner import clean as cleaning

    results, cache = cleaning.default_folders()
    results, cache = words.take("paths.results", results), words.take("paths.cache", cache)
    _no_more(words)
    flags = ("--dry-run" in words.flags, "--checkpoints" in words.flags)
    return SOME_FAILED if cleaning.clean(Path(results), Path(cache), *flags) else DONE


def report(argv: Sequence[str]) -> int:
    """Tables from the records."""
    words = Words(argv, ["--show"], ["--config-dir"])
    results = Path(words.take("paths.results", "results"))
    names, rank = words.take("dataset", ""), words.take("rank", "")
    _no_more(words)
    from ad_bench.records import no_collecting
    from ad_bench.report import collect, show, write_report

    datasets = names.split(",") if names else None
    with no_collecting():
        board = collect(results, words.config_dirs)
        written = write_report(
            results, datasets=datasets, config_dirs=words.config_dirs, board=board, rank=rank
        )
    if "--show" in words.flags:
        show(results, datasets=datasets, config_dirs=words.config_dirs, board=board)
    print(f"{len(written)} files below {results}: {', '.join(sorted({p.suffix[1:] for p in written}))}")
    return DONE


def compare(argv: Sequence[str]) -> int:
    """Two rows, cell by cell."""
    words = Words(argv, ["--json"], ["--csv", "--config-dir"])
    results = Path(words.take("paths.results", "results"))
    datasets = words.take("dataset", "")
    metric = words.take("metric", "image_auroc")
    if len(words.overrides) != 2:
        words._refuse(
            f"adbench compare takes two rows, got {len(words.overrides)}; --help shows how they are named"
        )
    from ad_bench.report import collect
    from ad_bench.report import compare as comparing
    from ad_bench.report.delimited import write_csv

    board = collect(results, words.config_dirs)
    first, second = words.overrides
    found = comparing.compare(board, results, first, second, datasets.split(",") if datasets else (), metric)
    if path := words.option("--csv"):
        write_csv(Path(path), comparing.comparison_csv(found))
    if "--json" in words.flags:
        print(comparing.comparison_json(found))
    else:
        from rich.console import Console

        comparing.print_comparison(found, Console())
    return DONE


def _no_more(words: Words) -> None:
    if words.overrides:
        words._refuse(f"'{words.overrides[0]}' means nothing here; --help lists what does")


def list_(argv: Sequence[str]) -> int:
    """The catalogue."""
    words = Words(argv, ["--json"], ["--config-dir"])
    from ad_bench import catalogue

    what = words.overrides.pop(0) if words.overrides else ""
    found = None
    if what == "datasets":
        from ad_bench import datacheck

        found = datacheck.finder(words.take("paths.data", ""))
    _no_more(words)
    catalogue.print_list(what, words.config_dirs, "--json" in words.flags, found)
    return DONE


def show(argv: Sequence[str]) -> int:
    """One method or data set in full."""
    words = Words(argv, [], ["--config-dir"])
    from ad_bench import catalogue

    catalogue.print_choice(words.overrides, words.config_dirs)
    return DONE


def data(argv: Sequence[str]) -> int:
    """Is the data there, and whole."""
    words = Words(argv, ["--deep", "--json"], ["--config-dir", "--out"])
    _stoppable()  # what is half unpacked leaves nothing behind
    from ad_bench import datacheck
    from ad_bench.errors import UsageError, closest

    flags, out = words.flags, words.option("--out")
    verbs: dict[str, Callable[[], bool]] = {
        "check": lambda: datacheck.check(overrides, dirs, "--deep" in flags, "--json" in flags),
        "fetch": lambda: datacheck.fetch(overrides, dirs),
        "show": lambda: datacheck.show(overrides, dirs, Path(out) if out else None),
        "prepare": lambda: datacheck.prepare(overrides, dirs),
    }
    known = {"check": {"--deep", "--json"}, "show": {"--out"}}
    verb = words.overrides.pop(0) if words.overrides else ""
    overrides, dirs = words.overrides, words.config_dirs
    if verb not in verbs:
        raise UsageError(f"adbench data {verb}: expected {', '.join(verbs)}.{closest(verb, verbs)}")
    wrong = ({*flags, *words.options} - {"--config-dir"}) - known.get(verb, set())
    if wrong:
        raise UsageError(f"adbench data {verb} has no {', '.join(sorted(wrong))}; --help lists what it has")
    return DONE if verbs[verb]() else SOME_FAILED


def evaluate(argv: Sequence[str]) -> int:
    """Metrics for other programs' anomaly maps."""
    both, truth_only = ["--maps", "--name", "--scores", "--config-dir"], ["--as", "--json", "--normal"]
    words = Words(argv, [], [*both, "--dataset", "--ground-truth", *truth_only])
    from ad_bench.errors import UsageError

    maps, dataset, truth = (words.option(name) for name in ("--maps", "--dataset", "--ground-truth"))
    name, scores = words.option("--name"), words.option("--scores")
    if not maps or bool(dataset) == bool(truth):
        raise UsageError(
            "adbench evaluate needs --maps DIR and one of --dataset NAME and --ground-truth DIR; "
            "--help shows the layouts"
        )
    if dataset:
        for option in truth_only:
            if option in words.options:
                raise UsageError(f"{option} goes with --ground-truth; a data set's records have it all")
        from ad_bench.runner.external import evaluate_external

        evaluate_external(
            Path(maps),
            [f"dataset={dataset}", *words.overrides],
            words.config_dirs,
            name or "external",
            Path(scores) if scores else None,
        )
        return DONE
    if bool(name) != bool(words.option("--as")):
        raise UsageError("--name METHOD and --as DATASET go together: a row needs its name and its data set")
    normal = words.option("--normal")
    folders = [folder for folder in (normal or "").split(",") if folder]
    if normal is not None and not folders:
        raise UsageError("--normal wants the names of folders, as in --normal good,flawless")
    from ad_bench.runner.external import NORMAL_FOLDERS, Row, evaluate_with_truth

    json = words.option("--json")
    evaluate_with_truth(
        Path(maps),
        Path(truth or ""),
        words.overrides,
        words.config_dirs,
        Path(scores) if scores else None,
        folders or NORMAL_FOLDERS,
        Path(json) if json else None,
        Row(name, words.option("--as") or "") if name else None,
    )
    return DONE


def rescore(argv: Sequence[str]) -> int:
    """New metrics for stored maps."""
    words = Words(argv, ["--dry-run"], ["--config-dir"])
    _stoppable()
    for folder in words.config_dirs:
        sys.path.insert(0, str(folder.expanduser().resolve()))  # a user's data set lists its own samples
    from ad_bench.runner.rescore import rescore_records

    failed = rescore_records(words.overrides, words.config_dirs, "--dry-run" in words.flags)
    return SOME_FAILED if failed else DONE


def predict(argv: Sequence[str]) -> int:
    """New images through a saved model."""
    words = Words(argv, ["--maps", "--trust"], ["--out", "--config-dir"])
    _stoppable()
    for folder in words.config_dirs:
        sys.path.insert(0, str(folder.expanduser().resolve()))
    keys = ("threshold", "pixel_threshold", "category", "runtime.device", "runtime.batch_size")
    given = {key: words.take(key, "") for key in keys}
    if len(words.overrides) < 2:
        words._refuse("adbench predict needs RECORD and IMAGES; --help shows both")
    record, *images = map(Path, words.overrides)
    for image in images:
        if "=" in image.name and not image.exists():
            words._refuse(f"'{image}' means nothing here; --help lists what does")
    from ad_bench.runner import predict as predicting

    out = words.option("--out")
    done = predicting.predict_images(
        record,
        images,
        Path(out) if out else None,
        predicting.Wanted.from_words(given, "--maps" in words.flags),
        words.config_dirs,
        "--trust" in words.flags,
    )
    predicting.print_predicted(done)
    return SOME_FAILED if done.problems else DONE


def pretrain(argv: Sequence[str]) -> int:
    """Weights for a backbone."""
    words = Words(argv, [], ["--config-dir"])
    _stoppable()
    if not words.overrides or "=" in words.overrides[0]:
        words._refuse("adbench pretrain wants a recipe first, as in adbench pretrain spd; --help says more")
    from ad_bench.pretrain.recipe import Recipe

    recipe = Recipe.from_words(words.overrides[0], words.overrides[1:], words.config_dirs)
    count = len(recipe.files)  # a wrong folder is answered before torch is looked at
    from ad_bench.pretrain import training

    print(f"{count} images below {recipe.folder}", file=sys.stderr)
    print(f"wrote {training.pretrain(recipe)}")
    return DONE


def results(argv: Sequence[str]) -> int:
    """Records to and from other labs."""
    words = Words(argv, [], ["--with", "--as"])
    _stoppable()  # an import leaves whole cells or nothing
    verb, archive = [*words.overrides[:2], "", ""][:2]
    words.overrides = words.overrides[2:]
    if verb not in ("export", "import") or not archive or "=" in archive:
        words._refuse(f"adbench results {verb}: expected export FILE or import FILE; --help shows both")
    folder, lab = Path(words.take("paths.results", "results")), words.option("--as")
    from ad_bench import sharing

    if verb == "import":
        if "--with" in words.options:
            words._refuse("--with goes with export; an import takes all that an archive holds")
        _no_more(words)
        return (
            SOME_FAILED if sharing.print_merged(sharing.import_records(Path(archive), folder, lab)) else DONE
        )
    select = {key: [name for name in words.take(key, "").split(",") if name] for key in sharing.SELECT}
    _no_more(words)
    chosen = {key: names for key, names in select.items() if names}
    extras = words.options.get("--with", [])
    sharing.print_packed(archive, sharing.export_records(Path(archive), folder, chosen, extras, lab))
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
    "status": (status, STATUS_HELP),
    "report": (report, REPORT_HELP),
    "compare": (compare, COMPARE_HELP),
    "list": (list_, LIST_HELP),
    "show": (show, SHOW_HELP),
    "data": (data, DATA_HELP),
    "evaluate": (evaluate, EVALUATE_HELP),
    "rescore": (rescore, RESCORE_HELP),
    "predict": (predict, PREDICT_HELP),
    "pretrain": (pretrain, PRETRAIN_HELP),
    "results": (results, RESULTS_HELP),
    "clean": (clean, CLEAN_HELP),
    "doctor": (doctor, DOCTOR_HELP),
}

if __name__ == "__main__":
    sys.exit(main())
