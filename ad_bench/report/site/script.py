"""Data as scripts: a page opened from a folder may load scripts, but no other files."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any

from ad_bench.records import path_name


@lru_cache(maxsize=1 << 16)
def slug(text: str) -> str:
    """One portable part of a path, of a key and of the page's address: as the runs' folders are named."""
    return path_name(text.encode("utf-8", "backslashreplace").decode())  # a record may hold lone surrogates


def row_key(dataset: str, method: str, variant: str, protocol: str) -> str:
    """`mvtec/patchcore@backbone=resnet18/full`: names a row in files and in the page's address."""
    return "/".join(map(slug, (dataset, f"{method}@{variant}" if variant else method, protocol)))


def script(key: str, value: Any) -> str:
    """One call that hands `value` to the page under `key`.

    ASCII alone: line separators and lone surrogates are escaped. No `<`, so that no text can end the script
    or open a comment. What JSON has no word for (NaN, infinities) becomes null.
    """
    return f"adbench.put({_json(key)},{_json(value)});\n"


def _json(value: Any) -> str:
    import orjson

    try:
        text = orjson.dumps(value).decode()  # NaN and infinities become null
        if text.isascii():
            return text.replace("<", "\\u003c")
    except TypeError:  # a lone surrogate, a number of more than 64 bits
        pass
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(held) for held in value]
    return value
