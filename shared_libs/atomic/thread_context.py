"""
In which context another thread runs: whose work it does just now, on any event loop, in a task or out of one.

Python tells a thread its own context only, and since 3.12 that of a task. What a loop calls back, what runs as an
object goes, and whatever uvloop calls has no frame that would tell. CPython keeps the context of a thread in its
state; the place differs between versions, and is looked up in the state of this thread, whose context is known.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from contextvars import Context
from functools import cache

_log = logging.getLogger(__name__)

_WORDS = 36
"""Words of a state to look at: each version has more, and the context before the 30th."""

_SIZE = ctypes.sizeof(ctypes.c_size_t)


class ThreadContext:
    """
    The context of the thread in which this is made, for others to ask.

    A thread that has ended has none: CPython takes the context out of its state before it lets go of that.
    """

    __slots__ = ("_at", "_thread_id")

    def __init__(self) -> None:
        self._thread_id = thread_id()
        self._at = _state() if _places() else 0

    def get(self) -> Context | None:
        """Return the context that the thread is in now; None where it has none, or where this Python does not tell."""
        places = _places()
        if not places or ctypes.c_size_t.from_address(self._at + places[0]).value != self._thread_id:
            return None
        try:  # read and held in one: between two instructions of ours the thread may have let go of it
            context: Context = ctypes.cast(self._at + places[1], ctypes.POINTER(ctypes.py_object)).contents.value
        except ValueError:  # none yet, or none any more
            return None
        return context


def _state() -> int:
    """Where the state of this thread is."""
    place: int = ctypes.PYFUNCTYPE(ctypes.c_size_t)(("PyThreadState_Get", ctypes.pythonapi))()
    return place


@cache
def _places() -> tuple[int, int] | None:
    """Where in a state the thread's id and its context stand, in bytes; None where others' cannot be looked at."""
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None  # without the lock threads move on, and end, while this one looks at them
    known = Context()
    words = known.run(lambda: list((ctypes.c_size_t * _WORDS).from_address(_state())))
    return words.index(thread_id()) * _SIZE, words.index(id(known)) * _SIZE


def thread_id() -> int:
    """The number of this thread as the interpreter knows it, whoever has put something else into `threading`."""
    number: int = ctypes.PYFUNCTYPE(ctypes.c_ulong)(("PyThread_get_thread_ident", ctypes.pythonapi))()
    return number


@cache
def has_threads() -> bool:
    """Whether the threads of `threading` are some; where gevent or eventlet has replaced them, the log says so once."""
    some = threading.get_ident() == thread_id()
    if not some:
        _log.warning("threads take turns here (gevent, eventlet): what blocks an event loop is not seen or interrupted")
    return some
