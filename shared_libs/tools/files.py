"""
The `files` tools: list, read and search one folder; write to it where the owner allows it.

Several small tools, because a model fills in few parameters more reliably than one tool with a mode. That nothing
outside the folder is reached is `rooted`'s.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Iterator

from shared_libs.atomic.errors import MisuseError, NotInstalled, ToolError
from shared_libs.atomic.page_text import BYTE_ORDER_MARKS
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.retrieval.plain_texts import charset_of
from shared_libs.tools.rooted import Entry, Root

MAX_ENTRIES = 500
MAX_MATCHES = 100
MAX_VISITED = 50_000
"""Files a search looks at by name."""

MAX_SEARCHED = 100_000_000
"""Bytes a search reads; a second's work, for a thread cannot be stopped."""

AROUND = 100
"""Characters of a line shown on each side of a match."""

NOTE = 250
"""Characters kept free for the note that tells how to get the rest."""

MAX_ALTERNATIVES = 20
"""Globs that one with braces stands for."""

_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_SAMPLE = 8_192
_ISO_2022 = b"\x1b$"
"""What changes to another alphabet in old Japanese mail, which is all ASCII else."""
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")


def files(*, root: str, write: bool = False, max_bytes: int = 10_000_000, name: str = "files") -> list[BaseTool]:
    """
    Give the tools for the files of one folder: NAME_list, NAME_read, NAME_search, and NAME_write where allowed.

    Args:
        root: the folder; nothing outside it can be reached, and no link is followed.
        write: whether files may be written too.
        max_bytes: the largest file that is read or written.
        name: what the names of the tools begin with.

    Raises:
        MisuseError: `root` is no name of a folder, or a number is out of its range.

    """
    if max_bytes < 1:
        raise MisuseError(f"max_bytes is a whole number from 1, not {max_bytes}")
    folder = Root(root)
    tools = [ListFiles(folder), ReadFile(folder, max_bytes), SearchFiles(folder, max_bytes)]
    if write:
        tools.append(WriteFile(folder, max_bytes))
    for tool in tools:
        tool.name = f"{name}_{tool.name}"
    return tools


class ListFiles(BaseTool):
    """Lists one folder."""

    name = "list"
    description = "Lists the files and folders in a folder. Paths are relative, such as 'notes/2024'; '.' is the top."
    timeout_s = 10.0
    idempotent = True
    max_observation_chars = 20_000

    def __init__(self, root: Root) -> None:
        self._root = root

    def execute(self, path: str = ".") -> str:
        """List it, one entry a line."""
        lines = [_line(entry) for entry in self._root.entries(path)]
        shown = _fitting(lines[:MAX_ENTRIES], self.max_observation_chars - NOTE)
        if len(shown) < len(lines):
            shown.append(f"[{len(shown)} of {len(lines)} entries; find the others by searching with a glob]")
        return "\n".join(shown) or "[the folder is empty]"


