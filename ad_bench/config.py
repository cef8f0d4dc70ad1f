"""From the words of a command line to composed configurations: Hydra's groups, sweeps, names checked.

Imports Hydra only; a misspelt name is answered before torch would even be looked at.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ad_bench.errors import UsageError, closest

BACKBONE = "ad_bench.parts.backbone.Backbone"
GROUPS = ("method", "dataset", "protocol", "metric", "backbone", "runtime", "launch", "paths")
# What Hydra adds for programs that it starts itself: a quarter of the time of a composition, and never read.
WITHOUT = tuple(
    f"~hydra/{name}"
    for name in (
        *("output", "launcher", "sweeper", "help", "hydra_help"),
        *("hydra_logging", "job_logging", "env"),
    )
)
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")  # of runtime.precision
# What names no variant: where things lie, how fast they run, which cells of a table are meant.
NO_VARIANT = (
    *(
        "category",
        "seed",
        "rerun",
        "variant",
        "save",
        "store",
        "metric",
        "runtime",
        "launch",
        "paths",
        "protocol",
        "suite",
    ),
    *("dataset.root", "dataset.id"),
)


class SeveralBackbones(UsageError):
    """One backbone is asked for where a method has several."""


@dataclass(frozen=True)
class Choice:
    """One composed (method, data set, protocol): what the planner expands into cells."""

    config: DictConfig
    method: str
    dataset: str
    protocol: str
    variant: str
    categories: tuple[str, ...]  # empty: all that the disk has
    seeds: tuple[int, ...]
    settings: tuple[str, ...] = ()  # what differs from the method's YAML, whatever the variant is called
    words: tuple[str, ...] = ()  # the overrides that compose it again, without category and seed


def conf_dir() -> Path:
    """The folder of the YAML files: inside the wheel, or at the root of a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UsageError(
        f"no conf/ beside or inside {package}: the installation is damaged, install adbench again"
    )


def options(group: str, config_dirs: Sequence[Path] = ()) -> dict[str, Path]:
    """Names of a config group and their files, the user's folders first."""
    found: dict[str, Path] = {}
    for folder in (*config_dirs, conf_dir()):
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def choices(
    overrides: Sequence[str], config_dirs: Sequence[Path] = (), multirun: bool = False
) -> list[Choice]:
    """Every combination that the overrides name, composed.

    Commas in `category` and `seed` always make cells; elsewhere they sweep, which needs `multirun`.
    `suite=NAME` stands for the runs that conf/suite/NAME.yaml lists; `method=` and `dataset=` choose among
    them, and methods of several backbones are left out, and named, where one is asked for. Raises UsageError.
    """
    config_dirs = [_config_dir(folder) for folder in config_dirs]
    words, suite = _take(overrides, "suite")
    if suite is not None:
        words, method = _take(words, "method")
        words, dataset = _take(words, "dataset")
        runs = _suite_runs(suite, config_dirs)
        for key, named in (("method", method), ("dataset", dataset)):
            runs = _chosen(runs, suite, key, named)
        return _of_suite(suite, [[*run, *words] for run in runs], config_dirs)
    words, category = _take(words, "category")
    words, seed = _take(words, "seed")
    categories = () if category is None else tuple(filter(None, _listed(category)))
    if categories == ("all",):
        categories = ()
    seeds = _seeds(seed)
    composed = (
        _compose_choice(combination, config_dirs) for combination in _sweep(words, config_dirs, multirun)
    )
    return [replace(choice, categories=categories, seeds=seeds) for choice in composed]


def _of_suite(suite: str, runs: Sequence[list[str]], config_dirs: Sequence[Path]) -> list[Choice]:
    found: list[Choice] = []
    left_out: dict[str, SeveralBackbones] = {}
    for run in runs:
        try:
            found += choices(run, config_dirs, multirun=True)
        except SeveralBackbones as error:
            left_out[_take(run, "method")[1] or ""] = error
    if left_out and not found:
        raise next(iter(left_out.values()))
    if left_out:
        names = ", ".join(left_out)
        _remark(f"suite={suite} without {names}: they have several backbones, which no single one replaces")
    return found


@cache
def _remark(text: str) -> None:
    """Said once, also where a command plans again and again."""
    print(f"adbench: {text}", file=sys.stderr)


