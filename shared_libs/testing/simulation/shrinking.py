"""Making a scenario that fails smaller, as long as it fails the same way: parts left out, then words and numbers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

Json = dict[str, Any]
Place = tuple[str | int, ...]
Edit = tuple[Place, Any]

MAX_PLAYS = 1_500
"""How often a scenario is played at the most."""

_KEPT = frozenset({"scenario", "agent", "question", "strict", "seed", "models", "tools", "on", "fault", "session"})
"""Keys without which it is no scenario, or another one."""

_SCRIPTS = frozenset({"models", "tools"})
_GONE = object()


def shrunk(data: Json, fails: Callable[[Json], bool], max_plays: int = MAX_PLAYS) -> Json:
    """
    Return the smallest scenario that was found which still fails.

    Args:
        data: a scenario that fails.
        fails: plays one, and tells whether it fails the same way; one that does not hold does not.
        max_plays: how often that may be asked.

    """
    plays, went_on = 0, True
    while went_on and plays < max_plays:
        went_on, index = False, 0
        while plays < max_plays and (edit := next(itertools.islice(_edits(data), index, None), None)) is not None:
            plays += 1
            smaller = _edited(data, *edit)
            if fails(smaller):
                data, went_on = smaller, True
            else:
                index += 1
    return data


def _edits(data: Json) -> Iterator[Edit]:
    """Give every way to make it smaller by one part: the large parts first, then the values."""
    places = sorted(_places(data, ()), key=len)
    for place in places:
        value, script = _at(data, place), place[0] in _SCRIPTS and len(place) == 2
        if isinstance(value, list) and value:
            yield from ((place, fewer) for fewer in _shorter(value) if fewer or not script)
        elif place == ("session",) or (isinstance(place[-1], str) and place[-1] not in _KEPT and not script):
            yield place, _GONE
    for place in places:
        yield from ((place, simple) for simple in _simpler(_at(data, place), place[-1]))


def _places(value: Any, place: Place) -> Iterator[Place]:
    if place:
        yield place
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*place, key))


def _shorter(items: list[Any]) -> Iterator[list[Any]]:
    """Leave out all items, half of them, or one."""
    length = len(items)
    yield []
    if length > 3:
        yield items[: length // 2]
        yield items[length // 2 :]
    if length > 1:
        yield from (items[:index] + items[index + 1 :] for index in range(length))


def _simpler(value: Any, key: str | int) -> Iterator[Any]:
    """Give a rounder number or a shorter word that means as much."""
    if isinstance(value, float):
        yield from (rounder for rounder in (float(round(value)), round(value, 1)) if rounder != value)
    elif isinstance(value, str) and key in ("text", "result", "error") and len(value) > 2:
        yield "ok"


def _at(data: Any, place: Place) -> Any:
    for key in place:
        data = data[key]
    return data


def _edited(data: Json, place: Place, value: Any) -> Json:
    changed = copy.deepcopy(data)
    holder = _at(changed, place[:-1])
    if value is _GONE:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return changed