class ReadFile(BaseTool):
    """Reads lines of one text file."""

    name = "read"
    description = (
        "Reads a text file, or `lines` lines of it from `start_line` (1 is the first). A long file comes in parts."
    )
    timeout_s = 10.0
    idempotent = True
    max_observation_chars = 20_000

    def __init__(self, root: Root, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes

    def execute(self, path: str, start_line: int = 1, lines: int | None = None) -> str:
        """Read the lines; a part that is not the end says how to go on."""
        text, guess = text_of(self._root.read(path, self._max_bytes), path)
        told = f"\n[the file is not UTF-8; it is read as {guess}, which is a guess]" if guess else ""
        found = text.removesuffix("\n").split("\n") if text else []
        if start_line < 1 or (lines is not None and lines < 1):
            raise ToolError("start_line and lines are whole numbers from 1")
        if not found:
            return f"[{path} is empty]"
        if start_line > len(found):
            raise ToolError(f"{path!r} has {len(found)} lines; start_line is {start_line}")
        wanted = found[start_line - 1 :][:lines]
        room = max(self.max_observation_chars - NOTE, 1)
        shown = _fitting(wanted, room)
        last = start_line - 1 + len(shown)
        if shown == found:
            return text + told
        if not shown:
            return (
                f"{wanted[0][:room]}\n\n[line {start_line} has {len(wanted[0])} characters, of which {room} are shown; "
                f"search for a text to see another place of it; the next line is start_line {start_line + 1}]{told}"
            )
        more = f"; for the rest read again with start_line {last + 1}" if last < len(found) else ""
        return "\n".join(shown) + f"\n\n[lines {start_line} to {last} of {len(found)}{more}]{told}"


class SearchFiles(BaseTool):
    """Finds files by name, and lines by text."""

    name = "search"
    description = (
        "Finds files whose path fits `glob` (such as '*.md' anywhere, or 'src/**/*.py') below the folder `path`; "
        "with `text`, the lines of them that hold it, in upper or lower case."
    )
    timeout_s = 30.0
    idempotent = True
    max_observation_chars = 20_000

    def __init__(self, root: Root, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes

    def execute(self, text: str | None = None, glob: str = "**", path: str = ".") -> str:
        """Search; what was left out is told."""
        if text == "":
            raise ToolError("text is empty; leave it out to find files by name")
        if text and "\n" in text:
            raise ToolError("text holds a line break; give a part of one line")
        skipped: list[str] = []
        found: list[str] = []
        for line in self._named(glob, path, skipped) if text is None else self._holding(text, glob, path, skipped):
            if len(found) == MAX_MATCHES:
                skipped.append(f"only the first {MAX_MATCHES} matches are shown; narrow the search down")
                break
            found.append(line)
        shown = _fitting(found, self.max_observation_chars - NOTE)
        if len(shown) < len(found):
            skipped = [f"only the first {len(shown)} matches are shown; narrow the search down"]
        return "\n".join([*(shown or ["[nothing was found]"]), *(f"[{reason}]" for reason in skipped)])

    def _named(self, glob: str, path: str, skipped: list[str]) -> Iterator[str]:
        for found, size in self._fitting_files(glob, path, skipped):
            yield f"{found} ({size} bytes)"

    def _holding(self, text: str, glob: str, path: str, skipped: list[str]) -> Iterator[str]:
        wanted = re.compile(re.escape(text), re.IGNORECASE)
        read = unread = 0
        guessed: dict[str, int] = {}
        for found, size in self._fitting_files(glob, path, skipped):
            if size > self._max_bytes:  # it is not read, and costs nothing
                unread += 1
                continue
            if read + size > MAX_SEARCHED:
                skipped.append(f"stopped after {read} bytes, at {found}; narrow the search down by glob or path")
                break
            try:
                data = self._root.read(found, self._max_bytes)
                content, guess = text_of(data, found)
            except _Binary:
                read += size
                continue
            except ToolError:  # too large, not ours to read, gone meanwhile, or written in what nobody knows
                unread += 1
                continue
            read += size
            if not content or not wanted.search(content):
                continue
            if guess:
                guessed[guess] = guessed.get(guess, 0) + 1
            for number, line in enumerate(content.split("\n"), 1):
                if match := wanted.search(line):
                    yield f"{found}:{number}: {_around(line, match)}"
        if unread:
            skipped.append(f"{unread} files were not searched: too large or not readable")
        if guessed:
            told = ", ".join(f"{count} as {guess}" for guess, count in guessed.items())
            skipped.append(f"of these, files that are not UTF-8 were read by a guess: {told}")

    def _fitting_files(self, glob: str, path: str, skipped: list[str]) -> Iterator[tuple[str, int]]:
        globs = [[part for part in one.split("/") if part not in ("", ".")] for one in _alternatives(glob)]
        # a bare name is meant at any depth
        globs = [["**", *patterns] if len(patterns) < 2 else patterns for patterns in globs]
        start = len([name for name in path.split("/") if name not in ("", ".")])
        for visited, (found, size) in enumerate(self._root.walk(path)):
            if visited == MAX_VISITED:
                skipped.append(f"stopped after {visited} files, at {found}; narrow the search down by path")
                return
            if any(_fits(found.split("/")[start:], patterns) for patterns in globs):
                yield found, size


class WriteFile(BaseTool):
    """Writes one file."""

    name = "write"
    description = "Writes a whole text file, new or instead of the one that is there; folders on the way are made."
    timeout_s = 10.0
    idempotent = True
    sequential = True

    def __init__(self, root: Root, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes

    def execute(self, path: str, content: str) -> str:
        """Write it, whole or not at all."""
        try:
            data = content.encode()
        except UnicodeEncodeError:
            raise ToolError("the content holds half a character (a lone surrogate), which no file can") from None
        if len(data) > self._max_bytes:
            raise ToolError(f"the content has {len(data)} bytes; at most {self._max_bytes} are written")
        new = self._root.write(path, data)
        return f"{'wrote' if new else 'replaced'} {path} ({len(data)} bytes)"


class _Binary(ToolError):
    """It is no text."""


def text_of(data: bytes, path: str) -> tuple[str, str]:
    """
    Read bytes as text; with it the code page where that is a guess, for nothing in a file says how it is written.

    Raises:
        ToolError: it is binary, or written in what nobody here knows.

    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace"), ""
    sample = data[:_SAMPLE]
    with contextlib.suppress(UnicodeDecodeError):
        if b"\0" not in sample and _ISO_2022 not in sample:
            return data.decode(), ""
    try:
        guess = charset_of(data)
    except NotInstalled as error:
        raise ToolError(f"{path!r} is not UTF-8; {error}") from None
    except MisuseError:
        guess = "binary"
    if guess == "binary" or (guess is None and _CONTROL.search(sample)):
        raise _Binary(f"{path!r} is binary; this tool reads text")
    try:
        return data.decode(guess or "cp1252"), (guess or "cp1252")
    except UnicodeDecodeError:
        if b"\0" in sample:
            raise _Binary(f"{path!r} is binary; this tool reads text") from None
        raise ToolError(f"{path!r} is not UTF-8, and how it is written cannot be told") from None


def _line(entry: Entry) -> str:
    if entry.kind == "folder":
        return f"{entry.name}/"
    return f"{entry.name} ({f'{entry.size} bytes' if entry.kind == 'file' else f'{entry.kind}, not to be read'})"


def _fitting(lines: list[str], room: int) -> list[str]:
    """Give as many of the first lines as have room."""
    for index, line in enumerate(lines):
        room -= len(line) + 1
        if room < 0:
            return lines[:index]
    return lines


def _around(line: str, match: re.Match[str]) -> str:
    start, end = max(0, match.start() - AROUND), min(match.end(), match.start() + AROUND) + AROUND
    return f"{'…' if start else ''}{line[start:end].strip()}{'…' if end < len(line) else ''}"


def _alternatives(glob: str) -> list[str]:
    """The globs that one with `{a,b}` stands for; braces without a comma are signs of a name."""
    globs = [glob]
    while found := _BRACES.search(globs[0]):
        globs = [one.replace(found.group(), way, 1) for one in globs for way in found.group(1).split(",")]
        if len(globs) > MAX_ALTERNATIVES:
            raise ToolError(f"the braces of glob stand for more than {MAX_ALTERNATIVES} globs; search more than once")
    return globs


def _fits(names: list[str], patterns: list[str]) -> bool:
    """Whether the names of a path fit the parts of a glob, `**` for any number of names; all ways are tried at once."""
    at = _skipping({0}, patterns)
    for name in names:
        stay = {index for index in at if index < len(patterns) and patterns[index] == "**"}
        step = {
            index + 1 for index in at - stay if index < len(patterns) and fnmatch.fnmatchcase(name, patterns[index])
        }
        at = _skipping(stay | step, patterns)
    return len(patterns) in at


def _skipping(at: set[int], patterns: list[str]) -> set[int]:
    """Add what is reached when `**` stands for no name."""
    for index, pattern in enumerate(patterns):
        if index in at and pattern == "**":
            at.add(index + 1)
    return at
