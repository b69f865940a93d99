"""
One folder, and no way out of it.

A path is walked one name at a time from a handle on the folder, each step relative to the handle before and never
through a link; so no `..`, no link and no rename in the middle of a call leads anywhere else. Blocks; runs in threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from shared_libs.atomic.errors import MisuseError, ToolError
from shared_libs.atomic.nearest import names_like
from shared_libs.atomic.whole import whole_text

MAX_NAMES = 20
"""How many names of a folder are told when one is not found."""

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

Kind = Literal["file", "folder", "link", "special"]


class Entry(NamedTuple):
    """What a folder holds under a name; the size in bytes is a file's."""

    name: str
    kind: Kind
    size: int


class Root:
    """
    A folder whose files may be used.

    Paths are relative to it, with `/` between names. Links are not followed and other file systems mounted below it
    not entered; what is no regular file (a device, a pipe, a socket) is not opened.

    Raises:
        MisuseError: this system cannot walk a folder safely, or the folder has no name.

    """

    def __init__(self, folder: str) -> None:
        if not folder or "\0" in folder:
            raise MisuseError("root: give the folder whose files may be used")
        if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
            raise MisuseError("root: this system cannot open files relative to a folder; the files tools need POSIX")
        self._folder = Path(folder)

    def entries(self, path: str) -> list[Entry]:
        """
        List a folder, by name.

        Raises:
            ToolError: it is no folder that may be listed.

        """
        with self._opened(_names(path)) as folder:
            return _entries(folder)

    def walk(self, path: str) -> Iterator[tuple[str, int]]:
        """
        Give the path and size of every file below a folder, in order; links are left out.

        Raises:
            ToolError: it is no folder that may be listed. A folder below that cannot be is left out.

        """
        start = _names(path)
        pending = [(start, self.entries(path))]
        while pending:
            names, entries = pending.pop()
            folders = []
            for entry in entries:
                if entry.kind == "file":
                    yield "/".join([*names, entry.name]), entry.size
                elif entry.kind == "folder":
                    folders.append([*names, entry.name])
            for inner in reversed(folders):
                with contextlib.suppress(ToolError), self._opened(inner) as folder:
                    pending.append((inner, _entries(folder)))

    def read(self, path: str, most: int) -> bytes:
        """
        Read a whole file.

        Raises:
            ToolError: there is none, it may not be read, or it is longer than `most` bytes.

        """
        *names, name = _names(path) or [""]
        with self._opened(names) as folder:
            name = _as_spelled(folder, name)
            _refuse_what_is_no_file(folder, name, path, names)
            try:
                handle = os.open(name, _FILE, dir_fd=folder)
            except (OSError, ValueError) as error:
                raise _told(path, error) from None
            with open(handle, "rb") as file:  # noqa: PTH123 - of a handle, not of a path
                status = os.fstat(handle)  # once more: between the look and the opening the name may have changed
                if not stat.S_ISREG(status.st_mode) or status.st_dev != os.fstat(folder).st_dev:
                    raise ToolError(f"{path!r} is no regular file")
                if status.st_size > most:
                    raise ToolError(f"{path!r} has {status.st_size} bytes; at most {most} are read")
                try:
                    data = file.read(most + 1)
                except OSError as error:
                    raise _told(path, error) from None
        if len(data) > most:
            raise ToolError(f"{path!r} has more than {most} bytes; at most that many are read")
        return data

    def write(self, path: str, data: bytes) -> bool:
        """
        Put a file in its place, whole or not at all; folders on the way are made. Return whether it is a new one.

        Raises:
            ToolError: it cannot be written there.

        """
        *names, name = _names(path) or [""]
        if not name or path.endswith("/"):
            raise ToolError(f"{path!r} names no file")
        with self._opened(names, make=True) as folder:
            name = _as_spelled(folder, name)
            mode = None
            try:
                mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as error:
                raise _told(path, error) from None
            if mode is not None and not stat.S_ISREG(mode):
                raise ToolError(f"{path!r} is {_words(mode)}; only a file can be replaced")
            try:
                _put(folder, name, data, mode)
            except (OSError, ValueError) as error:
                raise _told(path, error) from None
        return mode is None

    @contextmanager
    def _opened(self, names: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Open a folder by walking to it."""
        try:
            handle = os.open(self._folder, _FOLDER & ~os.O_NOFOLLOW)  # the owner's own name may be a link
        except OSError as error:
            raise ToolError(f"the folder of this tool cannot be opened: {error.strerror}; tell the owner") from None
        try:
            device = os.fstat(handle).st_dev
            for index, written in enumerate(names):
                path = "/".join(names[: index + 1])
                inner = _step(handle, written, path, make=make)
                os.close(handle)
                handle = inner
                if os.fstat(handle).st_dev != device:
                    raise ToolError(f"{path!r} is another file system, mounted there; it is not entered")
            yield handle
        finally:
            os.close(handle)


def _names(path: str) -> list[str]:
    if "\0" in path:
        raise ToolError("a path holds no NUL character")
    if path.startswith("/"):
        raise ToolError(f"{path!r:.300} is absolute; a path starts in the folder of this tool, such as 'notes/a.txt'")
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names:
        raise ToolError(f"{path!r:.300} leads upwards; '..' is not allowed")
    return names


def _step(folder: int, written: str, path: str, *, make: bool) -> int:
    name = _as_spelled(folder, written)
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        raise _not_found(folder, name, path, path.split("/")[:-1]) from None
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                raise ToolError(f"{path!r} is {_words(mode)}, not a folder") from None
        raise _told(path, error) from None


def _as_spelled(folder: int, name: str) -> str:
    """
    Return the name as the folder spells it.

    `é` is one character to a model and may be two on a disk, and bytes that are no text are `?` to it; where none of
    that is there, the name stays as it is.
    """
    if name.isascii() and "?" not in name:
        return name
    with contextlib.suppress(OSError, ValueError):
        names = os.listdir(folder)
        same = [other for other in names if _told_as(other) == _told_as(name)]
        if name not in names and len(same) == 1:
            return same[0]
    return name


def _told_as(name: str) -> str:
    return unicodedata.normalize("NFC", whole_text(name))


def _entries(folder: int) -> list[Entry]:
    try:
        with os.scandir(folder) as found:
            return sorted(_entry(entry) for entry in found)
    except OSError as error:
        raise ToolError(f"the folder cannot be listed: {error.strerror}") from None


def _entry(found: os.DirEntry[str]) -> Entry:
    try:
        status = found.stat(follow_symlinks=False)
    except OSError:
        return Entry(found.name, "special", 0)  # gone, or not to be looked at
    if stat.S_ISREG(status.st_mode):
        return Entry(found.name, "file", status.st_size)
    if stat.S_ISDIR(status.st_mode):
        return Entry(found.name, "folder", 0)
    return Entry(found.name, "link" if stat.S_ISLNK(status.st_mode) else "special", 0)


def _refuse_what_is_no_file(folder: int, name: str, path: str, names: Sequence[str]) -> None:
    """Look before the opening: to open a device may already have an effect."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False) if name else os.fstat(folder)
    except FileNotFoundError:
        raise _not_found(folder, name, path, names) from None
    except (OSError, ValueError) as error:
        raise _told(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise ToolError(f"{path!r} is {_words(status.st_mode)}, not a file")


def _put(folder: int, name: str, data: bytes, mode: int | None) -> None:
    partial = f".{secrets.token_hex(8)}.partial"
    handle = os.open(partial, _NEW, 0o666, dir_fd=folder)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 - of a handle, not of a path
            if mode is not None:
                os.fchmod(handle, stat.S_IMODE(mode) & 0o777)
            file.write(data)
            file.flush()
            os.fsync(handle)  # its content is on the disk before its name is
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial, dir_fd=folder)
        raise


def _not_found(folder: int, name: str, path: str, names: Sequence[str]) -> ToolError:
    there = [f"{entry.name}/" if entry.kind == "folder" else entry.name for entry in _entries(folder)]
    near = names_like(name, there)
    shown = ", ".join(there[:MAX_NAMES]) + (f" and {len(there) - MAX_NAMES} more" if len(there) > MAX_NAMES else "")
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return ToolError(f"{path!r} is not there; {'/'.join(names) or 'the folder'} holds: {shown or 'nothing'}{meant}")


def _told(path: str, error: Exception) -> ToolError:
    """The system's own words; only they, because its error may name the folder on the disk."""
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return ToolError(f"{path!r} is a link; links are not followed")
    said = (error.strerror if isinstance(error, OSError) else None) or "no name a file can have"
    return ToolError(f"{path!r:.300}: {said}")


def _words(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link (links are not followed)"
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a file" if stat.S_ISREG(mode) else "a device, pipe or socket"
