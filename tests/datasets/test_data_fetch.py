"""`adbench data fetch`: downloads that break off, archives that mean harm, one that ends in a data set."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from ad_bench import cli
from ad_bench.datasets import fetch as fetching
from ad_bench.datasets.download import Archive, download
from ad_bench.datasets.fetch import fetch
from ad_bench.datasets.unpack import Limits, unpack
from ad_bench.errors import DataError, UsageError
from tests.datasets import trees

ROOT = Path(__file__).resolve().parents[2]
CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves `files`; what it does wrong is set by the test."""

    files: dict[str, bytes]
    drop_after: list[int]  # bytes after which the next answers break off
    ranges = True
    version = '"one"'
    failing = 0  # answers 503 so many times
    slow = 0.0  # seconds between chunks
    asked: list[str | None]  # the Range header of each request

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.drop_after, self.asked = {}, [], []

    def handle_error(self, *_: object) -> None:
        pass  # the client was killed: that is what the test is about

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def archive(self, name: str, content: bytes = CONTENT, **changes: object) -> Archive:
        self.files[f"/{name}"] = content
        facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **changes}
        return Archive(name, self.url(name), **facts)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        if server.failing:
            server.failing -= 1
            self.send_error(503)
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range", server.version) == server.version:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if server.version:
            self.send_header("ETag", server.version)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = min(len(content), start + server.drop_after.pop(0)) if server.drop_after else len(content)
        for at in range(start, end, 65536):
            self.wfile.write(content[at : min(at + 65536, end)])
            time.sleep(server.slow)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def nothing(done: int, total: int | None) -> None:
    pass


def get(archive: Archive, folder: Path, attempts: int = 3) -> bytes:
    return download(archive, folder, nothing, attempts, pause=0.0).read_bytes()


# --- the download


def test_a_download_that_breaks_off_twice_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.drop_after = [300_000, 200_000]
    steps: list[tuple[int, int | None]] = []
    archive = server.archive("a.tar")
    path = download(archive, tmp_path, lambda *step: steps.append(step), 3, 0.0)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert names_in(tmp_path) == ["a.tar"]
    assert get(archive, tmp_path) == CONTENT
    assert len(server.asked) == 3  # what is there and verified is not asked for again


def test_a_killed_download_goes_on_in_the_next_process(server: Server, tmp_path: Path) -> None:
    archive = server.archive("a.tar")
    server.drop_after = [400_000, 0, 0]
    with pytest.raises(DataError, match="What has come is kept; the same command goes on from there"):
        get(archive, tmp_path, attempts=2)
    assert (tmp_path / "a.tar.part").stat().st_size == 400_000
    server.drop_after.clear()
    assert get(archive, tmp_path) == CONTENT
    assert server.asked[-1] == "bytes=400000-"


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.drop_after = False, [300_000]
    assert get(server.archive("a.tar"), tmp_path) == CONTENT


def test_halves_of_two_versions_are_never_joined(server: Server, tmp_path: Path) -> None:
    old, new = server.archive("a.tar", bytes(1_000_000), sha256=None, bytes=None), bytes([7]) * 900_000
    server.drop_after = [400_000, 0, 0]
    with pytest.raises(DataError):
        get(old, tmp_path, attempts=2)
    server.files["/a.tar"], server.version = new, '"two"'
    server.drop_after.clear()
    assert get(old, tmp_path) == new
    # Without a version to ask for, nothing is resumed that no checksum would verify.
    (tmp_path / "b.tar.part").write_bytes(b"half of something")
    server.version = ""
    assert get(server.archive("b.tar", sha256=None, bytes=None), tmp_path) == CONTENT


def test_a_resumed_download_with_a_wrong_checksum_is_tried_once_from_the_start(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.tar.part").write_bytes(b"x" * 1000)
    server.version = ""
    assert get(server.archive("a.tar"), tmp_path) == CONTENT
    assert server.asked == ["bytes=1000-", None]


def test_a_part_that_reaches_beyond_the_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.tar.part").write_bytes(b"x" * (len(CONTENT) + 5))
    server.version = ""
    assert get(server.archive("a.tar"), tmp_path) == CONTENT


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, tmp_path: Path) -> None:
    archive = server.archive("a.tar")
    server.failing = 2
    assert get(archive, tmp_path) == CONTENT
    server.asked.clear()
    with pytest.raises(DataError, match=r"answers 404 .*download page"):
        get(Archive("b.tar", server.url("gone.tar")), tmp_path)
    assert len(server.asked) == 1


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot get http://127\.0\.0\.1:1/a\.tar: .*2 times in a row"):
        get(Archive("a.tar", "http://127.0.0.1:1/a.tar"), tmp_path, attempts=2)


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path, kind: str) -> None:
    wrong = {"sha256": None, kind: "0" * (64 if kind == "sha256" else 32)}
    with pytest.raises(DataError, match=rf"a file with the {kind} [0-9a-f]+ instead of 0+"):
        get(server.archive("a.tar", **wrong), tmp_path)
    assert names_in(tmp_path) == []


