"""What a person sees while cells run: bars in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ad_bench.records import CellId
from ad_bench.running import Presence

T = TypeVar("T")


class Watch(AbstractContextManager["Watch"]):
    """Bars on a terminal, of the cells and of the stage of the current one; one line a cell elsewhere.

    Several processes have a stage each, their `lane`.
    """

    at = ""  # the stage
    of: int | None = None  # how many steps it has
    presence: Presence | None = None  # says the same to other processes

    def __init__(self, cells: int, console: Console | None = None, lanes: int = 1) -> None:
        self.console = console or Console(stderr=True)
        self.cells, self.finished = cells, 0
        self.bars: Progress | None = None
        if self.console.is_terminal:
            self.bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.total = self.bars.add_task("cells", total=cells, speed="")
            self.stages = [self.bars.add_task("", total=None, visible=False, speed="") for _ in range(lanes)]

    def __enter__(self) -> Watch:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars:
            self.bars.stop()
        if self.presence:
            self.presence.close()

    def work(self, cells: Sequence[CellId], results: Path, device: str) -> None:
        """These cells come next: `adbench status` shows them."""
        if self.presence is None:
            self.presence = Presence(results)
        self.presence.cell(cells, device)

    def line(self, text: str) -> None:
        """One line above the bars."""
        (self.bars.console if self.bars else self.console).print(
            escape(text), highlight=False, soft_wrap=True
        )

    def cell_done(self, text: str, lane: int = 0) -> None:
        """Count a cell and say how it ended."""
        self.finished += 1
        self.line(f"[{self.finished}/{self.cells}] {text}")
        if self.bars:
            self.bars.update(self.total, completed=self.finished)
            self.bars.update(self.stages[lane], visible=False)

    def begin(self, text: str, total: int | None = None, lane: int = 0) -> None:
        """A new stage of the current cell."""
        self.at, self.of = text, total
        if self.presence:
            self.presence.stage(text, 0, total)
        if self.bars:
            self.bars.reset(self.stages[lane], total=total, description=text, visible=True, speed="")

    def advance(self, done: int, speed: str = "", lane: int = 0) -> None:
        """The stage has come so far."""
        if self.presence:
            self.presence.stage(self.at, done, self.of)
        if self.bars:
            self.bars.update(self.stages[lane], completed=done, speed=speed)

    def track(
        self, items: Iterable[T], total: int | None = None, text: str = "", unit: str = ""
    ) -> Iterator[T]:
        """The same items, counted on the stage's bar; `unit` adds a speed such as images/s."""
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        self.begin(text, total)
        start, shown = time.monotonic(), 0.0
        for done, item in enumerate(items):
            yield item
            now = time.monotonic()
            if now - shown > 0.1 or done + 1 == total:  # 20,000 coreset steps must not draw 20,000 times
                shown = now
                self.advance(done + 1, f"{(done + 1) / max(now - start, 1e-9):.0f} {unit}" if unit else "")
