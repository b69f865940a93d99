"""
Who is next: a queue for each key, served in turns by weight, the newest first where there is more than can be done.

Plain data and no clock: `now` is an argument. The turns are deficit round robin (Shreedhar and Varghese, 1995), a key
that was idle comes before those with a backlog, as in FQ-CoDel (RFC 8290). A queue whose oldest has waited longer than
the wait limit for all of `INTERVAL_S` is overloaded until it is empty: its newest comes first, and who has waited
longer than that is shed, after Facebook's adaptive LIFO and controlled delay (Maurer, ACM Queue 2015). One that was
overloaded a moment ago is so again at once, as in CoDel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

TARGET_S = 0.25
"""How long anybody waits in an overloaded queue, beside the time between two slots."""

INTERVAL_S = 5.0
"""A queue whose oldest has waited too long for so long is overloaded."""

RANKS = {"critical": 0, "default": 1, "sheddable": 2}
"""Priorities; of one key the first rank is served first, and the last is shed first."""


AGAIN_S = 60.0
MOST_RECENT = 1000
"""How long, and of how many keys, it is remembered that they had more than can be done."""


class Waiter:
    """
    One who waits.

    Args:
        key: whose queue it stands in.
        weight: the key's share.
        cost: how much work it is, in any unit that all use.
        since: when it came.
        until: when it is too late to begin: `need_s` before its deadline.
        need_s: seconds it takes at the least.
        rank: see `RANKS`.

    """

    __slots__ = ("cost", "gone", "key", "need_s", "rank", "since", "token", "until", "weight")

    def __init__(
        self, key: str, *, weight: float, cost: float, since: float, until: float, need_s: float = 0.0, rank: int = 1
    ) -> None:
        self.key = key
        self.weight = weight
        self.cost = cost
        self.since = since
        self.until = until
        self.rank = rank
        self.need_s = need_s
        self.token: Any = None  # the caller's own
        self.gone = False


class _Flow:
    """The queue of one key."""

    __slots__ = ("calm_at", "cost", "deficit", "overloaded", "ranks", "size", "was_overloaded", "weight")

    def __init__(self, weight: float, now: float, *, was_overloaded: bool) -> None:
        self.weight = weight
        self.overloaded = False
        self.was_overloaded = was_overloaded
        self.deficit = 0.0
        self.calm_at = now
        self.cost = 0.0
        self.size = 0
        self.ranks: tuple[deque[Waiter], ...] = (deque(), deque(), deque())

    def add(self, waiter: Waiter) -> None:
        if not self.size:
            self.calm_at = waiter.since
            self.was_overloaded = self.was_overloaded or self.overloaded
            self.overloaded = False
        waiting = self.ranks[waiter.rank]
        if len(waiting) > 2 * self.size + 16:  # most of them have gone
            kept = [other for other in waiting if not other.gone]
            waiting.clear()
            waiting.extend(kept)
        waiting.append(waiter)
        self.weight = waiter.weight
        self.cost += waiter.cost
        self.size += 1

    def drop(self, waiter: Waiter) -> None:
        """Count one no more; it is skipped when its turn comes."""
        waiter.gone = True
        self.cost -= waiter.cost
        self.size -= 1

    def next(self, now: float, wait_limit_s: float) -> Waiter | None:
        """Look who is next."""
        oldest = min((waiter.since for waiting in self.ranks for waiter in islice(waiting, 1)), default=now)
        if now - oldest <= wait_limit_s:
            self.calm_at = now
        elif self.was_overloaded or now - self.calm_at >= INTERVAL_S:
            self.overloaded = True
        newest = self.overloaded
        for waiting in self.ranks:
            while waiting:
                waiter = waiting[-1 if newest else 0]
                if not waiter.gone:
                    return waiter
                waiting.pop() if newest else waiting.popleft()
        return None

    def __iter__(self) -> Iterator[Waiter]:
        return (waiter for waiting in self.ranks for waiter in waiting if not waiter.gone)


class FairQueue:
    """The queues of all keys."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._new: deque[str] = deque()
        self._old: deque[str] = deque()
        self._recent: dict[str, float] = {}
        self._quantum = 1.0

    def __len__(self) -> int:
        return sum(flow.size for flow in self._flows.values())

    def add(self, waiter: Waiter) -> None:
        """Let somebody wait."""
        flow = self._flows.get(waiter.key)
        if flow is None:
            recent = waiter.since - self._recent.get(waiter.key, -AGAIN_S) < AGAIN_S
            flow = self._flows[waiter.key] = _Flow(waiter.weight, waiter.since, was_overloaded=recent)
            self._new.append(waiter.key)
        self._quantum = max(self._quantum * 0.99, waiter.cost)  # so that each turn serves somebody
        flow.add(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Let somebody go who waits no more."""
        if not waiter.gone and (flow := self._flows.get(waiter.key)) is not None:
            flow.drop(waiter)

    def overloaded(self, key: str) -> bool:
        """Whether a key has more than can be done."""
        flow = self._flows.get(key)
        return flow is not None and flow.size > 0 and flow.overloaded

    def late(self, key: str, now: float, wait_limit_s: float) -> list[Waiter]:
        """Take out those of an overloaded key who have waited too long."""
        flow = self._flows.get(key)
        if flow is None or not flow.overloaded:
            return []
        late = [waiter for waiter in flow if now - waiter.since > wait_limit_s]
        for waiter in late:
            flow.drop(waiter)
        return late

    def pop(self, now: float, wait_limit_s: float = TARGET_S) -> Waiter | None:
        """Take out who is next; None where nobody waits."""
        while self._new or self._old:
            turns = self._new or self._old
            key = turns[0]
            flow = self._flows[key]
            waiter = flow.next(now, wait_limit_s)
            if waiter is None:
                turns.popleft()
                del self._flows[key]
                if flow.overloaded or flow.was_overloaded:
                    self._remember(key, now if flow.overloaded else self._recent.get(key, now))
            elif flow.deficit < waiter.cost and turns is self._old:
                flow.deficit += self._quantum * flow.weight
                self._old.rotate(-1)
            else:
                # a key that was idle has its first turn at once, and is one of many from then on
                flow.deficit = max(0.0, flow.deficit - waiter.cost)
                if turns is self._new:
                    self._new.popleft()
                    self._old.append(key)
                flow.drop(waiter)
                return waiter
        return None

    def _remember(self, key: str, now: float) -> None:
        self._recent[key] = now
        if len(self._recent) > MOST_RECENT:
            del self._recent[next(iter(self._recent))]

    def ahead(self, key: str, weight: float, cost: float) -> float:
        """Return how much work is served before somebody who comes now: its key's, and the others' shares meanwhile."""
        own = self._flows.get(key)
        before = own.cost if own is not None else 0.0
        others = 0.0
        for name, flow in self._flows.items():
            if name != key:
                others += min(flow.cost, (before + cost) * flow.weight / weight)
        return before + (others if own is not None and own.size else 0.0)

    def __iter__(self) -> Iterator[Waiter]:
        return (waiter for flow in self._flows.values() for waiter in flow)
