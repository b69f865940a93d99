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
from _thread import _local
from collections.abc import Callable
from contextvars import Context
from functools import cache
from typing import Any

_log = logging.getLogger(__name__)

_WORDS = 36
"""Words of a state to look at: each version has more, and the context before the 30th."""


class ThreadContext:
    """
    The context of the thread in which this is made, for others to ask.

    A thread that has ended has none. Its state is looked at only while it stands.
    """

    __slots__ = ("_life", "_slot")

    def __init__(self) -> None:
        self._life = _life_of_this_thread()
        place = _place()
        self._slot: Any = None if place is None else ctypes.py_object.from_address(_state() + place)

    def get(self) -> Context | None:
        """Return the context that the thread is in now; None where it has none, or where this Python does not tell."""
        slot, life = self._slot, self._life
        if slot is None:
            return None
        try:
            # no call in between: the lock goes to another thread at calls and jumps back alone, so that the state still
            # stands when it is read, and what is read is held in the same step
            context: Context | None = None if life.over else slot.value
        except ValueError:  # none yet, or none any more
            return None
        return context


class _Life:
    """Whether a thread has ended."""

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False


class _End:
    """What stands in a thread's own storage: CPython clears that before the context, and lets go of the state last."""

    __slots__ = ("_life",)

    def __init__(self, life: _Life) -> None:
        self._life = life

    def __del__(self) -> None:
        self._life.over = True


_own = _local()


def _life_of_this_thread() -> _Life:
    known: _Life | None = getattr(_own, "life", None)
    if known is None:
        known = _own.life = _Life()
        _own.end = _End(known)
    return known


@cache
def _asker(name: str, answer: Any) -> Callable[[], int]:
    """A function of the interpreter's own; made once, for each is a class of its own, which only a collection frees."""
    asker: Callable[[], int] = ctypes.PYFUNCTYPE(answer)((name, ctypes.pythonapi))
    return asker


def _state() -> int:
    """Where the state of this thread is."""
    return _asker("PyThreadState_Get", ctypes.c_size_t)()


@cache
def _place() -> int | None:
    """Where in a state the thread's context stands, in bytes; None where others' cannot be looked at."""
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None  # without the lock threads move on, and end, while this one looks at them
    known = Context()
    words = known.run(lambda: list((ctypes.c_size_t * _WORDS).from_address(_state())))
    return words.index(id(known)) * ctypes.sizeof(ctypes.c_size_t)


def thread_id() -> int:
    """The number of this thread as the interpreter knows it, whoever has put something else into `threading`."""
    return _asker("PyThread_get_thread_ident", ctypes.c_ulong)()


@cache
def has_threads() -> bool:
    """Whether the threads of `threading` are some; where gevent or eventlet has replaced them, the log says so once."""
    some = threading.get_ident() == thread_id()
    if not some:
        _log.warning("threads take turns here (gevent, eventlet): what blocks an event loop is not seen or interrupted")
    return some
