"""
What a server is known to want of a request: from its profile, and learnt from what it refused.

Kept per (provider, base URL, model) and shared by everything in the process; nothing is stored. A server whose rules
change is learnt again by the next process.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from shared_libs.atomic.events import Warned
from shared_libs.atomic.llms.profiles import Profile, Trait, profile_of
from shared_libs.atomic.scope import current_scope

_log = logging.getLogger(__name__)

MAX_KNOWN = 1000
"""How many servers and models are remembered; the one used longest ago is forgotten first."""


class Dialect:
    """
    What one model behind one address wants.

    `dropped`, `renamed` and `capped` are fields of the request; `not_returned` are fields of messages that it gives and
    does not take back, `stand_ins` those it misses in what others made (`given.py`); `texts_at_once` is how many texts
    one request for embeddings may have, `tool_words` how long a tool's description may be. `learnt` says in words what
    was not in the profile.
    """

    __slots__ = (
        *("capped", "dropped", "learnt", "name", "not_returned", "renamed", "stand_ins", "texts_at_once"),
        *("tool_words", "traits"),
    )

    def __init__(self, name: str, profile: Profile = Profile()) -> None:  # noqa: B008 - immutable
        self.name = name
        self.traits: set[Trait] = set(profile.traits)
        self.dropped = set(profile.dropped)
        self.renamed = dict(profile.renamed)
        self.capped: dict[str, int] = {}
        self.not_returned: set[str] = set()
        self.stand_ins: set[str] = set()
        self.texts_at_once = profile.texts_at_once
        self.tool_words: int | None = None
        self.learnt: list[str] = []

    def note(self, lesson: str) -> None:
        """Say once that something was learnt: in the log, among the events, and for whoever asks later."""
        self.learnt.append(lesson)
        text = f"{self.name}: {lesson}, from now on"
        _log.warning(text)
        current_scope().emit(Warned(message=text))

    def fit(self, request: dict[str, Any]) -> None:
        """Bring the fields of a request to what the server takes."""
        for old, new in self.renamed.items():
            if old in request:
                request.setdefault(new, request.pop(old))
        for name in self.dropped:
            request.pop(name, None)
        for name, most in self.capped.items():
            value = request.get(name)
            if isinstance(value, int) and value > most:
                request[name] = most


_known: OrderedDict[tuple[str, str, str], Dialect] = OrderedDict()


def dialect_of(provider: str, base_url: str, model: str) -> Dialect:
    """Return the one record of this model at this address in this process."""
    name = (provider, base_url, model)
    found = _known.get(name)
    if found is None:
        found = _known.setdefault(name, Dialect(f"{provider}/{model} at {base_url}", profile_of(base_url, model)))
        if len(_known) > MAX_KNOWN:
            with contextlib.suppress(KeyError):  # another thread has just forgotten it
                _known.popitem(last=False)
    else:
        with contextlib.suppress(KeyError):
            _known.move_to_end(name)
    return found


def lessons() -> Iterator[tuple[str, tuple[str, ...]]]:
    """What this process has learnt: for each model at its address what it wants, in words."""
    return iter([(dialect.name, tuple(dialect.learnt)) for dialect in list(_known.values()) if dialect.learnt])


def forget() -> None:
    """Forget everything that was learnt, as a new process would."""
    _known.clear()
