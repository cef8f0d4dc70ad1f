"""A folder of masks and the maps that belong to it: the truth of data that is no data set of ours.

Three layouts, as the evaluation codes of MVTec expect them, and the plainest one:
  - mvtec: [<category>/][ground_truth/]<defect>/<stem>_mask.png or <stem>.png, with the map
    [<category>/][test/]<defect>/<stem>.tiff (Bergmann et al., IJCV 2021);
  - loco: [<category>/][ground_truth/]<structural_anomalies or logical_anomalies>/<stem>/*.png, one PNG for
    each defect, whose grey value stands in [<category>/]defects_config.json (Bergmann et al., IJCV 2022);
  - flat:  <name>.png, the map <name>.npy; a black mask says that the image is normal.
`match` finds what belongs together and opens no image; `read_truth` then reads one category.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ad_bench.datasets.files import IMAGE_SUFFIXES, described
from ad_bench.datasets.folder import MASK_FOLDERS
from ad_bench.datasets.images import mask_values
from ad_bench.datasets.masks import LOCO_CONFIG, Defects, channel, grey_values, saturations, union
from ad_bench.errors import DataError, UsageError, closest
from ad_bench.external import SUFFIXES, files_below
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample, mask_files

NORMAL_FOLDERS = ("good", "normal", "ok")
LOCO_FOLDERS = ("structural_anomalies", "logical_anomalies")
TRUTH_FOLDER, TEST_FOLDER = "ground_truth", "test"


@dataclass(frozen=True)
class Matched:
    """One category: its maps by name, each with its sample, whose `image` is the map. Nothing is read yet."""

    category: str
    layout: str  # mvtec, loco or flat
    home: Path  # the folder that holds the masks
    maps: tuple[str, ...]  # names among the maps, in order
    samples: tuple[Sample, ...]  # likewise; in the flat layout a black mask makes a sample normal later


@dataclass(frozen=True)
class Truth:
    """What is true of one category's images, in the order of its maps.

    masks: (H, W) bool; None for a normal image, whose size is not known. defects: of the loco layout, a list
    for each anomalous image and None for the others; None in place of all in the other layouts.
    """

    samples: tuple[Sample, ...]
    masks: list[NDArray[np.bool_] | None]
    defects: list[Defects | None] | None = None
    warnings: list[str] = field(default_factory=list)


def match(
    root: Path,
    where: Path,
    names: Iterable[str],
    normal: Collection[str] = NORMAL_FOLDERS,
    categories: Sequence[str] = (),
) -> list[Matched]:
    """Every map with its masks, by category; `categories` limits what is looked at, else all must fit.

    root: the folder of masks, of one category or of several, or a data set's root with ground_truth folders.
    where, names: the folder or archive of the maps, and their names in it (`external.find_maps`).
    normal: folders of normal images in any case, for maps without a mask.
    Raises DataError for a map without a mask, a mask without a map, two of either for one image.
    """
    root, where = Path(root), Path(where)
    masks, maps = _aligned(root, where, _masks(root), _maps(where, names))
    return [
        _matched(category or _own_name(root), masks[category], maps[category], where, normal)
        for category in _chosen(root, masks, maps, categories)
    ]


def read_truth(matched: Matched) -> Truth:
    """Samples with their labels, masks and, in the loco layout, defects; opens every mask of the category.

    A mask holds 0 and 1 or 0 and white; in the loco layout any one grey value that defects_config.json names.
    Raises DataError, naming the file, for other values and for what is no image.
    """
    loco = matched.layout == "loco"
    config = _config_path(matched.home)
    known = saturations(config) if loco else {}
    samples: list[Sample] = []
    masks: list[NDArray[np.bool_] | None] = []
    defects: list[Defects | None] = []
    empty = []
    for sample in matched.samples:
        mask, channels, paths = None, None, mask_files(sample.mask)
        if paths and loco and sample.label == ANOMALOUS:
            channels = [channel(path, known, config) for path in paths]
            mask = union(paths, channels)
        elif paths:
            path = paths[0]
            mask = _binary(path)
            if sample.name.count("/") == 1 and not mask.any():  # in no folder of its own, so the mask decides
                sample = replace(sample, label=NORMAL, defect="good")
            if sample.label == NORMAL and mask.any():
                raise DataError(
                    f"the mask {path} has {int(mask.sum())} defect pixels, but its map lies in a folder of "
                    "normal images; move both to a folder of defects, or say with --normal what is normal"
                )
            if sample.label == ANOMALOUS and not mask.any():
                empty.append(sample.name)
        samples.append(sample)
        masks.append(mask)
        defects.append(channels)
    warnings = []
    if empty:
        warnings.append(f"{len(empty)} anomalous image(s) have an empty mask, first {empty[0]}")
    return Truth(tuple(samples), masks, defects if loco else None, warnings)


# --- which files there are, by category: None where the folder is that of a single one

_Key = tuple[str, ...]  # (defect, stem), or (stem,) in no folder
_Maps = dict[_Key, str]


@dataclass
class _Mask:
    """The mask of one image: a file, or in the loco layout the files of one folder."""

    paths: list[Path]
    loco: bool
    used: bool = False

    def __str__(self) -> str:
        return str(self.paths[0].parent if self.loco else self.paths[0])


@dataclass
class _Masks:
    """Those of one category; several of one key differ in their suffix."""

    home: Path
    by_key: dict[_Key, list[_Mask]] = field(default_factory=dict)


def _homes(root: Path) -> list[tuple[str | None, Path]]:
    """Where the masks are: in ground_truth, in that of each category, or in `root` itself."""
    if not root.is_dir():
        raise DataError(f"no folder {root}: --ground-truth wants the folder with the masks")
    if (root / TRUTH_FOLDER).is_dir():
        return [(None, root / TRUTH_FOLDER)]
    inside = sorted(p for p in root.iterdir() if not p.name.startswith(".") and p.is_dir())
    found: list[tuple[str | None, Path]] = [
        (p.name, p / TRUTH_FOLDER) for p in inside if (p / TRUTH_FOLDER).is_dir()
    ]
    images = [p for p in (root, *inside) for name in ("train", TEST_FOLDER) if (p / name).is_dir()]
    if not found and images:
        raise DataError(
            f"{images[0]} holds images but no {TRUTH_FOLDER}; --ground-truth wants the folder with the masks"
        )
    return found or [(None, root)]


def _masks(root: Path) -> dict[str | None, _Masks]:
    found: dict[str | None, _Masks] = {}
    examples: dict[bool, Path] = {}
    for named, home in _homes(root):
        for name in files_below(home, IMAGE_SUFFIXES):
            *folders, file = PurePosixPath(name).parts
            loco = len(folders) >= 2 and folders[-2] in LOCO_FOLDERS
            key = tuple(folders[-2:]) if loco else (*folders[-1:], _stem(file))
            above = folders[:-2] if loco else folders[:-1]
            if len(above) > (1 if home == root else 0):
                raise DataError(
                    f"the mask {home / name} lies too deep; wanted [<category>/][{TRUTH_FOLDER}/]<defect>/"
                    f"<stem>_mask.png, or for MVTec LOCO {' or '.join(LOCO_FOLDERS)}/<stem>/000.png"
                )
            category = above[0] if above else named
            examples.setdefault(bool(above), home / name)
            masks = found.setdefault(category, _Masks(home.joinpath(*above)))
            entries = masks.by_key.setdefault(key, [])
            channels = next((mask for mask in entries if mask.loco), None) if loco else None
            if channels:
                channels.paths.append(home / name)
            else:
                entries.append(_Mask([home / name], loco))
    if not found:
        raise DataError(
            f"no masks in {root} ({described(root)}); --ground-truth wants <defect>/<stem>_mask.png below it"
        )
    if len(examples) > 1:
        raise DataError(
            f"{root} mixes layouts: {examples[True]} looks like <category>/<defect>/<stem>, and "
            f"{examples[False]} like a single category; point --ground-truth at one of them"
        )
    return found


def _maps(where: Path, names: Iterable[str]) -> dict[str | None, _Maps]:
    found: dict[str | None, _Maps] = {}
    for name in names:
        *folders, file = PurePosixPath(name).parts
        category: str | None = None
        if TEST_FOLDER in folders[:2]:
            at = folders.index(TEST_FOLDER)
            category, folders = (folders[0] if at else None), folders[at + 1 :]
        elif len(folders) >= 2:
            category, *folders = folders
        other = found.setdefault(category, {}).setdefault((*folders, _stem(file)), name)
        if other != name:
            raise DataError(f"{where} has two maps for one image: {other} and {name}; remove one of them")
    if not found:
        raise DataError(f"no maps in {where}; wanted files that end in {', '.join(SUFFIXES)}")
    if None in found and len(found) > 1:
        deep = next(maps for category, maps in found.items() if category is not None)
        raise DataError(
            f"{where} mixes layouts: {_first(deep)} looks like <category>/<defect>/<stem>, "
            f"and {_first(found[None])} like a single category; point --maps at one of them"
        )
    return found


def _aligned(
    root: Path, where: Path, masks: dict[str | None, _Masks], maps: dict[str | None, _Maps]
) -> tuple[dict[str | None, _Masks], dict[str | None, _Maps]]:
    """Both with categories or both without; where one side is a single category its folder says which."""
    if (None in masks) == (None in maps):
        return masks, maps
    place = where.absolute()
    if None in masks:
        name, others, option, folder = _own_name(root), [*map(str, maps)], "--maps", where
    else:
        name = (place.parent if place.name == TEST_FOLDER or place.is_file() else place).name
        others, option, folder = [*map(str, masks)], "--ground-truth", root
    if name not in others:
        raise DataError(
            f"{folder} holds the categories {', '.join(others)}, and the other side a single one, "
            f"'{name}'; point {option} at the folder of that category"
        )
    if None in masks:
        return {name: masks[None]}, {name: maps[name]}
    return {name: masks[name]}, {name: maps[None]}


def _chosen(
    root: Path,
    masks: Mapping[str | None, _Masks],
    maps: Mapping[str | None, _Maps],
    categories: Sequence[str],
) -> list[str | None]:
    known = {category or _own_name(root): category for category in sorted({*masks, *maps}, key=str)}
    for name in categories:
        if name not in known:
            hint = f"There are: {', '.join(known)}."
            raise UsageError(f"no category '{name}'.{closest(name, known, hint)}")
    chosen = [known[name] for name in dict.fromkeys(categories)] or list(known.values())
    for category in chosen:
        if category not in masks:
            raise DataError(
                f"the maps have a category '{category}' ({_first(maps[category])}), of which {root} has no "
                "masks; add them, or name those to score with category=a,b"
            )
        if category not in maps:
            raise DataError(
                f"{root} has masks of '{category}', but there are no maps of it; write them, or name the "
                "categories to score with category=a,b"
            )
    return chosen


def _matched(category: str, masks: _Masks, maps: _Maps, where: Path, normal: Collection[str]) -> Matched:
    loco = any(mask.loco for entries in masks.by_key.values() for mask in entries)
    flat = all(len(key) == 1 for key in masks.by_key)
    found: dict[_Key, _Mask] = {}
    # Exact names first: a map that is itself called 000_mask owns 000_mask.png.
    for ending in ("", "_mask"):
        for key in maps:
            wanted = (*key[:-1], key[-1] + ending)
            if key not in found and wanted in masks.by_key:
                found[key] = masks.by_key[wanted][0]
                found[key].used = True
    _refuse_unused(masks, maps, found, where)
    folders = {name.casefold() for name in normal}
    samples: list[Sample] = []
    missing: list[_Key] = []
    for key, name in maps.items():
        mask, folder = found.get(key), key[-2] if len(key) > 1 else ""
        is_normal = folder.casefold() in folders
        if mask is None and not is_normal:
            missing.append(key)
        if loco and mask is not None and not mask.loco and not is_normal:
            raise DataError(
                f"{mask} is a single mask among those of the MVTec LOCO layout; wanted a folder of this name "
                "with one PNG for each defect"
            )
        suffix = PurePosixPath(name).suffix  # an archive's keys need none, but a sample's name has one
        identity = "/".join((category, *key)) + (suffix if suffix.lower() in SUFFIXES else SUFFIXES[0])
        samples.append(
            Sample(
                where if where.is_file() else where / name,
                identity,
                category,
                "test",
                NORMAL if is_normal else ANOMALOUS,
                "good" if is_normal else folder or "defect",
                None if mask is None else MaskFiles(tuple(mask.paths)),
            )
        )
    if missing:
        names = ", ".join(maps[key] for key in missing[:3]) + (", ..." if len(missing) > 3 else "")
        path = masks.home.joinpath(*missing[0])
        looked = f"{path}/*.png" if loco else f"{path}_mask.png and {path}.png"
        raise DataError(
            f"no mask for {len(missing)} of {len(maps)} maps in {where}: {names}; looked for the first at "
            f"{looked}. Add the masks. A map without one is normal only in a folder named {', '.join(normal)}"
            f"{' (or give it a black mask)' if flat else ''}; --normal NAME says so of another folder"
        )
    layout = "loco" if loco else "flat" if flat else "mvtec"
    return Matched(category, layout, masks.home, tuple(maps.values()), tuple(samples))


def _refuse_unused(masks: _Masks, maps: _Maps, found: Mapping[_Key, _Mask], where: Path) -> None:
    unused = [(key, mask) for key, some in masks.by_key.items() for mask in some if not mask.used]
    for key, mask in unused:
        owner = key if key in found else (*key[:-1], key[-1].removesuffix("_mask"))
        if owner in found:
            raise DataError(
                f"two masks for the map {maps[owner]}: {found[owner]} and {mask}; remove one of them"
            )
    if unused:
        (key, mask), total = unused[0], sum(map(len, masks.by_key.values()))
        wanted = "/".join((*key[:-1], key[-1].removesuffix("_mask")))
        raise DataError(
            f"no map for {len(unused)} of {total} masks, first {mask}; wanted in {where} a map "
            f"{wanted}{SUFFIXES[0]} (or {', '.join(SUFFIXES[1:])}). Write the map, or take the mask away: "
            "every image of the test set counts"
        )


def _first(maps: _Maps) -> str:
    return next(iter(maps.values()))


def _stem(name: str) -> str:
    """`000` of 000.npy, 000.png and 000.png.npy; a dot in the name itself stays."""
    for endings in (SUFFIXES, IMAGE_SUFFIXES):
        suffix = PurePosixPath(name).suffix
        name = name.removesuffix(suffix) if suffix.lower() in endings else name
    return name


def _own_name(root: Path) -> str:
    """What the single category of a folder of masks is called: bottle of data/bottle/ground_truth."""
    place = root.absolute()
    while place.name.lower() in MASK_FOLDERS and place.parent.name:
        place = place.parent
    return place.name


# --- reading masks


def _binary(path: Path) -> NDArray[np.bool_]:
    values = mask_values(path)
    top = int(values.max())
    if top not in (0, 1, 255, 65535) or not ((values == 0) | (values == top)).all():
        raise DataError(
            f"the mask {path} holds the grey values {grey_values(values)}; wanted 0 and 1, or 0 and 255: "
            "cut it at the value that you mean (and save it as PNG: JPEG blurs it)"
        )
    return values > 0


def _config_path(home: Path) -> Path:
    """Where a category's defects_config.json belongs: beside ground_truth, or with the masks without one."""
    places = [home / LOCO_CONFIG]
    if home.name == TRUTH_FOLDER:
        places.insert(0, home.absolute().parent / LOCO_CONFIG)
    return next((place for place in places if place.is_file()), places[0])
