"""The run record: one event a line (JSONL), written as it happens, and read back whatever ended the writer."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import weakref
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.events import AgentEvent, ModelAsked, TextDelta, ThinkingDelta, decode_event
from shared_libs.atomic.secrets import private
from shared_libs.observability.encoding import json_bytes
from shared_libs.observability.redact import redact_data
from shared_libs.observability.runs.contents import kept_request
from shared_libs.observability.spool import Spool

_log = logging.getLogger("shared_libs.observability")

_Line = dict[str, Any]


CLOSE_S = 5.0
"""Seconds without a line written after which `close` and the end of the program wait for no more of them."""


class RunRecorder:
    """
    An observer that writes a run record; secrets are masked.

    Every line is whole and out of the process as soon as it is written, so that a kill costs at most the last one.
    Pieces of text are joined until something else happens: a secret is known by its shape, and a piece has none.
    Several processes may write to one file: each writes whole lines behind what is there. What is left is written when
    the recorder is closed, as it is at the end of a `with` block, and at the end of the program.

    Args:
        path: the file; its folder is made. A file that holds anything but a run record is not touched.
        mode: "append" goes on behind what is there; "replace" begins anew when the first event comes.

    Raises:
        MisuseError: the file cannot be written.

    """

    wants_requests = True
    """What models are asked is recorded too."""

    def __init__(self, path: str | Path, *, mode: Literal["append", "replace"] = "append") -> None:
        if mode not in ("append", "replace"):
            raise MisuseError(f"mode {mode!r}: allowed are 'append' and 'replace'")
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not _may_overwrite(self.path):
                raise MisuseError(f"{self.path} holds something that is no run record; name another file")
            self._file = self._opened()
        except (OSError, ValueError) as error:
            if isinstance(error, MisuseError):
                raise
            raise MisuseError(f"the run record {self.path} cannot be written: {_reason(error)}") from error
        self._replaces = mode == "replace"
        self._begun = False
        self._text: _Line | None = None  # the first piece of a text that may go on, and the texts of all
        self._texts: list[str] = []
        self._spool: Spool[_Line | ModelAsked | None] = Spool(self._write, name="record")

        atexit.register(_close_at_exit, weakref.ref(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, event: AgentEvent) -> None:
        """Take an event; one that comes after `close` opens the file again."""
        if self._file.closed:
            self._file = self._opened()
        self._spool.put(event if isinstance(event, ModelAsked) else msgspec.to_builtins(event, enc_hook=repr))

    def __repr__(self) -> str:
        return f"RunRecorder({str(self.path)!r})"

    def close(self) -> None:
        """
        Write what is left and close the file.

        Raises:
            FactoryError: the record is not complete.

        """
        if self._file.closed:
            return
        self._spool.put(None)
        done = self._spool.flush(CLOSE_S, patiently=True)
        self._spool.end()
        error = self._spool.error
        if done:
            with contextlib.suppress(OSError):  # what failed is told below
                self._file.close()
        if error is not None or not done:
            why = f"nothing was written for {CLOSE_S:g} s" if error is None else _reason(error)
            raise FactoryError(f"the run record {self.path} is not complete: {why}")

    def _opened(self) -> FileIO:
        return open(self.path, "ab", buffering=0, opener=private)

    def _write(self, line: _Line | ModelAsked | None) -> None:
        piece = line if isinstance(line, dict) and line["type"] in _PIECES else None
        if piece is not None and self._text is not None and _same_text(self._text, piece):
            self._texts.append(piece["text"])
            return
        last = None if self._text is None else self._text | {"text": "".join(self._texts)}
        self._text, self._texts = None, []
        if piece is not None:
            self._text, self._texts, line = piece, [piece["text"]], None
        whole = b"".join(_encoded(each) for each in (last, line) if each is not None)
        if whole and not self._begun:
            self._begun = True
            whole = self._begin() + whole
        while whole:
            whole = whole[self._file.write(whole) :]

    def _begin(self) -> bytes:
        """Make room for the first line; return what has to come before it."""
        if not self.path.is_file():
            return b""
        if self._replaces:
            self._file.truncate(0)
            return b""
        with self.path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return b""
            file.seek(-1, os.SEEK_END)
            return b"" if file.read() == b"\n" else b"\n"  # whoever wrote last was stopped in the middle of a line


def _close_at_exit(recorder: weakref.ref[RunRecorder]) -> None:
    found = recorder()
    if found is not None:
        try:
            found.close()
        except FactoryError as error:
            _log.warning("%s", error)


_PIECES = {kind.__struct_config__.tag for kind in (TextDelta, ThinkingDelta)}


def read_record(path: str | Path, *, on_note: Callable[[str], None] = _log.warning) -> list[AgentEvent]:
    """
    Read a run record.

    Args:
        path: the file.
        on_note: told when the last line is cut off and left out, as a killed writer leaves it.

    Raises:
        MisuseError: the file cannot be read, or is no run record; tells the line.

    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise MisuseError(f"the run record {path} cannot be read: {_reason(error)}") from error
    return record_of(data, str(path), on_note=on_note)


def record_of(data: bytes, path: str, *, on_note: Callable[[str], None] = _log.warning) -> list[AgentEvent]:
    """Read a run record that came from somewhere else, told as `path`; see `read_record`."""
    lines = data.split(b"\n")
    events: list[AgentEvent] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            events.append(decode_event(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            last = number == len(lines)
            if (events and last) or _is_cut_off(line):
                which = "the last line" if last else "a line"
                on_note(f"{path}:{number}: {which} is cut off and left out: its writer was stopped")
                continue
            raise MisuseError(f"{path}:{number}: not an event of a run record: {error}") from error
    if not events:
        raise MisuseError(f"{path}: holds no events; a run record is what `factory run --trace FILE` writes")
    return events


def _is_cut_off(line: bytes) -> bool:
    """Whether it is the beginning of an event and no more."""
    try:
        json.loads(line)
    except ValueError:
        return line.startswith(b'{"type":"')
    return False


def _may_overwrite(path: Path) -> bool:
    """Whether nothing is lost: the file is new, empty, a device, or a run record."""
    if not path.is_file():
        return True
    with path.open("rb") as file:
        start = file.readline(1_000_000)
    try:
        return not start or bool(decode_event(start))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _is_cut_off(start)  # by the end of whoever wrote it


def _same_text(last: _Line, line: _Line) -> bool:
    return bool(last["type"] == line["type"] and last["run_id"] == line["run_id"])


def _encoded(line: _Line | ModelAsked) -> bytes:
    kept = kept_request(line) if isinstance(line, ModelAsked) else redact_data(line)
    return json_bytes(kept) + b"\n"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
