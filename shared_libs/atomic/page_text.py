"""What a model reads of an HTTP answer: bytes as text, and a page without its markup."""

from __future__ import annotations

import codecs
import contextlib
import html
import re
from urllib.parse import urljoin

_META = re.compile(
    rb"""<(?:meta[^>]{0,200}?charset|\?xml[^>]{0,100}?encoding)\s{0,9}=\s{0,9}["']?\s{0,9}([a-z0-9_:.-]{1,40})""",
    re.IGNORECASE,
)
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NO_CHARSETS = {"idna", "punycode", "raw_unicode_escape", "unicode_escape", "undefined"}
"""Codecs of text that no server means, some of them slow on purpose-made input."""

_OPENING = re.compile(r"<!--|<[!?]|<(?P<end>/?)(?P<tag>[a-z][a-z0-9:-]*+)", re.IGNORECASE)
_ATTRIBUTES = re.compile(r"""(?:[^>"']++|"[^"]*+"|'[^']*+')*+(?=>)""")
_ATTRIBUTE = re.compile(
    r"""(?<![^\s"'/])(?P<name>[a-z]++)\s*+=\s*+(?P<value>"[^"]*+"|'[^']*+'|[^\s"']++)""", re.IGNORECASE
)

MAX_ATTRIBUTES = 10_000
"""Characters of a tag in which its attributes are looked for."""

_QUOTED = re.compile(r"""=\s*+(?:"[^"]*+"|'[^']*+')""")
_HIDDEN = re.compile(r"(?<![\w-])hidden(?![\w-])", re.IGNORECASE)
_HIDES = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|(?:opacity|font-size)\s*:\s*0*\.?0+(?![\d.])"
    r"|(?:left|right|top|bottom|text-indent)\s*:\s*-\d{3,}(?:\.\d+)?(?:px|r?em|v[wh]|%)"
    r"|color\s*:\s*transparent|clip\s*:\s*rect\(\s*[01](?:px)?[\s,]|clip-path\s*:\s*inset\(\s*(?:50|100)%"
    r"|transform\s*:\s*scale\(\s*0\s*\))",
    re.IGNORECASE,
)
_NEVER_CLOSED = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_MAYBE_CLOSED = {"dd", "dt", "li", "option", "td", "th", "tr"}
_AROUND = {"dl", "ol", "select", "table", "tbody", "tr", "ul"}
"""What ends with them, where its own end is left out."""