def test_a_file_of_another_size_is_not_even_loaded(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"now has 1,024,000 bytes, 5 were published"):
        get(server.archive("a.tar", bytes=5), tmp_path)
    assert not (tmp_path / "a.tar").exists()


def test_an_older_file_in_the_downloads_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"old")
    assert get(server.archive("a.tar"), tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"file": "a.tar"}, "wanted file and url"),
        ({"file": "a.tar", "url": "http://x/a", "sha": "1"}, "wanted file and url"),
        ({"file": "../a.tar", "url": "http://x/a"}, "plain file name"),
        ({"file": "a.tar", "url": "file:///etc/passwd"}, "http or https"),
        ({"file": "a.tar", "url": "http://x/a", "md5": "12"}, "32 digits"),
        ({"file": "a.tar", "url": "http://x/a", "sha256": 5}, "64 digits"),
        ({"file": "a.tar", "url": "http://x/a", "bytes": "5 GB"}, "number of bytes"),
        ({"file": "a.tar", "url": "http://x/a", "into": "../up"}, "folder below the root"),
        ({"file": "a.tar", "url": "http://x/a", "into": "/up"}, "folder below the root"),
    ],
)
def test_wrong_entries_of_a_yaml(node: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Archive.from_config(node, "dataset.archives[0]")


@pytest.mark.parametrize("path", sorted((ROOT / "conf/dataset").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_archives_of_every_data_set_can_be_fetched(path: Path) -> None:
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    archives = [Archive.from_config(entry, f"{path}, archives") for entry in own.get("archives") or ()]
    assert len({archive.file for archive in archives}) == len(archives)
    for pattern in own.get("mask_files") or ():
        assert not Path(pattern).is_absolute()


# --- unpacking


def entry(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    made.size = len(content) if kind == tarfile.REGTYPE else 0
    return made


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for info, content in entries:
            bundle.writestr(info, content)
    return out.getvalue()


def special(name: str, mode: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr = 3, (mode | 0o644) << 16
    return made


def unpacked_tree(content: bytes, tmp_path: Path, name: str = "a.bin", limits: Limits | None = None) -> dict:
    """Relative names and contents of what an archive unpacks to; nothing may appear outside."""
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    (tmp_path / "in").mkdir()
    archive, into = tmp_path / "in" / name, tmp_path / "in/side"
    archive.write_bytes(content)
    before = set(tmp_path.rglob("*"))
    try:
        unpack(archive, into, limits=limits)
    finally:
        made = set(tmp_path.rglob("*")) - before
        assert all(p.is_relative_to(into) for p in made)
        assert all(stat.S_ISREG(p.lstat().st_mode) or stat.S_ISDIR(p.lstat().st_mode) for p in made)
    return {p.relative_to(into).as_posix(): p.read_bytes() for p in into.rglob("*") if p.is_file()}


PLAIN = tar_of((entry("a/", kind=tarfile.DIRTYPE), b""), (entry("./a/b.txt", b"hello"), b"hello"),
               (entry("c.txt"), b"x"))  # fmt: skip
TREE = {"a/b.txt": b"hello", "c.txt": b"x"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tar", PLAIN),
        ("a.tar.gz", gzip.compress(PLAIN)),
        ("a.tar.xz", lzma.compress(PLAIN)),
        ("a.tar.bz2", bz2.compress(PLAIN)),
        ("a.zip", zip_of(("a/", b""), ("a/b.txt", b"hello"), ("c.txt", b"x"))),
        ("misnamed.zip", gzip.compress(PLAIN)),
    ],
)
def test_every_kind_unpacks_to_the_same_tree(name: str, content: bytes, tmp_path: Path) -> None:
    assert unpacked_tree(content, tmp_path, name) == TREE


def test_a_plain_file_is_copied(tmp_path: Path) -> None:
    assert unpacked_tree(b"image,split\n", tmp_path, "split.csv") == {"split.csv": b"image,split\n"}


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a\\..\\x", "C:/x", ".", "a/../x"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Nothing of it was kept"):
        unpacked_tree(tar_of((entry(name), b"x")), tmp_path)
    with pytest.raises(DataError, match="Nothing of it was kept"):
        unpacked_tree(zip_of((name, b"x")), tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("l", tarfile.SYMTYPE, "/etc/passwd"),
        ("l", tarfile.SYMTYPE, "../../secret"),
        ("a/l", tarfile.SYMTYPE, "../../secret"),
        ("l", tarfile.LNKTYPE, "../secret"),
        ("l", tarfile.LNKTYPE, "/etc/passwd"),
        ("l", tarfile.SYMTYPE, "nowhere"),
        ("l", tarfile.SYMTYPE, "."),
        ("l", tarfile.SYMTYPE, "l"),
    ],
)
def test_links_that_leave_or_lead_nowhere_are_refused(
    name: str, kind: bytes, target: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="a link"):
        unpacked_tree(tar_of((entry(name, b"", kind, target), b"")), tmp_path)
    if kind == tarfile.SYMTYPE:
        with pytest.raises(DataError, match="a link"):
            unpacked_tree(zip_of((special(name, stat.S_IFLNK), target.encode())), tmp_path)


def test_writing_through_a_link_is_impossible(tmp_path: Path) -> None:
    hostile = tar_of((entry("l", b"", tarfile.SYMTYPE, "."), b""), (entry("l/x"), b"x"))
    with pytest.raises(DataError, match="a link"):
        unpacked_tree(hostile, tmp_path)


def test_links_inside_become_copies(tmp_path: Path) -> None:
    links = tar_of(
        (entry("a/one", b"1"), b"1"),
        (entry("b/two", b"", tarfile.SYMTYPE, "../a/one"), b""),
        (entry("b/three", b"", tarfile.SYMTYPE, "two"), b""),
        (entry("four", b"", tarfile.LNKTYPE, "a/one"), b""),
    )
    assert unpacked_tree(links, tmp_path) == dict.fromkeys(["a/one", "b/two", "b/three", "four"], b"1")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a device or pipe"):
        unpacked_tree(tar_of((entry("d", b"", kind), b"")), tmp_path)
    with pytest.raises(DataError, match="a device or pipe"):
        unpacked_tree(zip_of((special("d", stat.S_IFIFO), b"")), tmp_path)


SMALL = Limits(ratio=20, free=100_000, total=10_000_000, files=50)


@pytest.mark.parametrize("pack", [lambda data: gzip.compress(tar_of((entry("z", data), data))),
                                  lambda data: lzma.compress(tar_of((entry("z", data), data))),
                                  lambda data: zip_of(("z", data))])  # fmt: skip
def test_bombs_by_ratio_stop_early(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="taken for a bomb"):
        unpacked_tree(pack(bytes(5_000_000)), tmp_path, limits=SMALL)
    assert sum(p.stat().st_size for p in (tmp_path / "in/side").rglob("*") if p.is_file()) < 1_200_000
    assert len(unpacked_tree(pack(bytes(90_000)), tmp_path, limits=SMALL)["z"]) == 90_000


def test_a_zip_that_admits_to_be_a_bomb_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="taken for a bomb"):
        unpacked_tree(zip_of(("z", bytes(5_000_000))), tmp_path, limits=SMALL)
    assert names_in(tmp_path / "in/side") == []


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    content = bytearray(zip_of(("z", bytes(5_000_000))))
    size = (5_000_000).to_bytes(4, "little")
    assert content.count(size) == 2
    lie = bytes(content).replace(size, (10).to_bytes(4, "little"))
    with pytest.raises(DataError):
        unpacked_tree(lie, tmp_path, limits=SMALL)


def test_bombs_of_many_files_long_names_and_total_size(tmp_path: Path) -> None:
    many = tar_of(*((entry(f"{n}", b""), b"") for n in range(60)))
    with pytest.raises(DataError, match="more than 50 files"):
        unpacked_tree(many, tmp_path, limits=SMALL)
    with pytest.raises(DataError, match="more than 50 files"):
        unpacked_tree(zip_of(*((f"{n}", b"") for n in range(60))), tmp_path, limits=SMALL)
    noise = os.urandom(50_000)
    with pytest.raises(DataError, match="taken for a bomb"):
        unpacked_tree(tar_of((entry("z", noise), noise)), tmp_path, limits=Limits(total=40_000))
    header = entry("long", b"", tarfile.XHDTYPE)
    header.size = 3 << 30
    with pytest.raises(DataError, match="header of 3,221,225,472 bytes"):
        unpacked_tree(header.tobuf(tarfile.USTAR_FORMAT) + bytes(4096), tmp_path, "a.tar")


def test_copies_of_links_count(tmp_path: Path) -> None:
    noise = os.urandom(60_000)
    links = [(entry(f"{n}", b"", tarfile.LNKTYPE, "z"), b"") for n in range(40)]
    with pytest.raises(DataError, match="taken for a bomb"):
        unpacked_tree(tar_of((entry("z", noise), noise), *links), tmp_path, limits=SMALL)


LONG = tar_of((entry("z", CONTENT), CONTENT), (entry("y", CONTENT), CONTENT))


@pytest.mark.parametrize(
    "content",
    [
        LONG[:1_500_000],
        gzip.compress(LONG, 1)[:-9],
        gzip.compress(os.urandom(10) + LONG),
        lzma.compress(LONG)[:-50],
        bz2.compress(LONG)[:-50],
        zip_of(("z", CONTENT))[:-40],
        zip_of(("z", CONTENT))[:60] + bytes(80) + zip_of(("z", CONTENT))[140:],
    ],
    ids=["tar cut", "gz cut at the end", "no tar", "xz cut", "bz2 cut", "zip cut", "zip damaged"],
)
def test_damaged_archives(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="damaged"):
        unpacked_tree(content, tmp_path, "a.tar")


def test_archives_that_are_not_for_us(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="7z or RAR"):
        unpacked_tree(b"Rar!\x1a\x07\x01\x00" + bytes(600), tmp_path, "a.rar")
    locked = bytearray(zip_of(("z", b"secret")))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DataError, match="password"):
        unpacked_tree(bytes(locked), tmp_path)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="as a file and as a folder"):
        unpacked_tree(tar_of((entry("a"), b"x"), (entry("a/b"), b"x")), tmp_path)


