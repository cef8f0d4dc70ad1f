"""Writes the site: index.html, assets, data as scripts, pictures; removes what an earlier site left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ad_bench.errors import ResultsError
from ad_bench.records import replace_file
from ad_bench.report.site import overview, pictures
from ad_bench.report.site.cells import row_page
from ad_bench.report.site.extra import Extra, extra_page
from ad_bench.report.site.methods import method_page
from ad_bench.report.site.runs import Runs
from ad_bench.report.site.script import script, slug

if TYPE_CHECKING:
    from ad_bench.report.board import Board

MANIFEST = "manifest.json"  # every file of the site, and of which state of a run its pictures are


def write_site(
    board: Board,
    results: Path,
    out: Path,
    verdicts: Sequence[Any] = (),
    extras: Sequence[Extra] = (),
    config_dirs: Sequence[Path] = (),
) -> list[Path]:
    """Write the page of a report to the folder `out`; returns its files, `index.html` first.

    `results` holds the runs' files; `verdicts` are those of the reproduction table, `extras` further pages.
    The same records give the same bytes. Files that are as they should be are left alone, files of an earlier
    site that are none of this one are removed, others in the folder stay. Raises ResultsError where it cannot
    be written.
    """
    out = Path(out)
    earlier = _manifest(out)
    written: dict[str, str] = {}
    try:
        runs = Runs(Path(results))
        shown = pictures.collect([place for places in board.places.values() for place in places], runs)
        for name, copy in shown.copies.items():
            if earlier.get(name) == copy.state and (out / name).is_file():
                written[name] = copy.state
                continue
            try:
                content = copy.data()
            except ValueError as error:
                shown.drop(name, str(error))
                continue
            _replace(out / name, content)
            written[name] = copy.state
        for name, content in _files(board, runs, shown, verdicts, extras, config_dirs):
            _replace(out / name, content)
            written[name] = ""
        _remove(out, [name for name in earlier if name not in written])
        _replace(out / MANIFEST, (json.dumps(dict(sorted(written.items())), indent=0) + "\n").encode())
    except OSError as error:
        raise ResultsError(
            f"cannot write the page to {out}: {error.strerror or error}. Records and tables are intact;"
            " make room or name another folder and run adbench report again"
        ) from error
    return [out / "index.html", *(out / name for name in written if name != "index.html")]


def _files(
    board: Board,
    runs: Runs,
    shown: pictures.Pictures,
    verdicts: Sequence[Any],
    extras: Sequence[Extra],
    config_dirs: Sequence[Path],
) -> Iterator[tuple[str, bytes]]:
    """Every file but the pictures of runs: its name below the site and its bytes."""

    def data(key: str, value: Any) -> tuple[str, bytes]:
        return f"data/{key}.js", script(key, value).encode("ascii")

    yield from _assets(resources.files("ad_bench.report.site") / "assets", "")
    settings: dict[str, str] = {}
    galleries: dict[str, list[str]] = {}
    categories = {dataset: board.tables[dataset][0].categories for dataset in board.places}
    for dataset, places in board.places.items():
        names = categories[dataset]
        yield data(f"sets/{slug(dataset)}", overview.dataset_page(board, dataset, names))
        yield data(f"categories/{slug(dataset)}", overview.categories_page(places, names))
        yield data(f"problems/{slug(dataset)}", overview.problems_page(places))
        gallery: dict[str, dict[str, Any]] = {}
        for place in places:
            key = overview.key_of(place.entry)
            page, settings[key] = row_page(place, runs, shown.cells.get(key, {}))
            yield data(f"rows/{key}", page)
            for category, found in shown.galleries(place).items():
                gallery.setdefault(category, {})[key] = found
        galleries[dataset] = [name for name in names if name in gallery]
        for category in galleries[dataset]:
            yield data(f"gallery/{slug(dataset)}/{slug(category)}", gallery[category])
    everyone = [place for places in board.places.values() for place in places]
    for method in sorted({place.entry.method for place in everyone}):
        own = [place for place in everyone if place.entry.method == method]
        judged = [verdict for verdict in verdicts if verdict.method == method]
        yield data(f"methods/{slug(method)}", method_page(method, own, settings, judged, config_dirs))
    for extra in extras:
        picture = f"pictures/more/{slug(extra.ident)}.svg" if extra.svg else ""
        if picture:
            yield picture, extra.svg.encode()
        yield data(f"more/{slug(extra.ident)}", extra_page(extra, picture))
    yield data("index", overview.index(board, categories, galleries, extras, shown.remarks))


def _assets(folder: Any, below: str) -> Iterator[tuple[str, bytes]]:
    """index.html at the top, all else under assets/."""
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            yield from _assets(item, f"{below}{item.name}/")
        elif item.name == "index.html":
            yield item.name, item.read_bytes()
        else:
            yield f"assets/{below}{item.name}", item.read_bytes()


def _replace(path: Path, content: bytes) -> None:
    """Put `content` in its place in one step, unless it is there already."""
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    except OSError:
        pass
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def _manifest(out: Path) -> dict[str, str]:
    """The files of an earlier site and their states; empty where there was none or it cannot be read."""
    try:
        stored = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(state) for name, state in stored.items()} if isinstance(stored, dict) else {}


def _remove(out: Path, names: Sequence[str]) -> None:
    """Remove files of an earlier site and the folders that they leave empty; never anything outside `out`."""
    for name in names:
        path = out / name
        if not path.parent.resolve().is_relative_to(out.resolve()):
            continue  # the manifest may have come with another lab's folder
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == out or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