_UNSEEN = {"iframe", "noscript", "script", "style", "svg", "template", "textarea"}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt", "fieldset"),
    *("figcaption", "figure", "footer", "form", "header", "main", "nav", "ol", "p", "pre", "section", "summary"),
    *("button", "center", "dialog", "dir", "hgroup", "legend", "menu", "optgroup", "option", "search", "table", "ul"),
}
_HEADINGS = {"title": 1, "h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_MARKS = {"li": "\n- ", "br": "\n", "hr": "\n---\n"}
_KEEP = str.maketrans(" \n\t", "\ue000\ue001\ue002")
_GIVE_BACK = str.maketrans("\ue000\ue001\ue002", " \n\t")
"""The white space of preformatted text is out of sight while all other is folded."""


def decoded(body: bytes, charset: str | None, *, is_html: bool = False) -> str:
    """
    Read bytes as text: by their byte order mark, the charset they came with, what the page says, else UTF-8.

    A name that is no charset counts as none; what does not fit is replaced, never an error.
    """
    for mark, name in BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace")
    told = _known(charset)
    if told is None and is_html:
        told = declares_charset(body)
    if told is not None:
        return body.decode(told, "replace")
    return body.decode("utf-8" if is_utf8(body) else "cp1252", "replace")  # the second is what browsers fall back to


def declares_charset(page: bytes) -> str | None:
    """Return the charset that HTML or XHTML says it is written in, where it is one."""
    meta = _META.search(page, 0, 4096)
    return None if meta is None else _known(meta[1].decode("ascii"))


def is_utf8(body: bytes) -> bool:
    """Whether most of what is not ASCII is UTF-8: a byte that was lost makes a text no other."""
    text = body.decode("utf-8", "replace")
    return 2 * text.count("\ufffd") <= len(text) - len(text.encode("ascii", "ignore"))


def _known(charset: str | None) -> str | None:
    try:
        found = codecs.lookup((charset or "").strip("\"' "))
        b"a".decode(found.name, "ignore")  # refuses those that make no text, such as zlib
    except (LookupError, ValueError):
        return None
    return None if found.name.replace("-", "_") in _NO_CHARSETS else found.name


def readable(page: str, address: str) -> str:
    """
    Turn HTML into text: headings, lists, tables and links stay visible, scripts and styles go, and what the page hides.

    Hidden is what says so itself (`hidden`, `display: none`, `visibility: hidden`, no size, no opacity, out of sight):
    who reads the page does not see it, so a model is not told it either. Style sheets are not read.
    """
    writer = _Writer(address)
    at = 0
    while found := _OPENING.search(page, at):
        writer.text(page[at : found.start()])
        at = _markup(page, found, writer)
    writer.text(page[at:])
    return writer.whole()


def _markup(page: str, found: re.Match[str], writer: _Writer) -> int:
    """Write what the markup stands for, and return where it ends."""
    name, at = (found["tag"] or "").lower(), found.end()
    if not name:
        closing = "-->" if found[0] == "<!--" else ">"
        at = page.find(closing, at - 2)  # `<!-->` is a comment as well
        return len(page) if at < 0 else at + len(closing)
    inside = _ATTRIBUTES.match(page, at)
    end = inside.end() if inside else page.find(">", at)  # with a quote that is never closed
    if end < 0:
        return len(page)
    if found["end"]:
        writer.close(name)
    elif name in _UNSEEN:
        closed = re.compile(rf"</{name}\b[^>]*>?", re.IGNORECASE).search(page, end)
        return closed.end() if closed else len(page)
    else:
        writer.open(name, page[at : min(end, at + MAX_ATTRIBUTES)])
    return end + 1


class _Writer:
    """The text so far."""

    def __init__(self, address: str) -> None:
        self._parts: list[str] = []
        self._address = address
        self._pre = 0
        self._link = ""
        self._first_cell = True
        self._hidden = ""
        self._depth = 0

    def text(self, data: str) -> None:
        if self._hidden:
            return
        with contextlib.suppress(ValueError):  # a character of 5,000 digits
            data = html.unescape(data)
        self._parts.append(data.translate(_KEEP) if self._pre else re.sub(r"\s+", " ", data))

    def open(self, tag: str, attributes: str) -> None:
        if self._hidden and self._stays_hidden(tag):
            return
        if _hides(attributes):
            if tag not in _NEVER_CLOSED:
                self._hidden, self._depth = tag, 1
            return
        if tag in _HEADINGS:
            self._parts.append(f"\n\n{'#' * _HEADINGS[tag]} ")
        elif tag in _MARKS:
            self._parts.append(_MARKS[tag])
        elif tag == "tr":
            self._parts.append("\n")
            self._first_cell = True
        elif tag in ("td", "th"):
            self._parts.append("" if self._first_cell else " | ")
            self._first_cell = False
        elif tag == "a":
            self._open_link(_attribute("href", attributes))
        elif tag == "img" and (alt := _attribute("alt", attributes).strip()):
            self._parts.append(re.sub(r"\s+", " ", f"[image: {alt}]"))
        elif tag in _BLOCKS:
            self._parts.append("\n\n")
            self._pre += tag == "pre"

    def _stays_hidden(self, tag: str) -> bool:
        """Whether what is hidden goes on as this opens inside it: an end that is left out is where the next begins."""
        over = tag in _BLOCKS or tag in _HEADINGS if self._hidden == "p" else tag == self._hidden in _MAYBE_CLOSED
        if over and self._depth == 1:
            self._hidden = ""
        self._depth += tag in (_AROUND if self._hidden in _MAYBE_CLOSED else (self._hidden,))
        return bool(self._hidden)

    def _hidden_until(self, tag: str) -> bool:
        """Whether what is hidden goes on behind this end, or ends with it."""
        own, around = tag == self._hidden, self._hidden in _MAYBE_CLOSED and tag in _AROUND
        if own and self._depth > 1 and self._hidden in _MAYBE_CLOSED:
            return True
        self._depth -= own or around
        if self._depth < 1 or (self._hidden == "p" and tag in _BLOCKS):
            self._hidden = ""
            return own
        return True

    def close(self, tag: str) -> None:
        if self._hidden and self._hidden_until(tag):
            return
        if tag == "a" and self._link:
            self._parts.append(f"]({self._link})")
            self._link = ""
        elif tag in _HEADINGS or tag in _BLOCKS:
            self._parts.append("\n\n")
            self._pre = max(0, self._pre - (tag == "pre"))

    def whole(self) -> str:
        text = re.sub(r" {2,}", " ", "".join(self._parts))
        text = re.sub(r" ?\n[ \n]*", lambda gap: "\n\n" if gap[0].count("\n") > 1 else "\n", text).strip()
        text = re.sub(r"^- ?\n\n(?=[^\n-])", "- ", text, flags=re.MULTILINE)  # a paragraph inside an item
        return text.translate(_GIVE_BACK)

    def _open_link(self, href: str) -> None:
        self.close("a")
        target = ""
        with contextlib.suppress(ValueError):
            target = urljoin(self._address, href.strip()) if href and not href.startswith("#") else ""
        if target.startswith(("http://", "https://")):
            self._link = target
            self._parts.append("[")


def _hides(attributes: str) -> bool:
    if not attributes:
        return False
    return bool(_HIDDEN.search(_QUOTED.sub("", attributes)) or _HIDES.search(_attribute("style", attributes)))


def _attribute(name: str, attributes: str) -> str:
    for found in _ATTRIBUTE.finditer(attributes):
        if found["name"].lower() == name:
            with contextlib.suppress(ValueError):
                return html.unescape(found["value"].strip("\"'"))
    return ""
