"""The run record: one event a line (JSONL), written as it happens, and read back whatever ended the writer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.events import AgentEvent, TextDelta, ThinkingDelta, decode_event
from shared_libs.atomic.secrets import private
from shared_libs.observability.redact import redact_data
from shared_libs.observability.spool import Spool

_log = logging.getLogger("shared_libs.observability")

_Line = dict[str, Any]


class RunRecorder:
    """
    An observer that writes a run record; secrets are masked.

    Every line is whole and out of the process as soon as it is written, so that a kill costs at most the last one.
    Pieces of text are joined until something else happens: a secret is known by its shape, and a piece has none.
    An older record in the file is replaced when the first event comes.

    Args:
        path: the file; its folder is made. A file that holds anything but a run record is not overwritten.

    Raises:
        MisuseError: the file cannot be written.

    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not _may_overwrite(self.path):
                raise MisuseError(f"{self.path} holds something that is no run record; name another file")
            self._file: IO[bytes] = open(self.path, "ab", opener=private)  # noqa: SIM115 - closed by `close`
        except (OSError, ValueError) as error:
            if isinstance(error, MisuseError):
                raise
            raise MisuseError(f"the run record {self.path} cannot be written: {_reason(error)}") from error
        self._begun = False
        self._text: _Line | None = None
        self._spool: Spool[_Line | None] = Spool(self._write, name="record")

    def __call__(self, event: AgentEvent) -> None:
        """Take an event."""
        self._spool.put(msgspec.to_builtins(event, enc_hook=repr))

    def close(self) -> None:
        """
        Write what is left and close the file.

        Raises:
            FactoryError: the record is not complete.

        """
        if self._file.closed:
            return
        self._spool.put(None)
        done = self._spool.flush()
        error = self._spool.error
        if done:
            with contextlib.suppress(OSError):  # what failed is told below
                self._file.close()
        if error is not None or not done:
            why = "the disk does not answer" if error is None else _reason(error)
            raise FactoryError(f"the run record {self.path} is not complete: {why}")

    def _write(self, line: _Line | None) -> None:
        last, self._text = self._text, None
        if line is not None and line["type"] in _PIECES:
            if last is not None and _same_text(last, line):
                line, last = last | {"text": last["text"] + line["text"]}, None
            self._text, line = line, None
        for whole in (last, line):
            if whole is not None:
                self._begin()
                self._file.write(_encoded(whole))
        self._file.flush()

    def _begin(self) -> None:
        if not self._begun and self.path.is_file():
            self._file.truncate(0)
        self._begun = True


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
    lines = data.split(b"\n")
    events: list[AgentEvent] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            events.append(decode_event(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if number == len(lines) and events:
                on_note(f"{path}:{number}: the last line is cut off and left out: its writer was stopped")
                break
            raise MisuseError(f"{path}:{number}: not an event of a run record: {error}") from error
    if not events:
        raise MisuseError(f"{path}: holds no events; a run record is what `factory run --trace FILE` writes")
    return events


def _may_overwrite(path: Path) -> bool:
    """Whether nothing is lost: the file is new, empty, a device, or a run record."""
    if not path.is_file():
        return True
    with path.open("rb") as file:
        start = file.readline(1_000_000)
    try:
        return not start or bool(decode_event(start))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _same_text(last: _Line, line: _Line) -> bool:
    return bool(last["type"] == line["type"] and last["run_id"] == line["run_id"])


def _encoded(line: _Line) -> bytes:
    return msgspec.json.encode(_valid(redact_data(line))) + b"\n"


def _valid(value: Any) -> Any:
    """Replace lone surrogates, which have no place in UTF-8."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_valid(key): _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, list) else value


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
