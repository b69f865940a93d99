"""
Reading PDF and office files in processes of their own, so that no file costs more than itself.

Their readers are native code, and the files are strangers'. A page of 600 bytes keeps PDFium busy for years (a form
that draws itself, twice), a sheet of half a megabyte needs a gigabyte, and what crashes takes its process along. There
a file has so many seconds of a core and so much memory; who ends for it is the reader, and the next file has another.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import weakref
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

from shared_libs.atomic.errors import MisuseError, NotInstalled, in_words
from shared_libs.atomic.loading import optional
from shared_libs.retrieval.packed_texts import MAX_UNPACKED, without_hidden

OFFICE: Mapping[str, str] = MappingProxyType(
    {
        ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ".odt": "application/vnd.oasis.opendocument.text",
        ".ods": "application/vnd.oasis.opendocument.spreadsheet",
        ".rtf": "application/rtf",
        ".doc": "application/msword",
        ".xls": "application/vnd.ms-excel",
        ".ppt": "application/vnd.ms-powerpoint",
        ".msg": "application/vnd.ms-outlook",
    }
)
"""The media type of each kind of office file, by its ending."""

READ_S = 30.0
"""Seconds of a core that a file may take: a PDF of 3,000 pages takes less than one."""

MEMORY = 4 << 30
"""Bytes that a reader may have."""

_IDLE_S = 30
"""Seconds a reader waits for its next file before it ends."""

_ZIPPED = (".docx", ".pptx", ".xlsx", ".odt", ".ods")
_ZIP, _OLD_OFFICE = b"PK", b"\xd0\xcf\x11\xe0"
_SERVE = "from shared_libs.retrieval.apart import serve; serve()"
_KNOWN = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "SYSTEMROOT")
"""What a reader knows of the environment: not the keys that others have there."""

_Read = Callable[[Path], str]


class Readers:
    """Processes that read files: as many as are read at once, each for one file after the other."""

    def __init__(self) -> None:
        self._idle: list[subprocess.Popen[bytes]] = []
        self._owner = os.getpid()
        weakref.finalize(self, _end, self._idle)

    def read(self, path: Path, seconds: float = READ_S) -> str:
        """
        Return the text of a PDF or an office file; blocks.

        Raises:
            MisuseError: it cannot be read, takes too long or too much, or its reader is not installed.
            OSError: no process can be started.

        """
        asked = json.dumps([str(path), path.suffix.lower(), seconds]).encode() + b"\n"
        while True:
            reader = self._one()
            assert reader.stdin is not None
            assert reader.stdout is not None
            try:
                with suppress(BrokenPipeError):
                    reader.stdin.write(asked)
                    reader.stdin.flush()
                answer = reader.stdout.readline()
            except BaseException:  # whoever waits is interrupted: its answer is nobody's
                reader.kill()
                raise
            if answer:
                self._idle.append(reader)
                break
            _end([reader])
            if reader.returncode != -signal.SIGALRM:  # it had waited long enough just when it was asked
                raise MisuseError(_ended(reader.returncode, seconds))
        kind, text = json.loads(answer)
        if kind != "text":
            raise (NotInstalled if kind == "missing" else MisuseError)(text)
        return str(text)

    def _one(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # after a fork they are the parent's
            self._idle.clear()
            self._owner = os.getpid()
        while self._idle:
            with suppress(IndexError):  # another thread may have taken it
                reader = self._idle.pop()
                if reader.poll() is None:
                    return reader
                _end([reader])
        known = {name: os.environ[name] for name in _KNOWN if name in os.environ}
        return subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=known | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for who asks
        )


def _end(readers: list[subprocess.Popen[bytes]]) -> None:
    """Let readers that have nothing to do end: nobody will ask them any more."""
    for reader in readers:
        with reader:
            pass


def _ended(code: int, seconds: float) -> str:
    if code == -signal.SIGPROF:
        return f"it took more than {seconds:g} s of a core to read, and was given up"
    return f"its reader ended by it ({signal.Signals(-code).name if code < 0 else f'exit {code}'})"


def serve() -> None:
    """Read files until nobody asks any more: a line of JSON for each, and one back."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most), most))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while True:
        signal.alarm(_IDLE_S)
        line = sys.stdin.buffer.readline()
        signal.alarm(0)
        if not line:
            return
        place, kind, seconds = json.loads(line)
        try:
            read = pdf() if kind == ".pdf" else office(kind)
            # of the time it works, not of the clock: beside others it takes no more; who is caught by it ends at once
            signal.setitimer(signal.ITIMER_PROF, seconds)
            answer = ("text", read(Path(place)))
        except NotInstalled as error:
            answer = ("missing", str(error))
        except MisuseError as error:
            answer = ("refused", str(error))
        except Exception as error:  # noqa: BLE001 - foreign code: its failure is this file's
            answer = ("refused", f"the file cannot be read: {in_words(error)}")
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def pdf() -> _Read:
    """Load what reads a PDF, and return it."""
    pypdfium2 = optional("pypdfium2", "a PDF")

    def read(path: Path) -> str:
        try:
            with pypdfium2.PdfDocument(path) as document:
                return "\n\n".join(page.get_textpage().get_text_bounded() for page in document)
        except pypdfium2.PdfiumError as error:
            locked = "password" in str(error).lower()
            said = "it is protected by a password" if locked else f"the PDF cannot be read: {error}"
            raise MisuseError(said) from error

    return read


def office(kind: str) -> _Read:
    """Load what reads a kind of office file, and return it."""
    kreuzberg = optional("kreuzberg", f"a {kind} file")
    # nor a copy of every text in its folder of caches, where nobody removes it
    config = kreuzberg.ExtractionConfig(use_cache=False)

    def read(path: Path) -> str:
        body = path.read_bytes()
        if kind in _ZIPPED:
            _check_zipped(body, kind)
        body = without_hidden(body) if kind == ".docx" else body
        return str(kreuzberg.extract_bytes_sync(body, OFFICE[kind], config=config).content)

    return read


def _check_zipped(body: bytes, kind: str) -> None:
    """Refuse what is none, and what is small only until it is unpacked."""
    if body.startswith(_OLD_OFFICE):
        raise MisuseError("it is protected by a password, or of an older kind under a new name")
    if not body.startswith(_ZIP):
        raise MisuseError(f"it is no {kind} file, whatever its name says")
    with zipfile.ZipFile(BytesIO(body)) as archive:
        texts = [entry.file_size for entry in archive.infolist() if entry.filename.endswith(".xml")]
    if sum(texts) > MAX_UNPACKED:
        raise MisuseError(f"its texts have more than {MAX_UNPACKED:,} bytes when it is unpacked")
