"""Who may import whom (CONTRIBUTING, "Layers"), and what must never be imported at module level."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ad_bench"

# A unit is a module or a folder directly below ad_bench; `errors` and ad_bench itself are for all.
# `parts.weights` and `parts.augmentation` are units of their own: they say where weights are, and which
# copies of a support there are, without torch, so that a plan may ask them.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "samples": set(),
    "draws": set(),
    "geometry": set(),
    "heat": set(),
    "heatmaps": {"heat"},
    "reference": set(),
    "config": set(),
    "processes": set(),
    "records": {"processes"},
    "running": {"processes", "records"},
    "parts.augmentation": set(),
    "parts.weights": set(),
    "datasets": {"samples", "geometry", "draws", "heatmaps", "processes"},
    "protocols": {"samples", "draws"},
    "contract": {"samples"},
    "parts": {"contract", "parts.augmentation", "parts.weights"},
    "methods": {"contract", "parts", "parts.augmentation"},
    "metrics": {"contract"},
    "external": {"samples"},
    "groundtruth": {"datasets", "external", "samples"},
    "catalogue": {"config", "metrics", "records", "reference"},
    "runner": {
        "config",
        "contract",
        "datasets",
        "external",
        "foreign",
        "geometry",
        "groundtruth",
        "heat",
        "heatmaps",
        "metrics",
        "parts.augmentation",
        "parts.weights",
        "processes",
        "records",
        "reference",
        "running",
        "samples",
    },
    "report": {"config", "heat", "metrics", "records", "reference"},
    "pretrain": {"config", "datasets", "parts", "processes", "runner"},
    "foreign": {"records"},
    "sharing": {"datasets", "foreign", "records", "report"},
    "datacheck": {"config", "datasets", "geometry", "runner", "samples"},
    "doctor": {"catalogue", "config", "datasets", "parts.weights", "runner"},
    "cli": {
        "catalogue",
        "config",
        "datacheck",
        "doctor",
        "pretrain",
        "records",
        "report",
        "runner",
        "sharing",
    },
    "hydra_app": {"config", "runner"},
    "__main__": {"cli"},
}
# Modules of these folders do not even import each other: whatever two of them share lives one layer below.
STRANGERS = {"methods"}
HEAVY = {"torch", "torchvision", "timm", "pandas", "sklearn", "scipy", "faiss"}
LIGHT = {
    "__main__",
    "catalogue",
    "cli",
    "config",
    "datasets",
    "draws",
    "errors",
    "external",
    "foreign",
    "geometry",
    "groundtruth",
    "heat",
    "heatmaps",
    "parts.augmentation",
    "parts.weights",
    "processes",
    "protocols",
    "records",
    "reference",
    "running",
    "samples",
    "sharing",
}

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`ad_bench.parts.maps`; a package goes by its folder."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def unit_of(module: str) -> str:
    """The unit of MAY_IMPORT that a module of ad_bench belongs to; "" for the package itself."""
    inside = module.removeprefix("ad_bench").removeprefix(".")
    return inside if inside in MAY_IMPORT else inside.partition(".")[0]


def imported(path: Path, module_level: bool = False) -> Iterator[str]:
    """Full names of the imported modules, those inside functions too unless `module_level`."""
    known = {name_of(file) for file in FILES}
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else str(node.module) for name in whole)
        if module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if module_level and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        waiting += ast.iter_child_nodes(node)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_follow_the_layers(path: Path) -> None:
    module = name_of(path)
    unit = unit_of(module)
    assert not unit or unit in MAY_IMPORT, f"{path} is a new unit: say in MAY_IMPORT whom it may import"
    for target in {name for name in imported(path) if name.partition(".")[0] == "ad_bench"}:
        other = unit_of(target)
        if other in ("", "errors") or target == module:
            continue
        if other == unit:
            assert unit not in STRANGERS, f"{module} imports {target}: move what they share into a part"
        else:
            assert other in MAY_IMPORT[unit], f"{module} imports {target}: no arrow from {unit} to {other}"


@pytest.mark.parametrize("path", [f for f in FILES if unit_of(name_of(f)) in LIGHT | {""}], ids=name_of)
def test_nothing_heavy_at_module_level(path: Path) -> None:
    heavy = {name for name in imported(path, module_level=True) if name.partition(".")[0] in HEAVY}
    assert not heavy, f"{path} imports {sorted(heavy)} at module level: import where the work starts"


def test_the_rules_see_a_wrong_arrow(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import torch\ndef f():\n    from ad_bench.methods import padim\n    import ad_bench.cli\n"
    )
    assert sorted(imported(wrong)) == ["ad_bench.cli", "ad_bench.methods.padim", "torch"]
    assert list(imported(wrong, module_level=True)) == ["torch"]
    assert unit_of("ad_bench.methods.padim") == "methods"
    assert unit_of("ad_bench.parts.weights") == "parts.weights"
    assert unit_of("ad_bench.parts.maps") == "parts"
