"""
What lives outside the event loop, in threads and processes, and what becomes of it in a forked child.

A fork copies the counts, the queues and the locks, but of the threads only the one that forked, and it shares the
sockets and pipes with the parent. Whoever keeps such things registers here, and begins anew in the child: servers that
load the application first and fork their workers then do just that (gunicorn --preload, Celery, uWSGI).
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol


class Outside(Protocol):
    """Something that has threads, processes, or locks that another thread may hold at the moment of a fork."""

    def begin_anew(self) -> None:
        """Forget, in a forked child, what belongs to the parent: no thread of it is here, no process is to be ended."""


_all: weakref.WeakSet[Any] = weakref.WeakSet()


def outside_the_loop(thing: Outside) -> None:
    """Have `thing` begin anew in every process forked from here on; it is held weakly."""
    _all.add(thing)


def _in_child() -> None:
    for thing in list(_all):
        thing.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