def _config_dir(folder: Path) -> Path:
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise UsageError(
            f"--config-dir {folder} is no folder; it should hold method/ or dataset/ with YAML files"
        )
    return folder


def _take(overrides: Sequence[str], key: str) -> tuple[list[str], str | None]:
    """Split off `key=...`; the last one wins, as for every override."""
    rest = [word for word in overrides if not word.startswith(f"{key}=")]
    values = [word.split("=", 1)[1] for word in overrides if word.startswith(f"{key}=")]
    return rest, values[-1] if values else None


def _listed(text: str) -> list[str]:
    """`a,b` or `[a,b]` as names; kept as text, since category '01' is no number."""
    return [part.strip().strip("'\"") for part in text.strip().removeprefix("[").removesuffix("]").split(",")]


def _seeds(text: str | None) -> tuple[int, ...]:
    if text is None:
        return (0,)
    span = re.fullmatch(r"range\((-?\d+),\s*(\d+)\)", text)
    try:
        seeds = list(range(int(span[1]), int(span[2]))) if span else [int(part) for part in _listed(text)]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise UsageError(f"seed={text}: expected whole numbers from 0, such as seed=0 or seed=0,1,2")
    return tuple(dict.fromkeys(seeds))


def _suite_runs(name: str, config_dirs: Sequence[Path]) -> list[list[str]]:
    known = options("suite", config_dirs)
    if name not in known:
        raise UsageError(f"no suite '{name}'.{closest(name, known, 'Known: ' + ', '.join(known))}")
    runs: list[list[str]] = []
    content: Any = OmegaConf.to_container(OmegaConf.load(known[name]))
    shared = content.get("overrides", [])  # a run's own come after, so they win
    for run in content["runs"]:
        methods = _suite_methods(run, config_dirs)
        runs += [
            [f"method={method}", f"dataset={dataset}", *shared, *run.get("overrides", [])]
            for dataset in run["dataset"]
            for method in methods
        ]
    return runs


def _suite_methods(run: Mapping[str, Any], config_dirs: Sequence[Path]) -> Sequence[str]:
    """`method`: those listed, or all; `taxonomy` in its place: all of those families, a user's own too.

    A YAML with `suites: named` joins where it is listed alone: it waits for weights that nobody published.
    """
    if "taxonomy" not in run and run["method"] != "all":
        return run["method"]
    known = [
        name for name in options("method", config_dirs) if _stated(name, "suites", config_dirs) != "named"
    ]
    if "taxonomy" not in run:
        return known
    return [name for name in known if _stated(name, "taxonomy", config_dirs) in run["taxonomy"]]


def _chosen(runs: list[list[str]], suite: str, key: str, named: str | None) -> list[list[str]]:
    """The runs of a suite whose method or data set is among those named."""
    if named is None:
        return runs
    there = {_take(run, key)[1] or "" for run in runs}
    for name in _listed(named):
        if name not in there:
            hint = closest(name, sorted(there), f"It has: {', '.join(sorted(there))}")
            raise UsageError(f"suite '{suite}' has no {key}={name}.{hint}")
    return [run for run in runs if _take(run, key)[1] in _listed(named)]


def _sweep(words: Sequence[str], config_dirs: Sequence[Path], multirun: bool) -> list[list[str]]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    axes: list[list[str]] = []
    for word in words:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException as error:
            first = str(error).splitlines()[0]
            raise UsageError(
                f"cannot read '{word}': expected key=value, such as method=patchcore ({first})"
            ) from error
        if not override.is_sweep_override():
            axes.append([word])
            continue
        key = override.get_key_element()
        value = override.value()
        if isinstance(value, Glob):
            names = value.filter(list(options(key, config_dirs)))
            axes.append([f"{key}={name}" for name in names])
            if not names:
                raise UsageError(f"{word} fits none of: {', '.join(options(key, config_dirs))}")
        else:
            axes.append([f"{key}={text}" for text in override.sweep_string_iterator()])
        if not multirun:
            raise UsageError(
                f"'{word}' names several values: add -m to sweep over them (category and seed need no -m)"
            )
    return [list(combination) for combination in itertools.product(*axes)]


