"""The standard streams of the process, made safe: what cannot be shown must not cost an answer, nor a traceback."""

from __future__ import annotations

import io
import os
import sys


class CannotWriteError(Exception):
    """What was to stand on stdout cannot; the text says why."""


class _Answer(io.FileIO):
    """Stdout: that it cannot take something (a full disk) is told in a sentence, once; a gone reader as always."""

    _failed = False

    def write(self, data: object) -> int:
        """Write, and say why where that fails."""
        if self._failed:
            return memoryview(data).nbytes  # type: ignore[arg-type]
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            raise
        except OSError as error:
            self._failed = True
            raise CannotWriteError(f"stdout cannot be written: {error.strerror}") from error


class _Told(io.FileIO):
    """Stderr: what it cannot take is lost, and nothing else is."""

    def write(self, data: object) -> int:
        """Write what can be written."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


def prepare_streams() -> None:
    """Make printing safe: a closed or full stream, or a character the terminal lacks, ends in no traceback."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - open until the end
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - open until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def guard_streams() -> None:
    """Put the process's own streams on guard; for the program, which has them to itself."""
    for name, kind in (("stdout", _Answer), ("stderr", _Told)):
        stream = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)  # PYTHONUNBUFFERED leaves the buffer out
        if isinstance(raw, io.FileIO):
            guarded = kind(raw.fileno(), "w", closefd=False)
            text = io.TextIOWrapper(
                guarded if buffer is raw else io.BufferedWriter(guarded),
                stream.encoding,
                stream.errors,
                line_buffering=stream.line_buffering,
                write_through=buffer is raw,
            )
            setattr(sys, name, text)
