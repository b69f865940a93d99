"""What a forked child has to make anew: threads do not survive a fork, and a lock may have been held at it."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that does not survive a fork as it is."""

    def after_fork(self) -> None:
        """Begin anew, in the child: its threads are gone, and its locks may be held by nobody."""


_known: weakref.WeakSet[Forked] = weakref.WeakSet()


def survive_forks(thing: Forked) -> None:
    """Have `thing.after_fork()` called in every child that this process forks, while the thing lives."""
    _known.add(thing)


def _begin_anew() -> None:
    for thing in list(_known):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_begin_anew)
