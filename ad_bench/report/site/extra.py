"""Pages that other parts of a report add to the site: text, one table, one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Extra:
    """A page of its own in the menu: `#/more/<ident>`. All strings are shown as they are, never as markup."""

    ident: str
    title: str
    paragraphs: Sequence[str] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    svg: str = ""  # the text of one picture; shown as an image, so that nothing in it can run
    picture: str = field(default="")  # what the picture shows, for those who do not see it


def extra_page(extra: Extra, picture: str) -> dict[str, Any]:
    """What the page needs; `picture` is the file of its picture below the site, blank without one."""
    return {
        "title": extra.title,
        "paragraphs": list(extra.paragraphs),
        "head": list(extra.head),
        "rows": [list(row) for row in extra.rows],
        "picture": picture,
        "alt": extra.picture or extra.title,
    }