# --- all of it


def no_stage(text: str) -> Callable[[int, int | None], None]:
    return nothing


def test_what_is_refused_leaves_no_root(server: Server, tmp_path: Path) -> None:
    hostile = server.archive("a.tar", tar_of((entry("good"), b"x"), (entry("../evil"), b"x")))
    with pytest.raises(DataError, match="leads out"):
        fetch(tmp_path / "data/set", [hostile], tmp_path / "data/.downloads/set", no_stage)
    assert names_in(tmp_path / "data") == [".downloads"]


def test_two_archives_go_where_they_belong_and_the_root_is_never_overwritten(
    server: Server, tmp_path: Path
) -> None:
    root, downloads = tmp_path / "data/set", tmp_path / "data/.downloads/set"
    root.mkdir(parents=True)  # an empty folder is no data set
    (root.parent / ".set.unpacking-left").mkdir()  # of a killed process
    archives = [server.archive("a.tar", PLAIN), server.archive("split.csv", b"1", into="lists/more")]
    fetch(root, archives, downloads, no_stage)
    assert (root / "a/b.txt").read_bytes() == b"hello"
    assert (root / "lists/more/split.csv").read_bytes() == b"1"
    assert names_in(root.parent) == [".downloads", "set"]
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    (root / "c.txt").write_bytes(b"mine")
    with pytest.raises(DataError, match="never overwritten"):
        fetch(root, archives, downloads, no_stage)
    assert (root / "c.txt").read_bytes() == b"mine"


