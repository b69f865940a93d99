"""
Texts that are packed into a file: a mail's, a notebook's, a book's, each with what it calls itself.

Read here and not by a library of office files: that read Chinese mail, every notebook that is not in ASCII and the
chapters of books whose names are escaped as noise, or left them out without a word.
"""

from __future__ import annotations

import email
import json
import posixpath
import re
import zipfile
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import EmailMessage, MIMEPart
from email.policy import EmailPolicy
from io import BytesIO
from itertools import islice
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from shared_libs.atomic.errors import MisuseError
from shared_libs.retrieval.plain_texts import text_of

MAX_UNPACKED = 100_000_000
"""Bytes that a book has when it is unpacked: a small file may hold any number."""

MOST_PARTS = 1_000
"""Parts of a mail, those of what it forwards among them: each takes a millisecond."""

LONGEST_HEADER = 10_000
"""Characters that are read of a header; the time that the standard library takes for one grows faster than it does."""

_TOLD = ("Subject", "From", "To", "Cc", "Date")
_NO_TEXT = ("application", "audio", "font", "image", "model", "video")
_PAGE = ".html"
_HIDDEN_RUN = re.compile(
    rb"<w:r(?:\s[^<>]*+)?>\s*+<w:rPr>(?:(?!</?w:rPr>|<w:vanish\b).)*+"
    rb"<w:vanish(?:\s++w:val=[\"'](?:1|true|on)[\"'])?\s*+/>(?:(?!</?w:r[\s>]).)*+",
    re.DOTALL,
)
_TEXT_OF_A_RUN = re.compile(rb"<w:t(?:\s[^<>]*+)?>[^<]*+</w:t>")


class _Bounded(EmailPolicy):
    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:LONGEST_HEADER]


def mail(body: bytes) -> tuple[str, str]:
    """Return the subject and the text of a mail, of those it forwards, and the names of what is attached."""
    message: Any = email.message_from_bytes(body.removeprefix(BOM_UTF8), _class=EmailMessage, policy=_Bounded())
    if sum(1 for _ in islice(message.walk(), MOST_PARTS + 1)) > MOST_PARTS:
        raise MisuseError(f"it has more than {MOST_PARTS:,} parts")
    return _header(message, "Subject"), "\n\n".join(_parts(message)).strip()


def _parts(message: MIMEPart) -> Iterator[str]:
    yield "\n".join(f"{name}: {told}" for name in _TOLD if (told := _header(message, name)))
    text = message.get_body(("plain", "html"))
    yield _content(message if text is None else text)
    for part in message.iter_attachments() if message.is_multipart() else ():
        if part.get_content_type() == "message/rfc822":
            yield from _parts(part.get_content())
        elif part.get_filename():
            yield f"Attached: {part.get_filename()}"
        else:
            yield _content(part)


def _header(message: MIMEPart, name: str) -> str:
    """Return a header, without reading more into it than its words: what the standard library knows of some fails."""
    written = next((str(value) for key, value in message.raw_items() if key.lower() == name.lower()), "")
    try:
        told = str(make_header(decode_header(written)))
    except (MessageError, LookupError, ValueError):  # a charset nobody knows, or none at all
        told = written
    if any("\udc80" <= sign <= "\udcff" for sign in told):  # its sender wrote it in bytes
        told = _text(written.encode("utf-8", "surrogateescape"))
    return " ".join(told.split())


def _content(part: MIMEPart) -> str:
    body = part.get_payload(decode=True)
    if not isinstance(body, bytes) or part.get_content_maintype() in _NO_TEXT:
        return ""
    return _text(body, _PAGE if part.get_content_subtype() == "html" else "", part.get_content_charset()).strip()


def _text(body: bytes, kind: str = "", charset: str | None = None) -> str:
    """Return what a part tells; one that is no text, whatever it says, costs no other."""
    try:
        return text_of(body, kind, charset)
    except MisuseError:
        return ""


def notebook(body: bytes) -> tuple[str, str]:
    """Return the title and the texts, the code and what it printed, of a notebook of any version."""
    book = json.loads(body)
    sheets = book.get("worksheets") or [book]
    cells = [cell for sheet in sheets for cell in sheet.get("cells") or ()]
    title, texts = "", list[str]()
    for cell in cells:
        text = _lines(cell.get("source", cell.get("input")))
        if cell.get("cell_type") == "markdown" and text.startswith("# "):
            title = title or text.partition("\n")[0].strip("# ")
        texts.append(text)
        for output in cell.get("outputs") or ():
            shown = output.get("data", output)
            texts.append(_lines(output.get("text") or shown.get("text/markdown") or shown.get("text/plain")))
    return title, "\n\n".join(filter(None, texts))


def _lines(told: Any) -> str:
    return ("".join(map(str, told)) if isinstance(told, list) else str(told or "")).strip()


def book(body: bytes) -> tuple[str, str]:
    """Return the title and the chapters of an EPUB in the order of its spine."""
    with zipfile.ZipFile(BytesIO(body)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED:
            raise MisuseError(f"it has more than {MAX_UNPACKED:,} bytes when it is unpacked")
        root = _xml(archive, "META-INF/container.xml").find(".//{*}rootfile")
        place = "" if root is None else root.get("full-path", "")
        package = _xml(archive, place)
        named = {item.get("id"): item.get("href", "") for item in package.iterfind("{*}manifest/{*}item")}
        chapters = [named.get(item.get("idref"), "") for item in package.iterfind("{*}spine/{*}itemref")]
        folder = posixpath.dirname(place)
        there = set(archive.namelist())
        paths = [posixpath.normpath(posixpath.join(folder, unquote(chapter))) for chapter in chapters if chapter]
        # each once: a kilobyte that names one chapter a thousand times would be gigabytes
        texts = [text_of(archive.read(path), _PAGE) for path in dict.fromkeys(paths) if path in there]
        return (package.findtext(".//{*}title") or "").strip(), "\n\n".join(filter(None, texts))


def without_hidden(body: bytes) -> bytes:
    """Return a Word file without the runs that it says are hidden: who reads it does not see them."""
    with zipfile.ZipFile(BytesIO(body)) as archive:
        if "word/document.xml" not in archive.namelist():
            return body
        told = archive.read("word/document.xml")
        shown = _HIDDEN_RUN.sub(lambda run: _TEXT_OF_A_RUN.sub(b"", run[0]), told)
        if shown == told:
            return body
        made = BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as copy:
            for entry in archive.infolist():
                copy.writestr(entry.filename, shown if entry.filename == "word/document.xml" else archive.read(entry))
        return made.getvalue()


def _xml(archive: zipfile.ZipFile, name: str) -> ET.Element:
    return ET.fromstring(archive.read(name))  # noqa: S314 - expat loads nothing and stops where entities grow


PACKED: dict[str, Callable[[bytes], tuple[str, str]]] = {".eml": mail, ".ipynb": notebook, ".epub": book}
"""What reads a kind of file, by its ending; each returns a title and a text."""
