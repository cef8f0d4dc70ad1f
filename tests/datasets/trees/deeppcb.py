"""DeepPCB: pairs of two groups, in no order, three to train, two to test; boxes of one kind and of two."""

from pathlib import Path

from tests.datasets.trees import BOX, image

PAIRS = {"trainval": ("44000011", "20085000", "20085001"), "test": ("44000012", "20085291")}


def make(root: Path) -> None:
    rows, columns = BOX
    box = f"{columns.start} {rows.start} {columns.stop} {rows.stop}"
    for name, pairs in PAIRS.items():
        lines = []
        for number in pairs:
            group = number[:5]
            home = root / f"PCBData/group{group}"
            image(home / f"{group}/{number}_temp.jpg", mode="L")
            image(home / f"{group}/{number}_test.jpg", defect=True, mode="L")
            annotation = home / f"{group}_not/{number}.txt"
            annotation.parent.mkdir(exist_ok=True)
            more = "40 2 60 20 6\n" if number.startswith("4") else ""
            annotation.write_text(f"{box} 3\n{more}")
            lines.append(f"group{group}/{group}/{number}.jpg group{group}/{group}_not/{number}.txt")
        (root / f"PCBData/{name}.txt").write_text("\n".join(lines))  # no line feed at the end, as published