def test_space_is_checked_before_a_byte_is_loaded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = server.archive("a.tar", PLAIN, bytes=10**12)
    free = type("Usage", (), {"free": 5 * 10**9})
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: free)
    with pytest.raises(DataError, match=r"about 2000\.0 GB are needed below .*, 5\.0 GB are free"):
        fetch(tmp_path / "set", [archive], tmp_path / ".downloads", no_stage)
    assert server.asked == []


def test_two_fetches_at_once(server: Server, tmp_path: Path) -> None:
    archive, downloads = server.archive("a.tar", PLAIN), tmp_path / ".downloads"
    with fetching._alone(downloads), pytest.raises(DataError, match="another process is fetching"):
        fetch(tmp_path / "set", [archive], downloads, no_stage)
    fetch(tmp_path / "set", [archive], downloads, no_stage)


def bottles(folder: Path) -> bytes:
    """A tar of a small data set in MVTec AD's layout."""
    for index in range(3):
        trees.image(folder / f"bottle/train/good/{index:03}.png")
    trees.image(folder / "bottle/test/good/000.png")
    trees.image(folder / "bottle/test/cut/000.png", defect=True)
    trees.mask(folder / "bottle/ground_truth/cut/000_mask.png")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        tar.add(folder / "bottle", "bottle")
    return out.getvalue()


