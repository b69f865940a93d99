"""
Files as documents: text, Markdown, HTML, mail, notebooks and PDF, and office files where `kreuzberg` is installed.

A file is named by its absolute path, so the same file is the same document from wherever it is indexed.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.loading import optional
from shared_libs.atomic.page_text import BYTE_ORDER_MARKS, declares_charset, decoded, is_utf8, readable
from shared_libs.retrieval.code_pages import latin_code_page
from shared_libs.retrieval.types import Document

_TEXT = {
    **dict.fromkeys((".txt", ".text", ".log", ".csv", ".tsv", ".json", ".yaml", ".yml", ".toml"), "text/plain"),
    **dict.fromkeys((".jsonl", ".ndjson", ".xml", ".srt", ".vtt", ".tex", ".org"), "text/plain"),
    **dict.fromkeys((".md", ".markdown", ".mdx", ".rst", ".adoc", ".asciidoc"), "text/markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "text/html"),
}
_PDF = {".pdf": "application/pdf"}
_OFFICE = {
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".epub": "application/epub+zip",
    ".rtf": "application/rtf",
    ".doc": "application/msword",
    ".xls": "application/vnd.ms-excel",
    ".ppt": "application/vnd.ms-powerpoint",
    ".eml": "message/rfc822",
    ".msg": "application/vnd.ms-outlook",
    ".ipynb": "application/x-ipynb+json",
}
_ZIPPED = (".docx", ".pptx", ".xlsx", ".odt", ".ods", ".epub")
KINDS = _TEXT | _PDF | _OFFICE
"""The media type of each kind of file that is read, by its ending."""

MAX_BYTES = 200_000_000
"""Bytes a file may have."""

_ASCII = bytes(range(128))
_GUESSED = 65_536
"""Bytes that tell how a text is written."""

_NOT_LATIN, _TELLING = 4, 16
"""Of letters that are not Latin one byte in four is beyond ASCII (accents: one in ten); less than 16 tell nothing."""

_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\n\r\f\x1b"))
_MOST_CONTROLS = 0.01
"""Share of characters that no text has; a log that was cut off has some."""

_ZIP, _OLD_OFFICE = b"PK", b"\xd0\xcf\x11\xe0"
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
        if not size or kind not in _PDF | _OFFICE:
            text = _text(self.path.read_bytes(), html=_TEXT.get(kind) == "text/html")
        else:
            text = _pdf(self.path) if kind in _PDF else _office(self.path)
        return Document(
            source=self.source,
            text=text,
            title=_title(text, _TEXT.get(kind)) or _shown(self.path.name),
            media_type=KINDS.get(kind, "text/plain"),
            metadata={
                "file": _shown(self.path.name),
                "folder": _shown(self.path.parent.as_posix()),
                "kind": _shown(kind.lstrip(".")),
            },
        )


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


def _text(body: bytes, *, html: bool) -> str:
    if body.startswith(b"%PDF-"):
        raise MisuseError("it is a PDF by another name; let its name end in .pdf")
    charset = _charset(body, html=html)
    text = decoded(body, charset, is_html=html)
    return readable(text, "") if html else text


def _charset(body: bytes, *, html: bool) -> str | None:
    """
    Name how a text is written that is not UTF-8: old Polish, Turkish, Chinese, Japanese, Russian files.

    Raises:
        MisuseError: it is no text.

    """
    if body.startswith(tuple(mark for mark, _ in BYTE_ORDER_MARKS)):
        return None
    lines = body[:_GUESSED].rpartition(b"\n")[0] if len(body) > _GUESSED else b""
    told = lines or body[: 16 * _GUESSED]
    if b"\0" in told and (wide := _wide(body[:_GUESSED])):
        return wide
    if len(told) - len(told.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(told):
        raise MisuseError("it is no text; allowed are " + ", ".join(sorted(KINDS)))
    if html and declares_charset(body):
        return None
    beyond = len(told.translate(None, _ASCII))
    if not beyond and b"\x1b$" in told:
        return "iso2022_jp_2"
    if beyond < _TELLING // 2 or is_utf8(told):
        return None
    if page := latin_code_page(told):
        return page
    if beyond < max(_TELLING, len(told) // _NOT_LATIN):
        return None
    guesser = optional("charset_normalizer", "a text that is not UTF-8")
    best = guesser.from_bytes(told).best()
    return None if best is None else str(best.encoding)


def _wide(body: bytes) -> str | None:
    """Tell UTF-16 without its mark: the wrong way round, ASCII is signs that end in a zero byte."""
    likely, least = None, len(body) // 4
    for name in ("utf-16-le", "utf-16-be"):
        text = body.decode(name, "ignore")
        odd = sum(not ord(sign) & 0xFF for sign in text)
        if odd < least and 2 * len(text) >= len(body) - 2 and all(map(_readable, text)):
            likely, least = name, odd
    return likely


def _readable(sign: str) -> bool:
    return sign.isprintable() or sign.isspace()


_one_pdf = threading.Lock()  # PDFium knows no threads, and two collections may be indexed at once


def _pdf(path: Path) -> str:
    pypdfium2 = optional("pypdfium2", "a PDF")
    with _one_pdf:
        try:
            with pypdfium2.PdfDocument(path) as document:
                return "\n\n".join(page.get_textpage().get_text_bounded() for page in document)
        except pypdfium2.PdfiumError as error:
            locked = "password" in str(error).lower()
            said = "it is protected by a password" if locked else f"the PDF cannot be read: {error}"
            raise MisuseError(said) from error


def _office(path: Path) -> str:
    with path.open("rb") as file:
        begins = file.read(4)
    kind = path.suffix.lower()
    if kind in _ZIPPED and begins == _OLD_OFFICE:
        raise MisuseError("it is protected by a password, or of an older kind under a new name")
    if kind in _ZIPPED and not begins.startswith(_ZIP):
        raise MisuseError(f"it is no {kind} file, whatever its name says")
    kreuzberg = optional("kreuzberg", f"a {kind} file")
    try:
        return str(kreuzberg.extract_file_sync(str(path)).content)
    except Exception as error:
        raise MisuseError(f"the file cannot be read: {error}") from error
