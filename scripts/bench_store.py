"""Reading from the image store beside decoding with Pillow; opening and building it: results/bench/store.md.

    python scripts/bench_store.py [--images 100 1000 5000] [--read 1000] [--scratch DIR] [--out FILE.md]

Made images, half JPEG and half PNG. They and the stores go to a temporary folder below `--scratch` (about
2 GB for 5,000 images), whose disk is measured too. Wall clock where nothing else is said, all in one run.
For Linux, which tells what came from the disk.
"""

import argparse
import datetime
import io
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench_metrics import cpu_name, publish  # isort: skip  # sets one thread before NumPy is loaded
import numpy as np
import PIL
from PIL import Image
from scipy.ndimage import gaussian_filter

from ad_bench.datasets import folder, store
from ad_bench.datasets.store import open_store, verify
from ad_bench.geometry import Geometry
from ad_bench.samples import Sample

GEOMETRY = Geometry(short=256, crop=224)
BATCH = 32
LAYOUT = {
    "normal_dir": "good",
    "abnormal_dirs": "bad",
    "mask_dir": None,
    "normal_test_dir": None,
    "normal_test_share": 0.2,
    "split_seed": 0,
    "mask_above": 0,
}


# ---- what is measured on ---------------------------------------------------------------------------------


def make(root: Path, count: int, height: int) -> None:
    """`count` files of 20 pictures with texture and sensor noise, as cameras give them, 4:3."""
    rng = np.random.default_rng(0)
    files: list[tuple[str, bytes]] = []
    shape = (height, height * 4 // 3, 3)
    for number in range(20):
        texture = gaussian_filter(rng.normal(size=shape), (3, 3, 0)) * 200
        noise = rng.normal(size=shape) * 2
        pixels = np.clip(128 + texture + noise, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        if number % 2:
            Image.fromarray(pixels).save(buffer, "PNG")
        else:
            Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
        files.append(("png" if number % 2 else "jpg", buffer.getvalue()))
    for name in ("good", "bad"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        kind, data = files[index % len(files)]
        (root / ("bad" if index % 10 == 0 else "good") / f"{index:05}.{kind}").write_bytes(data)


def listed(root: Path) -> list[Sample]:
    return list(folder.samples(root, "parts", **LAYOUT))


# ---- how it is measured ----------------------------------------------------------------------------------


def seconds(call: Callable[..., object], *what: object, repeats: int = 1) -> float:
    """Wall clock of call(*what), the best of several."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call(*what)
        best = min(best, time.perf_counter() - start)
    return best


def forget(paths: Sequence[Path]) -> None:
    """Ask the kernel to drop files from its page cache: possible for any user, for pages that nobody maps."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def from_disk() -> int:
    """Bytes that the disk has given this process so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def batches(count: int, shuffle: bool) -> list[np.ndarray]:
    order = np.random.default_rng(1).permutation(count) if shuffle else np.arange(count)
    return np.split(order, range(BATCH, count, BATCH))


# ---- reading ---------------------------------------------------------------------------------------------


def plain(path: Path) -> np.ndarray:
    """What a data set class does without a store: Pillow's own decode, resize and crop, GEOMETRY's pixels."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    size = [int(256 * length / min(rgb.size)) for length in rgb.size]
    resized = rgb.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    left, top = (round((length - 224) / 2) for length in resized.size)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def by_pillow(paths: Sequence[Path], order: Sequence[np.ndarray], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        work = pool.map if threads > 1 else map
        for batch in order:
            np.stack(list(work(plain, [paths[index] for index in batch])))


def copied(images: np.ndarray, order: Sequence[np.ndarray]) -> None:
    for batch in order:
        images[batch]  # whole batches by a list of indices: copied into new memory


def reading(root: Path, cache: Path, count: int) -> list[str]:
    samples = listed(root)[:count]
    paths = [sample.image for sample in samples]
    file = Path(str(open_store(samples, GEOMETRY, cache).path)) / "images.npy"
    memory = np.array(open_store(samples, GEOMETRY, cache).images)
    same = all(np.array_equal(memory[index], plain(paths[index])) for index in range(0, count, 10))
    figures: dict[str, tuple[int, float, float, int]] = {}

    def measure(name: str, call: Callable[..., object], *what: object, repeats: int = 1) -> None:
        images = sum(map(len, next(part for part in what if isinstance(part, list))))
        before, start = from_disk(), time.process_time()
        took = seconds(call, *what, repeats=repeats)
        cpu = (time.process_time() - start) / repeats
        figures[name] = images, took / images, cpu / images, from_disk() - before

    for word, shuffle in (("in order", False), ("shuffled", True)):
        order = batches(count, shuffle)
        forget([file])
        measure(f"store, page cache cold, {word}", lambda o: copied(opened(samples, cache), o), order)
        images = opened(samples, cache)
        measure(f"store, page cache warm, {word}", copied, images, order, repeats=5)
        measure(f"an array in memory, {word}", copied, memory, order, repeats=5)
        del images  # mapped pages are not dropped
    order = batches(min(count, 320), False)
    forget(paths)
    measure("Pillow, page cache cold, 1 thread", lambda o: by_pillow(paths, o, 1), order)
    for threads in (1, 2):
        name = f"Pillow, page cache warm, {threads} thread{'s' * (threads - 1)}"
        measure(name, lambda o, t=threads: by_pillow(paths, o, t), order, repeats=3)
    slow = min(figures[f"Pillow, page cache warm, {threads}"][1] for threads in ("1 thread", "2 threads"))
    size = memory[0].nbytes
    rows = []
    for name, (images, took, cpu, read) in figures.items():
        pace = f"{1 / took:,.0f} | {size / took / 1e9:.2f} | {1e3 * cpu:.3f}"
        rows.append(f"| {name} | {pace} | {read / images / 1e3:,.0f} | {slow / took:,.1f} |")
    ratios = [
        figures[f"store, page cache warm, {word}"][1] / figures[f"an array in memory, {word}"][1]
        for word in ("in order", "shuffled")
    ]
    return [
        f"## Reading {count} images in batches of {BATCH}",
        "",
        f"224x224 RGB, uint8, {memory.nbytes / 1e6:.0f} MB, of images of 640x480. Cold: the file was dropped",
        "from the page cache; what then came from the disk shows that the kernel obeyed. Opening the store",
        "is counted there. Warm: the best of several. Pillow decodes, resizes and crops "
        f"{sum(map(len, order))} of the images;",
        "the last column compares with the faster of its warm rows.",
        "",
        "| from | images/s | GB/s | CPU ms/image | kB/image from the disk | times Pillow |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Warm, batches from the store take {ratios[0]:.2f} (in order) and {ratios[1]:.2f} (shuffled) times",
        "what the same copies from an array in memory take: reading is "
        f"{'' if max(ratios) < 2 else 'NOT '}bound by memory.",
        f"The same pixels as Pillow's: {'yes' if same else 'NO'}.",
        "",
    ]


def opened(samples: Sequence[Sample], cache: Path) -> np.ndarray:
    return open_store(samples, GEOMETRY, cache, progress=refuse).images


def refuse(done: int, total: int) -> None:
    raise SystemExit("decoded what should have been there")


# ---- opening ---------------------------------------------------------------------------------------------


def new_process(*words: object) -> list[str]:
    command = [sys.executable, __file__, "--child", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def opening_child(root: Path, cache: Path, count: int) -> str:
    """Milliseconds to list and to open a prepared store, in a process that has just started."""
    start = time.perf_counter()
    samples = listed(root)
    between = time.perf_counter()
    images = opened(samples, cache)
    end = time.perf_counter()
    assert len(images) == count
    return f"{1e3 * (between - start)} {1e3 * (end - between)}"


def opening(roots: dict[int, Path], cache: Path) -> list[str]:
    rows = []
    for count, root in roots.items():
        samples = listed(root)
        build = seconds(open_store, samples, GEOMETRY, cache)
        runs = [new_process("opening", root, cache, count) for _ in range(6)]
        runs = runs[1:]  # the first after a build may read files again that were too young to be remembered
        for sample in samples:
            os.utime(sample.image)  # every file must be read again; its content is the same
        touched = seconds(opened, samples, cache)
        total = sum(sample.image.stat().st_size for sample in samples)
        checked = seconds(verify, open_store(samples, GEOMETRY, cache))
        listing, best = (min(float(run[part]) for run in runs) for part in (0, 1))
        worst = max(float(run[1]) for run in runs)
        rows.append(
            f"| {count} | {total / 1e6:,.0f} | {build:.1f} | {listing:.0f} | {best:.0f} | {worst:.0f} | "
            f"{1e3 * touched:.0f} | {checked:.2f} |"
        )
    return [
        "## Opening a prepared store",
        "",
        "Images of 320x240. In new processes, imports left out: the best of five, and the worst of opening.",
        "Size and times of each file are looked at every time. Touched: all files have new times, so all are",
        "hashed again. `verify` reads all pixels and compares their sums.",
        "",
        "| images | MB | built in, s | list, ms | open, ms | worst, ms | touched: open, ms | verify, s |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


# ---- building --------------------------------------------------------------------------------------------


def building_child(root: Path, cache: Path, count: int, claims: bool) -> str:
    """Images decoded by this process, which builds a store once its input says so."""
    if not claims:
        store.claim = lambda final, mine: None
    decoded, decode = [0], store.decode

    def counted(path: Path) -> np.ndarray:
        decoded[0] += 1
        return decode(path)

    store.decode = counted
    samples = listed(root)[:count]
    print("ready", flush=True)
    sys.stdin.readline()
    open_store(samples, GEOMETRY, cache)
    return str(decoded[0])


def at_once(root: Path, cache: Path, count: int, processes: int, claims: bool) -> tuple[float, int]:
    """Seconds until all have the store, and images decoded by all together."""
    words = ["--child", "building", str(root), str(cache), str(count), str(int(claims))]
    running = [
        subprocess.Popen(
            [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    start = time.perf_counter()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in running]
    return time.perf_counter() - start, sum(map(int, said))


def fresh(scratch: Path) -> Iterator[Path]:
    """A new cache each time."""
    number = 0
    while True:
        number += 1
        yield scratch / f"cache{number}"


def first_build(root: Path, scratch: Path, count: int) -> list[str]:
    samples = listed(root)[:count]
    paths = [sample.image for sample in samples]
    caches, order = fresh(scratch), batches(count, False)
    rows = []
    for threads in (1, 2):
        took = seconds(open_store, samples, GEOMETRY, next(caches), threads)
        alone = seconds(by_pillow, paths, order, threads)
        rows.append(f"| {threads} | {took:.1f} | {count / took:.0f} | {alone:.1f} | {took / alone:.2f} |")
    sums = seconds(store.contents, paths, next(caches), 1)
    real, synced = store._sync, [0.0]

    def sync(path: Path) -> None:
        synced[0] += seconds(real, path)

    store._sync = sync
    open_store(samples, GEOMETRY, next(caches))
    store._sync = real
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    both = []
    for processes in (2, 4):
        for claims in (True, False):
            took, decoded = at_once(root, next(caches), count, processes, claims)
            both.append(f"| {processes} | {'wait' if claims else 'build too'} | {took:.1f} | {decoded} |")
    return [
        f"## Building a store of {count} images of 640x480",
        "",
        "| threads | s | images/s | Pillow decodes, resizes and crops alone, s | ratio |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Part of it: {sums:.2f} s to read and hash the {megabytes:.0f} MB of files with one thread, "
        f"{synced[0]:.2f} s until",
        "all is on the disk before it gets its name.",
        "",
        "Several processes that want the same store at the same moment: the others wait for the first as",
        "long as it lives and gets on. Without claims each builds one, and the first to finish wins:",
        "",
        "| processes | the others | s until all have it | images decoded |",
        "|---|---|---|---|",
        *both,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--read", type=int, default=1000, help="images of the reading and building tables")
    parser.add_argument("--scratch", type=Path, help="where images and stores are made for the time being")
    parser.add_argument("--out", type=Path, help="also write the tables into this Markdown file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, root, cache, count, *rest = options.child
        if what == "opening":
            print(opening_child(Path(root), Path(cache), int(count)))
        else:
            print(building_child(Path(root), Path(cache), int(count), rest == ["1"]))
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench_store_", dir=options.scratch) as name:
        scratch = Path(name)
        roots = {count: scratch / f"images{count}" for count in options.images}
        for count, root in roots.items():
            make(root, count, 240)
        many = scratch / "read"
        make(many, options.read, 480)
        os.sync()
        time.sleep(2.1)  # the images are to look as if they had been there for long
        lines = [
            "# Time of the image store",
            "",
            "Written by `scripts/bench_store.py` in one run, wall clock. Made images, half JPEG, half PNG;",
            "short side to 256, crop of 224. Load when it began, of what else the machine did: "
            f"{load:.1f} on {os.cpu_count()} cores.",
            f"{cpu_name()}, Python {platform.python_version()}, Pillow {PIL.__version__}, "
            f"NumPy {np.__version__}, {datetime.date.today()}.",
            "",
            *reading(many, scratch / "cache", options.read),
            *opening(roots, scratch / "opened"),
            *first_build(many, scratch, options.read),
        ]
    publish(lines, options.out)


if __name__ == "__main__":
    main()
