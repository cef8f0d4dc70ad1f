"""Where weights are looked for, and what is said when they are nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ad_bench.errors import WeightsError
from ad_bench.parts import weights as weights_module
from ad_bench.parts.weights import find_weights, safetensors_metadata

ROOT = Path(__file__).resolve().parents[2]
NAME = "resnet18.tv_in1k"


def write(path: Path, **metadata: str) -> Path:
    """A safetensors file without tensors."""
    header = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ADBENCH_WEIGHTS folder; nothing in the hub's cache."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("ADBENCH_WEIGHTS", str(folder))
    monkeypatch.setattr(weights_module, "_in_hub_cache", lambda name: None)
    return folder


def test_the_tagged_file_comes_before_the_untagged(folder: Path) -> None:
    untagged = write(folder / "resnet18.safetensors")
    found = find_weights(NAME)
    assert (found.path, found.source, found.tag) == (untagged, "folder", "unknown")
    tagged = write(folder / f"{NAME}.safetensors", mean="0,0,0")
    found = find_weights(NAME)
    assert (found.path, found.source, found.tag) == (tagged, "folder", "tv_in1k")
    assert found.metadata == {"mean": "0,0,0"}
    assert found.sha256 == hashlib.sha256(tagged.read_bytes()).hexdigest()


def test_the_hash_follows_the_file(folder: Path) -> None:
    path = write(folder / f"{NAME}.safetensors", a="1")
    first = find_weights(NAME)
    before = first.sha256
    write(path, a="22")
    assert find_weights(NAME).sha256 == hashlib.sha256(path.read_bytes()).hexdigest() != before


def test_a_given_file_wins(folder: Path, tmp_path: Path) -> None:
    write(folder / f"{NAME}.safetensors")
    mine = write(tmp_path / "mine.safetensors", tag="my_own")
    found = find_weights(NAME, str(mine))
    assert (found.path, found.source, found.tag) == (mine, "given", "my_own")
    assert find_weights(NAME, str(folder)).path == folder / f"{NAME}.safetensors"


def test_random_needs_no_file(folder: Path) -> None:
    found = find_weights("resnet18", "random")
    assert (found.path, found.source, found.sha256) == (None, "random", None)


def test_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "BUNDLED", tmp_path)
    path = write(tmp_path / "test_resnet.ours.safetensors")
    found = find_weights("test_resnet.ours", "bundled")
    assert (found.path, found.source, found.tag) == (path, "bundled", "ours")
    with pytest.raises(
        WeightsError, match=r"ships no weights for 'resnet18.tv_in1k'. Shipped: test_resnet.ours"
    ):
        find_weights(NAME, "bundled")


def test_nothing_found_names_all_four_ways(folder: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        find_weights(NAME)
    text = str(caught.value)
    for part in (
        "backbone.weights=FILE",
        f"{NAME}.safetensors in the folder that ADBENCH_WEIGHTS names: {folder}",
        "hub's cache",
        f"https://huggingface.co/timm/{NAME}: not asked: HF_HUB_OFFLINE is set",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("absent.safetensors", "no such file"),
        ("empty", "holds no resnet18.tv_in1k.safetensors"),
        ("notes.txt", "expected .safetensors"),
        ("pointer.safetensors", "Git LFS"),
        ("garbage.safetensors", "header is no JSON"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "garbage.safetensors").write_bytes((4).to_bytes(8, "little") + b"{{{{")
    with pytest.raises(WeightsError, match=said) as caught:
        find_weights(NAME, str(tmp_path / given))
    assert str(tmp_path / given) in str(caught.value)


def test_a_name_without_tag_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match="has no tag"):
        find_weights("resnet18")


def test_metadata_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert safetensors_metadata(path) == {}


def in_a_process(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code where the environment, which the hub's client reads once at import, is ours."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("ADBENCH_WEIGHTS", "HF_HUB_OFFLINE")
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1", **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


LOOK = """
from ad_bench.parts.weights import find_weights
found = find_weights("test_resnet.r160_in1k")
print(found.source, found.tag, found.path.read_bytes()[8:])
"""


def test_the_hub_and_then_its_cache(tmp_path: Path) -> None:
    content = write(tmp_path / "hub.safetensors", from_="the hub").read_bytes()
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(
                200 if "test_resnet.r160_in1k/resolve/main/model.safetensors" in self.path else 404
            )
            self.send_header("ETag", '"0123456789abcdef"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
        first = in_a_process(LOOK, **env, HF_HUB_DISABLE_XET="1")
        server.shutdown()
    assert first.stdout.startswith("hub r160_in1k"), first.stderr
    assert "the hub" in first.stdout
    assert asked
    second = in_a_process(LOOK, **env)
    assert second.stdout.startswith("hub cache r160_in1k"), second.stderr
    assert "the hub" in second.stdout


def test_an_unreachable_hub_is_said_at_once(tmp_path: Path) -> None:
    code = f"""
import time
from ad_bench.errors import WeightsError
from ad_bench.parts.weights import find_weights
import huggingface_hub
start = time.monotonic()
try:
    find_weights({NAME!r})
except WeightsError as error:
    print(error)
print(time.monotonic() - start < 8)
"""
    done = in_a_process(code, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert "not reached" in done.stdout, done.stderr
    assert "not set" in done.stdout
    assert done.stdout.strip().endswith("True")


def test_a_plan_can_ask_without_torch() -> None:
    code = (
        "import sys; from ad_bench.parts.weights import find_weights; find_weights('resnet18', 'random')\n"
        "print([m for m in ('torch', 'timm', 'safetensors', 'huggingface_hub') if m in sys.modules])"
    )
    assert in_a_process(code).stdout.strip() == "[]"