@pytest.fixture
def mine(server: Server, tmp_path: Path) -> Path:
    """A user's folder of YAML files with a data set that the server has."""
    archive = server.archive("bottles.tar.xz", bottles(tmp_path / "made"))
    (tmp_path / "conf/dataset").mkdir(parents=True)
    (tmp_path / "conf/dataset/bottles.yaml").write_text(
        "id: bottles\ntitle: Bottles\nroot: ${paths.data}/bottles\n"
        "licence: CC BY 4.0\ncitation: Glass, 2026\n"
        "samples: {_target_: ad_bench.datasets.mvtec.samples, _partial_: true}\ncategories: [bottle]\n"
        "counts: {bottle: {train: 3, test_normal: 1, test_anomalous: 1, masks: 1}}\ninput: null\n"
        'mask_files: ["{category}/ground_truth/*/*.png"]\nsplit_seed: 0\n'
        f"archives:\n- {{file: {archive.file}, url: '{archive.url}', sha256: {archive.sha256}, "
        f"bytes: {archive.bytes}, into: .}}\n"
    )
    return tmp_path / "conf"


def test_a_whole_fetch_ends_in_a_checked_data_set(
    adbench: Callable[..., subprocess.CompletedProcess[str]], server: Server, mine: Path, tmp_path: Path
) -> None:
    server.drop_after = [500]
    words = ("data", "fetch", "dataset=bottles", "paths.data=data", "--config-dir", str(mine))
    answer = adbench(*words)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0] == "Bottles, licence: CC BY 4.0"
    assert "cite: Glass, 2026" in lines
    assert lines[-1] == "ok     bottles/bottle: 3 train, 1 test normal, 1 test anomalous, 1 masks"
    assert server.asked == [None, "bytes=500-"]
    again = adbench(*words)
    assert again.returncode == 0
    assert "is there already: nothing was fetched" in again.stdout
    assert len(server.asked) == 2


def test_an_interrupted_fetch_leaves_a_part_and_no_root(server: Server, mine: Path, tmp_path: Path) -> None:
    noise = os.urandom(4_000_000)
    archive = server.archive("bottles.tar.xz", noise)
    text = (mine / "dataset/bottles.yaml").read_text().splitlines()[:-1]
    entry = f"- {{file: {archive.file}, url: '{archive.url}', bytes: {archive.bytes}}}"
    (mine / "dataset/bottles.yaml").write_text("\n".join([*text, entry]))
    server.slow = 0.05
    process = subprocess.Popen(
        [sys.executable, "-m", "ad_bench", "data", "fetch", "dataset=bottles", "paths.data=data",
         "--config-dir", str(mine)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    part = tmp_path / "data/.downloads/bottles/bottles.tar.xz.part"
    deadline = time.monotonic() + 30
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    assert 0 < part.stat().st_size < len(noise)
    assert names_in(tmp_path / "data") == [".downloads"]


def test_without_a_known_archive_it_says_where_and_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "fetch", "dataset=mtd", f"paths.data={tmp_path}", "dataset.archives=[]"]
    assert cli.main(words) == 1
    out = capsys.readouterr().out
    assert "MTD: no direct link with a checksum is known; get it by hand" in out
    assert "licence: none stated" in out
    assert "from: https://github.com/abin24" in out
    assert f"to: {tmp_path}/mtd, with the layout of" in out
    assert "MT_<class>/Imgs/<name>" in out


def test_what_is_made_needs_no_fetch(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "fetch", "dataset=synthetic"]) == 0
    assert "made on first use" in capsys.readouterr().out
