"""The code blocks of the pages, with what a comment before one says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]

_MARK = re.compile(r"<!-- (file|shown): (.+?) -->\s*")


@dataclass(frozen=True, slots=True)
class Block:
    """
    A block of code as a reader finds it.

    Args:
        page: the page, relative to the repository.
        line: where its code begins.
        language: what it is written in.
        code: its text.
        file: the name under which a reader keeps it (`<!-- file: agent.yaml -->` before it).
        shown: why it is not run (`<!-- shown: why -->` before it).

    """

    page: str
    line: int
    language: str
    code: str
    file: str = ""
    shown: str = ""


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a page, also those in lists and quotes."""
    found: list[Block] = []
    mark: re.Match[str] | None = None
    page = path.relative_to(ROOT).as_posix()
    for token in MarkdownIt().parse(path.read_text("utf-8")):
        if token.type == "html_block":
            mark = _MARK.fullmatch(token.content)
        elif token.type == "fence":
            language = token.info.split(" ")[0]
            said = {mark[1]: mark[2]} if mark else {}
            found.append(Block(page, (token.map or [0])[0] + 2, language, token.content, **said))
            mark = None
    return found