def compose(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> DictConfig:
    """One composed configuration, the `backbone` group applied to the method; raises UsageError."""
    return _compose_choice(overrides, [_config_dir(folder) for folder in config_dirs]).config


def _compose_choice(overrides: Sequence[str], config_dirs: Sequence[Path]) -> Choice:
    words = [
        f"{w.removesuffix('null')}own" if w in ("protocol=null", "backbone=null") else w for w in overrides
    ]
    _check_names(words, config_dirs)
    config, chosen, words = _with_protocol(words, config_dirs)
    _refuse_what_has_no_effect(words, config)
    if config.runtime.quick:
        _take_bundled(config, config_dirs)
    replace_backbone(config, words)
    if config.runtime.quick:
        _merge_model(config, OmegaConf.select(config.method, "contract.model"), words)
    OmegaConf.set_struct(config, True)
    OmegaConf.set_readonly(config, True)
    changed = changes(_effective(words, config))
    return Choice(
        config=config,
        method=chosen["method"],
        dataset=str(config.dataset.id),
        protocol=protocol_label(config.protocol),
        variant=str(config.variant) if config.variant is not None else ",".join(changed),
        categories=(),
        seeds=(0,),
        settings=tuple(changed),
        words=tuple(overrides),
    )


def _with_protocol(
    words: list[str], config_dirs: Sequence[Path]
) -> tuple[DictConfig, Mapping[str, str], list[str]]:
    """The configuration, the chosen names, and the words with the method's own protocol where none is named.

    A composition takes 50 ms: the second is only for a protocol that the method's file does not plainly name.
    """
    given = any(re.match(r"\W*(protocol|method\.protocol)\b", word) for word in words)
    if not given:
        words = [*words, f"protocol={_plainly_named(words, config_dirs)}"]
        _check_names(words, config_dirs)
    config, chosen = _hydra(words, config_dirs)
    _require_keys(config, chosen, config_dirs)
    own = config.method.get("protocol", "full")
    if chosen["protocol"] == "own" or not (given or chosen["protocol"] == own):
        words = [*words, f"protocol={own}"]
        _check_names(words, config_dirs)
        config, chosen = _hydra(words, config_dirs)
    return config, chosen, words


def _plainly_named(words: Sequence[str], config_dirs: Sequence[Path]) -> str:
    """The protocol in the method's own file; one that it takes over from another file is not seen."""
    return _stated(_take(words, "method")[1] or "", "protocol", config_dirs) or "full"


def _stated(method: str, key: str, config_dirs: Sequence[Path]) -> str | None:
    """A word that the method's own file states at its top level, read without composing anything."""
    path = options("method", config_dirs).get(method)
    found = re.search(rf"^{key}: *(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE) if path else None
    return found[1] if found else None


def _take_bundled(config: DictConfig, config_dirs: Sequence[Path]) -> None:
    """The bundled backbone where the user names none, so that a debug run waits for no download."""
    nodes, wanted = backbones(config.method.model), config.backbone
    if wanted.name is not None or wanted.weights is not None or any(node.weights for node in nodes):
        return
    OmegaConf.set_struct(config, False)
    config.backbone = OmegaConf.merge(wanted, OmegaConf.load(options("backbone", config_dirs)["bundled"]))


def _merge_model(config: DictConfig, settings: Any, words: Sequence[str]) -> None:
    """What the YAML has for a backbone or for debug runs goes into the model; what the user set stays."""
    if not settings:
        return
    before = config.method.model
    config.method.model = OmegaConf.merge(before, settings)
    for word in words:
        key = word.lstrip("+").partition("=")[0]
        if key.startswith("method.model."):
            key = key.removeprefix("method.model.")
            OmegaConf.update(config.method.model, key, OmegaConf.select(before, key), merge=False)


def _refuse_what_has_no_effect(words: Sequence[str], config: DictConfig) -> None:
    """A row must not be named after a setting that nothing reads."""
    given = config.dataset.get("input")
    ignored = [word for word in words if re.match(r"\+*method\.input\b", word)]
    if given and ignored:
        raise UsageError(
            f"{ignored[0]} has no effect: data set '{config.dataset.id}' sets the input of every method, "
            f"{OmegaConf.to_container(given)}. Set dataset.input={{size: ...}} instead, or "
            "dataset.input=null to let the method's stand"
        )


def protocol_label(protocol: DictConfig) -> str:
    """The YAML's `label`, and those settings of `named` that are not what stands there: noisy-0.1-overlap."""
    plain: Any = OmegaConf.to_container(protocol, resolve=True)
    parts = [str(plain["label"])]
    for key, usual in (plain.get("named") or {}).items():
        value = plain[key]
        if value != usual:
            text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
            parts.append(str(key) if value is True else f"{key}={text}")
    return "-".join(parts)


# What the YAML of each group must hold; the rest has a meaning when absent.
REQUIRED = {
    "method": ("model", "input", "needs", "loader"),
    "dataset": ("id", "samples", "categories", "root"),
}


def _require_keys(config: DictConfig, chosen: Mapping[str, str], config_dirs: Sequence[Path]) -> None:
    for group, keys in REQUIRED.items():
        absent = [key for key in keys if key not in (config.get(group) or {})]
        if absent:
            path = options(group, config_dirs)[chosen[group]]
            raise UsageError(
                f"{path} lacks {', '.join(absent)}: a {group} needs {', '.join(keys)}; see CONTRIBUTING.md"
            )


def _check_names(words: Sequence[str], config_dirs: Sequence[Path]) -> None:
    if not any(re.match(r"method=.", word) for word in words):
        known = ", ".join(options("method", config_dirs))
        raise UsageError(f"which method? Add method=NAME; known: {known}")
    for word in words:
        key, _, name = word.partition("=")
        key = key.partition("@")[0]  # dataset@protocol.source: a second one
        if key in GROUPS and name not in (there := options(key, config_dirs)):
            raise UsageError(f"no {key} '{name}'.{closest(name, there, 'Known: ' + ', '.join(there))}")


def _hydra(words: Sequence[str], config_dirs: Sequence[Path]) -> tuple[DictConfig, Mapping[str, str]]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    words, replaced = _take_mappings(words)
    search = (
        [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in config_dirs)}]"]
        if config_dirs
        else []
    )
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = hydra_compose("config", [*words, *search, *WITHOUT], return_hydra_config=True)
            chosen = {k: str(v) for k, v in config.hydra.runtime.choices.items()}
            OmegaConf.set_struct(config, False)
            config.pop("hydra")
            _let_source_mean_itself(config)
            for key, value in replaced.items():
                if OmegaConf.select(config, key, default=KeyError) is KeyError:
                    raise UsageError(f"no setting '{key}'.{closest(key, _keys(config))}")
                OmegaConf.update(config, key, value, merge=False)
            _resolve(config)
            OmegaConf.set_struct(config, True)
            return config, chosen
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_explain(error, words, config_dirs)) from error


