"""
Files as documents: text, Markdown, HTML and PDF, and office files where `kreuzberg` is installed.

A file is named by its absolute path, so the same file is the same document from wherever it is indexed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.loading import optional
from shared_libs.atomic.page_text import BYTE_ORDER_MARKS, decoded, is_utf8, readable
from shared_libs.retrieval.types import Document

_TEXT = {
    **dict.fromkeys((".txt", ".text", ".log", ".csv", ".tsv", ".json", ".yaml", ".yml", ".toml"), "text/plain"),
    **dict.fromkeys((".md", ".markdown", ".rst"), "text/markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "text/html"),
}
_PDF = {".pdf": "application/pdf"}
_OFFICE = {
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".epub": "application/epub+zip",
    ".rtf": "application/rtf",
}
KINDS = _TEXT | _PDF | _OFFICE
"""The media type of each kind of file that is read, by its ending."""

MAX_BYTES = 200_000_000
"""Bytes a file may have."""

_ASCII = bytes(range(128))
_GUESSED = 65_536
"""Bytes that tell how a text is written."""

_NOT_LATIN, _TELLING = 4, 16
"""One byte in four is beyond ASCII where letters are not Latin (accents: one in ten); less than 16 tell nothing."""

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
        if kind in _PDF:
            text = _pdf(self.path)
        elif kind in _OFFICE:
            text = _office(self.path)
        else:
            text = _text(self.path.read_bytes(), html=_TEXT.get(kind) == "text/html")
        heading = _FIRST_HEADING.search(text, 0, 4_000) if _TEXT.get(kind) in ("text/markdown", "text/html") else None
        return Document(
            source=self.source,
            text=text,
            title=heading[1] if heading else _shown(self.path.name),
            media_type=KINDS.get(kind, "text/plain"),
            metadata={
                "file": _shown(self.path.name),
                "folder": _shown(self.path.parent.as_posix()),
                "kind": _shown(kind.lstrip(".")),
            },
        )


def find_files(paths: Iterable[Path]) -> Iterator[File]:
    """
    Yield the files of folders, all levels of them, by name; a file that is named itself is read whatever its ending.

    What begins with a dot is left out, and so are endings that no reader knows.

    Raises:
        MisuseError: there is no such file or folder.

    """
    for path in paths:
        if path.is_dir():
            for found in sorted(path.rglob("*")):
                inside = found.relative_to(path).parts
                if found.suffix.lower() in KINDS and found.is_file() and not any(part[0] == "." for part in inside):
                    yield File(found, path)
        elif path.is_file():
            yield File(path)
        else:
            raise MisuseError(f"there is no file or folder {path}")


def _shown(name: str) -> str:
    """Return a name as text: bytes of another encoding, as old archives have them, stand as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _text(body: bytes, *, html: bool) -> str:
    if not html and b"\0" in body[:4_096] and not body.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise MisuseError("it is no text; allowed are " + ", ".join(sorted(KINDS)))
    if body.startswith(b"%PDF-"):
        raise MisuseError("it is a PDF by another name; let its name end in .pdf")
    text = decoded(body, None if html else _charset(body), is_html=html)
    return readable(text, "") if html else text


def _charset(body: bytes) -> str | None:
    """Name how a text is written that is neither UTF-8 nor of Latin letters: old Chinese, Japanese, Russian files."""
    if body.startswith(tuple(mark for mark, _ in BYTE_ORDER_MARKS)):
        return None
    lines = body[:_GUESSED].rpartition(b"\n")[0] if len(body) > _GUESSED else b""
    told = lines or body[: 16 * _GUESSED]
    beyond = len(told.translate(None, _ASCII))
    if beyond < max(_TELLING, len(told) // _NOT_LATIN) or is_utf8(told):
        return None
    guesser = optional("charset_normalizer", "a text that is not UTF-8")
    best = guesser.from_bytes(told).best()
    return None if best is None else str(best.encoding)


def _pdf(path: Path) -> str:
    pypdfium2 = optional("pypdfium2", "a PDF")
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise MisuseError(f"the PDF cannot be read: {error}") from error
    with document:
        return "\n\n".join(page.get_textpage().get_text_bounded() for page in document)


def _office(path: Path) -> str:
    kreuzberg = optional("kreuzberg", f"a {path.suffix} file")
    try:
        return str(kreuzberg.extract_file_sync(str(path)).content)
    except Exception as error:
        raise MisuseError(f"the file cannot be read: {error}") from error
