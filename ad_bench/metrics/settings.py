"""The `metric` group of the configuration, checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ad_bench.errors import UsageError, closest
from ad_bench.metrics.compat import MODES
from ad_bench.metrics.evaluation import AUPRO_LIMIT, SPRO_LIMIT, catalogue, check_names


@dataclass(frozen=True)
class MetricSettings:
    """What is computed of a cell's predictions; conf/metric/default.yaml says what each key means."""

    names: tuple[str, ...] | None = None
    aupro_limits: tuple[float, ...] = (AUPRO_LIMIT,)
    spro_limits: tuple[float, ...] = (SPRO_LIMIT,)
    replicates: int = 0
    level: float = 0.95
    image_threshold: float | None = None
    pixel_threshold: float | None = None
    compat: tuple[str, ...] = ()
    by_defect: bool = False
    memory: float = math.inf  # bytes

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> MetricSettings:
        """The settings of `config.metric`; what is absent has the value that adds nothing.

        Raises UsageError, naming the key and the value, for unknown names and values out of range.
        """
        config = dict(config or {})
        known = [name for name in (field.name for field in fields(cls)) if name not in _GROUPED]
        known += ["intervals", "threshold"]
        for key in config:
            if key not in known:
                raise UsageError(f"metric has no key '{key}'.{closest(str(key), known)}")
        intervals, threshold = dict(config.get("intervals") or {}), dict(config.get("threshold") or {})
        names = config.get("names")
        if isinstance(names, str):
            raise UsageError(f"metric.names={names} is one word; write metric.names=[{names}]")
        found = cls(
            names=None if not names else tuple(map(str, names)),
            aupro_limits=_limits("aupro_limits", config.get("aupro_limits"), AUPRO_LIMIT),
            spro_limits=_limits("spro_limits", config.get("spro_limits"), SPRO_LIMIT),
            replicates=_whole("intervals.replicates", intervals.get("replicates", 0)),
            level=_number("intervals.level", intervals.get("level", 0.95), 0, 1),
            image_threshold=_threshold("image", threshold),
            pixel_threshold=_threshold("pixel", threshold),
            compat=tuple(map(str, config.get("compat") or ())),
            by_defect=bool(config.get("by_defect", False)),
            memory=math.inf if config.get("memory") is None else 1e9 * _number("memory", config["memory"], 0),
        )
        for mode in found.compat:
            if mode not in MODES:
                raise UsageError(f"metric.compat has no '{mode}'.{closest(mode, MODES)}")
        if found.names:
            check_names(found.names)
        return found

    def chosen(self, prefix: str, defects: bool) -> list[str]:
        """The metrics whose names begin with `prefix`; of those with a limit, one for each limit."""
        if self.names is not None:
            return [name for name in self.names if name.startswith(prefix)]
        found: list[str] = []
        for name in catalogue():
            if name == "pixel_aupro":
                found += [_at(name, limit, AUPRO_LIMIT) for limit in self.aupro_limits]
            elif name == "pixel_spro":
                found += [_at(name, limit, SPRO_LIMIT) for limit in self.spro_limits] if defects else []
            else:
                found.append(name)
        return [name for name in found if name.startswith(prefix)]


_GROUPED = ("replicates", "level", "image_threshold", "pixel_threshold")


def _at(name: str, limit: float, default: float) -> str:
    return name if limit == default else f"{name}@{limit:g}"


def _limits(key: str, values: Iterable[Any] | None, default: float) -> tuple[float, ...]:
    if values is None:
        return (default,)
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"metric.{key}={values} is a list of false positive rates, as [0.3, 0.05]")
    return tuple(_number(key, value, 0, 1, closed=True) for value in values)


def _number(key: str, value: Any, low: float, high: float = math.inf, closed: bool = False) -> float:
    wanted = isinstance(value, int | float) and not isinstance(value, bool) and value > low
    if not wanted or value > high or (value == high and not closed):
        upper = "" if high == math.inf else f" and {'at most' if closed else 'below'} {high}"
        raise UsageError(f"metric.{key}={value} must be a number above {low}{upper}")
    return float(value)


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or value == 1:
        raise UsageError(f"metric.{key}={value} must be a whole number from 2 on, or 0 for none")
    return value


def _threshold(key: str, values: Mapping[str, Any]) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UsageError(f"metric.threshold.{key}={value} must be a score, at and above which is defective")
    return float(value)