def _let_source_mean_itself(config: DictConfig) -> None:
    """A data set's YAML says `${dataset.id}` of itself; below protocol.source that is the source."""

    def moved(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: moved(value) for key, value in node.items()}
        if isinstance(node, list):
            return [moved(value) for value in node]
        return node.replace("${dataset.", "${protocol.source.") if isinstance(node, str) else node

    if OmegaConf.is_dict(config.protocol.get("source")):
        config.protocol.source = moved(OmegaConf.to_container(config.protocol.source, resolve=False))


def _take_mappings(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Split off `key={...}`: a mapping replaces what stands there, where Hydra would merge into it.

    `method.input={size: 256}` means that and no crop.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    rest, mappings = [], {}
    for word in words:
        override = OverridesParser.create().parse_override(word)
        if not override.is_add() and not override.is_delete() and isinstance(override.value(), dict):
            mappings[override.key_or_group] = OmegaConf.create(_plain(override.value()))
        else:
            rest.append(word)
    return rest, mappings


def _plain(value: Any) -> Any:
    """Hydra's parsed value with its quoted strings as plain ones."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return (
        value
        if value is None or isinstance(value, bool | int | float)
        else getattr(value, "text", str(value))
    )


def _resolve(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UsageError(f"{missing[0]} has no value: add {missing[0]}=... (adbench show explains it)")


def _explain(error: Exception, words: Sequence[str], config_dirs: Sequence[Path]) -> str:
    """Hydra's message, with the closest key where one is unknown."""
    text = str(error).strip()
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", text
    )
    if not unknown:
        return text.splitlines()[0] if text else type(error).__name__
    groups = [word for word in words if word.partition("=")[0] in GROUPS]
    keys = _keys(_hydra(groups, config_dirs)[0])
    key = unknown[1]
    last = key.rpartition(".")[2]
    near = [name for name in keys if name.rpartition(".")[2] == last]
    known_below = [
        name.rpartition(".")[2] for name in keys if name.rpartition(".")[0] == key.rpartition(".")[0]
    ]
    hint = f" Did you mean {' or '.join(near)}?" if near else closest(key, keys)
    if not hint and known_below:
        hint = f" There are: {', '.join(known_below)}"
    return f"no setting '{key}'.{hint} (+{key}=... adds one that is new)"


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    names = []
    for key, value in config.items_ex(resolve=False):
        name = f"{prefix}{key!s}"
        names.append(name)
        if isinstance(value, DictConfig):
            names += _keys(value, f"{name}.")
    return names


