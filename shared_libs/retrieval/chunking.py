"""
Cutting documents: pure, deterministic, and true to every character.

`text[chunk.start:chunk.end] == chunk.text` for every chunk, nothing but white space is left out, and no chunk has more
tokens than its budget. A cut is made at the best place there is: a heading, else a paragraph, a line, a sentence, a
word. Of several places of one kind that one is taken whose next words have the smallest checksum: so the cuts behind a
change fall where they fell before, and an edit costs its own chunks, not all that follow.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.patterns import late
from shared_libs.retrieval.types import Chunk, Document

VERSION = "1"
"""Of these rules: chunks of other rules have other ids."""

_LEAST = 0.25
"""A heading begins a chunk of its own where the one before it has this share of the budget."""

_EARLIEST = 0.5
"""No other cut is made before this share of the budget."""

_LOOKED_AT = 48
"""Characters behind a cut that decide between places of one kind."""

_HEADING = late(r"^(?:#{1,6}[ \t]+(?P<marked>\S.*?)[ \t#]*|(?P<lined>\S.*)\n[=*~^-]{3,}[ \t]*)$", re.MULTILINE)
_PARAGRAPH = late(r"\n[ \t]*\n\s*")
_LINE = late(r"\n")
_SENTENCE = late(r"[.!?…]{1,40}+[\"'”’)\]]{0,40}+\s+|[。！？；]+[”’」』）]*\s*")  # noqa: RUF001 - it ends sentences
_SPACE = late(r"\s+")
_UNSEEN = dict.fromkeys(
    [
        *(code for code in range(0x20) if chr(code) not in "\t\n"),
        *range(0x7F, 0xA0),
        *(0xAD, 0x200B, 0xFEFF),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xFFF9, 0xFFFC),
        *range(0xE0000, 0xE1000),
    ]
)
"""
What no reader sees: control characters, soft hyphens, spaces without width, marks that turn the direction of a text
around, and the tags in which a whole message can be hidden. What joins letters and emoji stays.
"""


class Tokenizer(Protocol):
    """Counts as an embedding model does."""

    @property
    def name(self) -> str:
        """Its name; chunks cut by another one are other chunks."""

    def starts(self, text: str) -> Sequence[int]:
        """Return where each token begins, in characters, in order."""


class Pieces:
    """
    The stand-in where a model does not tell its tokenizer.

    A token is a character of a script without spaces, up to six letters or digits, or a sign.
    """

    name = "pieces"
    _piece = late(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W_]{1,6}|[^\w\s]|_")

    def starts(self, text: str) -> Sequence[int]:
        """Return where each piece begins."""
        return [found.start() for found in self._piece.finditer(text)]


class Chunker:
    """
    Cuts documents into chunks.

    Args:
        tokenizer: counts; best the embedding model's own.
        budget: tokens a chunk may have.

    """

    def __init__(self, tokenizer: Tokenizer | None = None, *, budget: int = 200) -> None:
        if budget < 8:
            raise MisuseError(f"a chunk has room for 8 tokens at least, not {budget!r}")
        self._tokenizer = tokenizer or Pieces()
        self._budget = budget

    @property
    def name(self) -> str:
        """What its chunks depend on."""
        return f"{VERSION}/{self._tokenizer.name}/{self._budget}"

    def chunks(self, document: Document) -> list[Chunk]:
        """Cut a document whose text is `normalised`; one without words has none."""
        text = document.text
        headings = [(found.start(), _title(found)) for found in _HEADING.finditer(text)]
        owner, made = document.id, []
        same: Counter[tuple[str, str]] = Counter()
        for start, end, tokens in self._cuts(text, [at for at, _ in headings]):
            at = bisect_right(headings, start, key=lambda row: row[0])
            heading = headings[at - 1][1] if at else ""
            said = text[start:end]
            same[heading, said] += 1
            key = (owner, self.name, document.title, heading, said, str(same[heading, said]))
            made.append(
                Chunk(id=_hash(key), document=owner, start=start, end=end, text=said, heading=heading, tokens=tokens)
            )
        return made

    def _cuts(self, text: str, headings: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """Yield where chunks begin and end, and how many tokens each has."""
        starts = self._tokenizer.starts(text)
        places = _Places(text, headings)
        begins = first = 0
        while begins < len(text):
            cut = len(text)
            if first < len(starts):
                inside = bool(text[begins : starts[first]].strip())  # the last cut was in the middle of a token
                cut = self._cut(places, starts, first, self._budget - inside)
            after = bisect_left(starts, cut)
            said = text[begins:cut]
            if said.strip():
                start = begins + len(said) - len(said.lstrip())
                yield start, begins + len(said.rstrip()), after - first
            begins, first = cut, after

    def _cut(self, places: _Places, starts: Sequence[int], first: int, room: int) -> int:
        length = len(places.text)

        def place(token: int) -> int:
            return starts[token] if token < len(starts) else length

        limit = place(first + room)
        least = place(first + max(1, int(_LEAST * room)))
        if (heading := places.first_heading(least, limit)) is not None:
            return heading
        if limit == length:
            return length
        return places.best(place(first + max(1, int(_EARLIEST * room))), limit)


class _Places:
    """Where a text may be cut, best kinds first; found when they are asked for."""

    def __init__(self, text: str, headings: Sequence[int]) -> None:
        self.text = text
        self._headings = headings

    def first_heading(self, low: int, high: int) -> int | None:
        at = bisect_left(self._headings, low)
        return self._headings[at] if at < len(self._headings) and self._headings[at] < high else None

    def best(self, low: int, high: int) -> int:
        for kind in (_PARAGRAPH, _LINE, _SENTENCE, _SPACE):
            ends = [found.end() for found in kind.finditer(self.text, max(0, low - 1), high) if found.end() >= low]
            if ends := [end for end in ends if end <= high]:
                return min(ends, key=self._checksum)
        return self._whole(low, high)

    def _checksum(self, at: int) -> tuple[int, int]:
        following = self.text[at : at + _LOOKED_AT].encode("utf-8", "surrogatepass")
        return zlib.crc32(following), -at

    def _whole(self, low: int, high: int) -> int:
        """Step back from the middle of a character that is written with several."""
        at = high
        while at > low and _belongs_to_the_one_before(self.text, at):
            at -= 1
        return high if _belongs_to_the_one_before(self.text, at) else at


def normalised(text: str) -> str:
    """Return a text as it is stored: composed characters, line feeds for new lines, nothing that no reader sees."""
    composed = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n"))
    return composed.translate(_UNSEEN).encode("utf-8", "replace").decode()


def _title(found: re.Match[str]) -> str:
    return (found["marked"] or found["lined"] or "").strip()[:200]


_JOINS_CONSONANTS = 9
"""The class of signs that make one of two consonants, in Hindi, Khmer and others."""

_BEHIND = "\u200d\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
"""What joins pictures, and colours of skin."""


def _belongs_to_the_one_before(text: str, at: int) -> bool:
    if at >= len(text):
        return False
    joined = text[at - 1] == "\u200d" or unicodedata.combining(text[at - 1]) == _JOINS_CONSONANTS
    return joined or unicodedata.category(text[at])[0] == "M" or text[at] in _BEHIND


def _hash(parts: Sequence[Any]) -> str:
    said = "\0".join(parts).encode("utf-8", "surrogatepass")
    return blake2b(said, digest_size=16).hexdigest()
