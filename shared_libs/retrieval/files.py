"""
Files as documents: text, Markdown, HTML, mail, notebooks, books and PDF, and office files where `kreuzberg` is there.

A file is named by its absolute path, so the same file is the same document from wherever it is indexed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from shared_libs.atomic.errors import MisuseError, in_words
from shared_libs.retrieval.apart import OFFICE, Readers
from shared_libs.retrieval.packed_texts import PACKED
from shared_libs.retrieval.plain_texts import text_of
from shared_libs.retrieval.types import Document

_TEXT = {
    **dict.fromkeys((".txt", ".text", ".log", ".csv", ".tsv", ".json", ".yaml", ".yml", ".toml"), "text/plain"),
    **dict.fromkeys((".jsonl", ".ndjson", ".xml", ".srt", ".vtt", ".tex", ".org"), "text/plain"),
    **dict.fromkeys((".md", ".markdown", ".mdx", ".rst", ".adoc", ".asciidoc"), "text/markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "text/html"),
}
_PDF = {".pdf": "application/pdf"}
_PACKED = {".eml": "message/rfc822", ".ipynb": "application/x-ipynb+json", ".epub": "application/epub+zip"}
KINDS = {**_TEXT, **_PDF, **_PACKED, **OFFICE}
"""The media type of each kind of file that is read, by its ending."""

MAX_BYTES = 200_000_000
"""Bytes a file may have."""

_LOCK = "~$"
"""How the file begins that an office program leaves beside one that is open."""

_FRONT_TITLE = re.compile(r"\A(---|\+\+\+)\n(?:(?!\1\n).*\n){0,100}?title\s*[:=][ \t]*(['\"]?)(\S.*?)\2[ \t]*\n")
_FIRST_HEADING = re.compile(r"^#{1,2}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)


class File:
    """
    A file that is read when its turn comes.

    Args:
        path: where it is.
        inside: the folder it was found in; it is not read where it is a link that leads out of it.

    """

    def __init__(self, path: Path, inside: Path | None = None) -> None:
        self.path = path.absolute()
        self._inside = inside

    @property
    def source(self) -> str:
        """What names it: its absolute path."""
        return _shown(self.path.as_posix())

    def load(self) -> Document:
        """
        Read it; blocks.

        Raises:
            MisuseError: it is of no kind that is read, too large, its reader is not installed, or it leads out of its
                folder.
            OSError: it cannot be opened.

        """
        if self._inside is not None and not self.path.resolve().is_relative_to(self._inside.resolve()):
            raise MisuseError("it is a link to a file outside of the folder; name that file itself if it is meant")
        kind = self.path.suffix.lower()
        size = self.path.stat().st_size
        if size > MAX_BYTES:
            raise MisuseError(f"it has {size:,} bytes, of at most {MAX_BYTES:,}")
        title, text = self._read(kind) if size else ("", "")
        return Document(
            source=self.source,
            text=text,
            title=title or _shown(self.path.name),
            media_type=KINDS.get(kind, "text/plain"),
            metadata={
                "file": _shown(self.path.name),
                "folder": _shown(self.path.parent.as_posix()),
                "kind": _shown(kind.lstrip(".")),
            },
        )

    def _read(self, kind: str) -> tuple[str, str]:
        if kind in PACKED:
            try:
                return PACKED[kind](self.path.read_bytes())
            except Exception as error:
                raise MisuseError(f"the {kind} file cannot be read: {in_words(error)}") from error
        if kind in _PDF or kind in OFFICE:
            return "", _readers.read(self.path)
        body = self.path.read_bytes()
        if body.startswith(b"%PDF-"):
            raise MisuseError("it is a PDF by another name; let its name end in .pdf")
        text = text_of(body, kind)
        return _title(text, _TEXT.get(kind)), text


def find_files(paths: Iterable[Path], *, left_out: Callable[[Path, str], None] | None = None) -> Iterator[File]:
    """
    Yield the files of folders, all levels of them, by name; a file that is named itself is read whatever its ending.

    What begins with a dot is left out without a word, and so is what an office program keeps beside an open file.

    Args:
        paths: files and folders.
        left_out: hears of everything else that is not read, with the reason.

    Raises:
        MisuseError: there is no such file or folder.

    """

    def tell(path: Path, why: str) -> None:
        if left_out is not None:
            left_out(path, why)

    for path in paths:
        if path.is_dir():
            for found in _inside(path, tell):
                if why := _unread(found):
                    tell(found, why)
                elif found.exists():  # a link to nothing is nothing
                    yield File(found, path)
        elif path.is_file():
            yield File(path)
        else:
            raise MisuseError(f"there is no file or folder {path}" if not path.exists() else f"{path} is no file")


def _unread(found: Path) -> str:
    """Say why something in a folder is not read; "" where nothing is against it."""
    kind = found.suffix.lower()
    if kind not in KINDS:
        return f"no reader knows {kind or 'a name without an ending'}"
    try:
        return "" if found.is_file() or not found.exists() else "it is no file"
    except OSError as error:  # a folder may be listed and not entered
        return f"it cannot be looked at: {error.strerror}"


def _inside(folder: Path, tell: Callable[[Path, str], None]) -> Iterator[Path]:
    """Yield what is no folder, by name; a folder that cannot be listed is told: its files are not gone."""

    def refused(error: OSError) -> None:
        tell(Path(os.fsdecode(error.filename)), f"the folder cannot be listed: {error.strerror}")

    every = []
    for place, folders, names in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".")]
        every += [Path(place, name) for name in names if not name.startswith((".", _LOCK))]
    yield from sorted(every)


def _shown(name: str) -> str:
    """Return a name as text: bytes of another encoding, as old archives have them, stand as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _title(text: str, kind: str | None) -> str:
    """Return what a page calls itself; "" where it does not."""
    if kind not in ("text/markdown", "text/html"):
        return ""
    if front := _FRONT_TITLE.match(text[:4_000]):
        return front[3]
    heading = _FIRST_HEADING.search(text, 0, 4_000)
    return heading[1] if heading else ""


_readers = Readers()
