"""DAGM 2007: two classes of the whole distribution, in both halves, and one of the competition's."""

from pathlib import Path

from tests.datasets.trees import BOX, image, mask


def make(root: Path) -> None:
    whole(root)
    competition(root, "Class2")


def whole(root: Path) -> None:
    """Label images, and a table that flags the same images."""
    for category in ("Class1", "Class10"):
        for half in ("Train", "Test"):
            home = root / category / half
            rows = ["1"]
            for number in range(1, 7):
                defect = number > 4
                name = f"{number:04}.PNG"
                image(home / name, defect=defect, mode="L")
                if defect:
                    mask(home / f"Label/{number:04}_label.PNG")
                label = f"1\t{number:04}_label.PNG" if defect else "0\t0"
                rows.append(f"{number}\t{int(defect)}\t{name}\t{label}")
            (home / "Label/Labels.txt").write_text("\n".join(rows) + "\n")


def competition(root: Path, category: str) -> None:
    """Numbers without leading zeros, and a table of ellipses: one upright, the others flat."""
    rows, columns = BOX
    x, y = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
    for number in range(1, 11):
        image(root / f"{category}/{number}.png", mode="L")
    lines = []
    for number in range(1, 5):
        image(root / f"{category}_def/{number}.png", defect=True, mode="L")
        angle = 1.5707963 if number == 2 else 0
        lines.append(f"{number}\t12.5\t4e+00\t{angle}\t {x}\t{y}\n")
    (root / f"{category}_def/labels.txt").write_text("".join(lines))