def _effective(words: Sequence[str], config: DictConfig) -> list[str]:
    """The words that change this method: `backbone=` does nothing to one that has none."""
    same = [] if config.backbone.paper else [r"backbone[.=]"]
    if precision(config) == "float32":
        same.append(r"\W*runtime\.precision=")
    return [word for word in words if not any(re.match(pattern, word) for pattern in same)]


def changes(words: Sequence[str]) -> list[str]:
    """The overrides that make a method differ from its YAML, as backbone=resnet18, coreset_ratio=0.01."""
    parts: dict[str, str] = {}
    own_data = any(word.startswith("dataset.id=") for word in words)
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        if key in ("method", "dataset", "dataset@protocol.source"):
            continue
        if key != "runtime.precision" and any(key == k or key.startswith(f"{k}.") for k in NO_VARIANT):
            continue
        if (key == "backbone" and value == "own") or (key == "backbone.weights" and "/" in value):
            continue  # a path is where the weights lie on one machine; the record holds their hash
        if own_data and key.startswith("dataset.samples."):
            continue  # where a data set with a name of its own keeps its images
        for prefix in ("method.model.", "method.", "runtime."):
            key = key.removeprefix(prefix)
        parts[key] = value
    return [f"{key}={value}" for key, value in sorted(parts.items())]


def precision(config: DictConfig) -> str:
    """What the run's networks compute in: one of PRECISIONS. Raises UsageError for another word.

    Half precision is that of pretrained backbones: a method without one computes in float32.
    """
    wanted = str(OmegaConf.select(config, "runtime.precision") or "float32")
    if wanted not in PRECISIONS:
        raise UsageError(
            f"runtime.precision={wanted}: expected {', '.join(PRECISIONS)}.{closest(wanted, PRECISIONS)}"
        )
    return wanted if wanted == "tf32" or OmegaConf.select(config, "backbone.paper") else "float32"


def backbones(model: Any) -> list[DictConfig]:
    """The backbone nodes inside a method's `model`."""
    found = []
    if isinstance(model, DictConfig):
        if model.get("_target_") == BACKBONE:
            return [model]
        for value in model.values():
            found += backbones(value)
    elif OmegaConf.is_list(model):
        for value in model:
            found += backbones(value)
    return found


def replace_backbone(config: DictConfig, words: Sequence[str] = ()) -> None:
    """Apply the `backbone` group to the method: its network, and what the method's YAML says depends on it.

    words: the user's, which win over the YAML. Without a name only the weights are replaced. Methods without
    a backbone stay as they are. Raises UsageError where a method has several: its point is that they differ,
    but in a debug run one network stands in for all.
    """
    wanted, nodes = config.backbone, backbones(config.method.get("model"))
    OmegaConf.set_struct(config, False)
    wanted.paper = sorted({node.name for node in nodes})  # the method's own, for the record's marks
    if not nodes or (wanted.name is None and wanted.weights is None):
        return
    if len(nodes) > 1 and wanted.name is not None and not config.runtime.quick:
        raise SeveralBackbones(
            f"this method has {len(nodes)} backbones; set them one by one (adbench show lists them)"
        )
    for node in nodes:
        node.weights = wanted.weights
        if wanted.name is not None:
            node.name = wanted.name
    if wanted.name is not None:
        depends = config.method.get("backbones") or {}
        settings = depends.get(wanted.name.partition(".")[0], {})
        _merge_model(config, settings, words)
