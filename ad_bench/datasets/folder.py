"""Anyone's own images: a folder of normal ones, folders of defects, masks if there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ad_bench.datasets.files import described, folders_in, images_in, masks_by_stem, missing_masks
from ad_bench.draws import shuffled
from ad_bench.errors import DataError, UsageError, closest
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

MASK_FOLDERS = {"mask", "masks", "ground_truth", "gt", "label", "labels", "annotations"}


def samples(
    root: Path,
    category: str,
    normal_dir: str,
    abnormal_dirs: Sequence[str] | str | None,
    mask_dir: str | None,
    normal_test_dir: str | None,
    normal_test_share: float,
    split_seed: int,
    mask_above: int,
) -> Iterator[Sample]:
    """Every image, train before test, in name order; all folders are relative to `root`.

    `abnormal_dirs` null means every folder that is none of the others; a folder's name is its defect. Without
    `normal_test_dir` a seeded share of the normal images tests. With `mask_dir` every abnormal image needs a
    mask, <stem>_mask.* or <stem>.*, in mask_dir/<defect folder> or in mask_dir itself.
    """
    root = Path(root)
    normal = _folder(root, "normal_dir", normal_dir)
    if normal_test_dir is None and not 0 < normal_test_share < 1:
        raise UsageError(f"dataset.samples.normal_test_share is a share in (0, 1); got {normal_test_share}")
    taken = {key: _folder(root, key, name) for key, name in (("mask_dir", mask_dir),) if name is not None}
    if normal_test_dir is not None:
        taken["normal_test_dir"] = _folder(root, "normal_test_dir", normal_test_dir)
    if abnormal_dirs is None:
        abnormal = _others(root, {normal, *taken.values()})
    else:
        names = [abnormal_dirs] if isinstance(abnormal_dirs, str) else list(abnormal_dirs)
        abnormal = [_folder(root, "abnormal_dirs", name) for name in names]

    train = images_in(normal)
    if not train:
        raise DataError(
            f"no images in the normal folder {normal} ({described(normal)}); set dataset.samples.normal_dir"
        )
    if normal_test_dir is not None:
        held_out = images_in(taken["normal_test_dir"])
    else:
        names = shuffled((path.name for path in train), split_seed, "folder.split")
        # one image at least for each side
        count = min(max(1, round(normal_test_share * len(train))), len(train) - 1)
        chosen = set(names[:count])
        held_out = [path for path in train if path.name in chosen]
        train = [path for path in train if path.name not in chosen]
    yield from (Sample(path, _name(root, path), category, "train", NORMAL) for path in train)

    tests = [Sample(path, _name(root, path), category, "test", NORMAL) for path in held_out]
    found = [(folder, image) for folder in abnormal for image in images_in(folder)]
    masks = _masks(category, taken["mask_dir"], found) if mask_dir is not None else {}
    for folder, image in found:
        mask = MaskFiles((masks[image],), mask_above) if image in masks else None
        tests.append(Sample(image, _name(root, image), category, "test", ANOMALOUS, folder.name, mask))
    yield from sorted(tests, key=lambda sample: sample.name)


def _folder(root: Path, key: str, name: str) -> Path:
    folder = root / name
    if not folder.is_dir():
        known = [path.name for path in folders_in(root)]
        hint = f" There are: {', '.join(known) or 'no folders'}."
        raise DataError(
            f"no folder '{name}' in {root}, which dataset.samples.{key} names."
            f"{closest(name, known, hint.strip())}"
        )
    if not folder.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            f"dataset.samples.{key}={name} lies outside of dataset.root={root}; choose a root above both"
        )
    return folder


def _others(root: Path, taken: set[Path]) -> list[Path]:
    """The folders that must be defects because they are nothing else."""
    used = {path.relative_to(root).parts[0] for path in taken if path != root}
    others = [path for path in folders_in(root) if path.name not in used]
    for path in others:
        if path.name.lower() in MASK_FOLDERS:
            raise DataError(
                f"{path} looks like a folder of masks, not of abnormal images; set dataset.samples.mask_dir="
                f"{path.name}, or name the defect folders in dataset.samples.abnormal_dirs"
            )
    return others


def _masks(category: str, home: Path, found: list[tuple[Path, Path]]) -> dict[Path, Path]:
    """The mask of every abnormal image: from the defect's own folder of masks, else from the common one."""
    by_folder = {folder: masks_by_stem(home / folder.name) for folder in {folder for folder, _ in found}}
    common = masks_by_stem(home)
    stems = Counter(image.stem for _, image in found)
    masks, missing = {}, []
    for folder, image in found:
        if image.stem in by_folder[folder]:
            masks[image] = by_folder[folder][image.stem]
        elif image.stem in common:
            if stems[image.stem] > 1:
                raise DataError(
                    f"{common[image.stem]} could be the mask of {stems[image.stem]} abnormal images named "
                    f"{image.stem}; put masks into {home}/<defect folder>/"
                )
            masks[image] = common[image.stem]
        else:
            missing.append(
                (str(image), f"{home / folder.name / image.stem}_mask.png and {home / image.stem}_mask.png")
            )
    if missing:
        raise missing_masks(category, missing)
    return masks


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
