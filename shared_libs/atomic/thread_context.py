"""
In which context another thread runs: whose work it does just now, on any event loop, in a task or out of one.

Python tells a thread its own context only, and since 3.12 that of a task. What a loop calls back, what runs as an
object goes, and whatever uvloop calls has no frame that would tell. CPython keeps the context of a thread in its
state; the place differs between versions, and is looked up in the state of this thread, whose context is known.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from contextvars import Context
from functools import cache

_WORDS = 36
"""Words of a state to look at: each version has more, and the context before the 30th."""

_interpreter = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyInterpreterState_Get", ctypes.pythonapi))
_mine = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThreadState_Get", ctypes.pythonapi))
_first = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(("PyInterpreterState_ThreadHead", ctypes.pythonapi))
_next = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(("PyThreadState_Next", ctypes.pythonapi))


def context_of(thread_id: int) -> Context | None:
    """Return the context that a thread runs in; None where it has none, or where this Python does not tell."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None  # threads move on, and end, while this one looks at them
    at_thread_id, at_context = _places()
    state = _first(_interpreter())
    while state:
        words = _words(state)
        if words[at_thread_id] == thread_id:
            context = words[at_context]
            return ctypes.cast(context, ctypes.py_object).value if context else None
        state = _next(state)
    return None


@cache
def _places() -> tuple[int, int]:
    """Where in a state the thread's id and its context stand."""
    known = Context()
    words = known.run(lambda: list(_words(_mine())))
    return words.index(threading.get_ident()), words.index(id(known))


def _words(state: int) -> ctypes.Array[ctypes.c_size_t]:
    return (ctypes.c_size_t * _WORDS).from_address(state)
