"""The README's two pictures of the HTML page, from the results at hand (those of `make demo`).

    python scripts/make_page_pictures.py [--results results] [--dataset synthetic]

Needs a Chromium on the PATH, or its path in CHROMIUM.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

WIDTH = 1280
SHOWN = {"html_leaderboard.png": ("", 860), "html_gallery.png": ("/gallery", 1180)}  # page, height


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--results", type=Path, default=Path("results"))
    options.add_argument("--dataset", default="synthetic")
    chosen = options.parse_args()
    browser = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    page = (chosen.results / "html" / "index.html").resolve()
    if browser is None or not page.is_file():
        raise SystemExit(f"no Chromium on the PATH, or no {page}: adbench report makes it")

    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-background-networking"]
        )
        for name, (part, height) in SHOWN.items():
            tab = started.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
            tab.goto(f"{page.as_uri()}#/dataset/{chosen.dataset}{part}")
            tab.wait_for_load_state("networkidle")
            tab.wait_for_timeout(1000)  # the pictures' own scripts
            tab.screenshot(path=chosen.results / name)
            print(chosen.results / name)
        started.close()


if __name__ == "__main__":
    main()
