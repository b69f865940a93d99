"""
What the time of a run went on: exclusive parts that add up to it, and a sentence that says why.

Every moment of a run belongs to one part. Where several things go on at once it is the one that the run waits for: of
parallel tools the one that ends last, of models asked at once the one that answers.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Literal

import msgspec

from shared_libs.atomic import events as e
from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.types import Attempt
from shared_libs.observability.wording import counted, seconds, usage_words

PartKind = Literal[
    "away",
    "decision",
    "rate_limit",
    "backoff",
    "retry_after",
    "first_token",
    "generation",
    "failed_attempt",
    "tool",
    "memory",
    "blocked",
    "overhead",
]

WORDS: Mapping[PartKind, str] = {
    "away": "waiting for a process to go on with it",
    "decision": "waiting for a decision on {name}",
    "rate_limit": "waiting for room in our own rate limit of {name}",
    "backoff": "backing off before asking {name} again",
    "retry_after": "waiting as long as {name} had asked for (Retry-After)",
    "first_token": "waiting for the first token of {name}",
    "generation": "{name} writing its answer",
    "failed_attempt": "attempts of {name} that failed",
    "tool": "the tool {name}",
    "memory": "memory ({name})",
    "blocked": "{name} blocking the event loop",
    "overhead": "the runtime itself",
}
"""What a part is in words."""

NAMES: Mapping[PartKind, str] = {
    "away": "away",
    "decision": "decision",
    "rate_limit": "rate limit",
    "backoff": "backoff",
    "retry_after": "Retry-After",
    "first_token": "first token of",  # "token NAME" is what a secret stands behind, and is masked
    "generation": "writing",
    "failed_attempt": "failed attempt",
    "tool": "tool",
    "memory": "memory",
    "blocked": "blocked loop",
    "overhead": "overhead",
}
"""What a part is called beside its name."""

_RANKS: Mapping[PartKind, int] = {
    "blocked": 9,
    "memory": 8,
    "tool": 7,
    "generation": 6,
    "first_token": 5,
    "failed_attempt": 4,
    "retry_after": 3,
    "backoff": 3,
    "rate_limit": 3,
    "away": 1,
    "decision": 1,
}
"""Which of two things at one moment has it: the greater."""

_PIECES: Mapping[PartKind, str] = {
    "first_token": "request",
    "generation": "request",
    "tool": "call",
}
"""What the pieces of a part are; of the others it is told how many times."""

NAMED = 5
"""Parts that are named beside a sentence."""

_OUTDONE = 2
_WORTH_SAYING = 0.2
"""The share of the time from which a second part is worth a word."""

_TOLD_WAIT_S = 0.1
_LONGEST_WHY = 160
_NOTHING_S = 1e-9


class Part(msgspec.Struct, frozen=True):
    """One part of a run's time; `name` is the model, the tool, or what the memory did."""

    kind: PartKind
    name: str
    seconds: float

    @property
    def label(self) -> str:
        """What it is, in few words."""
        return f"{NAMES[self.kind]} {self.name}".rstrip()

    @property
    def words(self) -> str:
        """What it is, as part of a sentence."""
        return WORDS[self.kind].format(name=self.name)


class Attribution(msgspec.Struct, frozen=True):
    """
    What the time of a run went on.

    `parts` are exclusive and add up to `elapsed_s`, the longest first. `why` says it in a sentence.
    """

    elapsed_s: float
    parts: list[Part]
    why: str

    @property
    def named(self) -> str:
        """The longest parts by their names, and how long each of them is."""
        return " · ".join(f"{part.label} {seconds(part.seconds)}" for part in self.parts[:NAMED])


class _Span(msgspec.Struct):
    """
    Something that went on; `said` tells of it alone, should it be the longest of its part, and `used` what it used.

    What is `outdone` has a moment only where nothing else goes on: a model that lost to another one, or a guess.
    """

    kind: PartKind
    name: str
    start_s: float
    end_s: float
    said: str = ""
    outdone: bool = False
    used: str = ""

    @property
    def order(self) -> tuple[int, float]:
        """What it is worth beside others at one moment: the smallest comes first."""
        return -(_OUTDONE if self.outdone else _RANKS[self.kind]), -self.end_s


def attribute(events: Iterable[AgentEvent]) -> Attribution:
    """Say what the time of one run went on; of a run without an end it is the time until its last event."""
    taken = Attributor()
    for event in events:
        taken.take(event)
    return taken.attribution()


class Attributor:
    """Takes the events of one run in their order, and keeps only what is needed."""

    def __init__(self) -> None:
        self._spans: list[_Span] = []
        self._open: dict[object, _Span] = {}
        self._waits: list[_Span] = []
        self._tries: dict[tuple[str, str], int] = {}
        self._now = self._active_s = 0.0
        self._ended_why = self._again_why = ""
        self._waited: list[str] = []
        self._pending: list[str] = []
        self._calls: dict[str, _Span] = {}
        self._all_failed = True
        self._in_session = self._loaded = self._stored = self._stepped = False

    def take(self, event: AgentEvent) -> None:
        """Take the next event."""
        before, self._now = self._now, max(self._now, event.at_s)
        match event:
            case e.RunStarted():
                self._take_beginning(event, before)
            case e.StepStarted():
                self._stepped, self._stored = True, False
            case e.ToolStarted(tool=tool, call_id=call_id):
                self._calls[call_id] = self._begin(("tool", call_id), "tool", tool)
            case e.ToolFinished():
                self._take_tool(event)
            case e.ApprovalRequested(tool=tool):
                self._pending.append(tool)
            case e.MemoryLoaded() | e.MemoryStored() | e.MemoryCompacted():
                self._take_memory(event)
            case e.LoopBlocked(blocked_s=blocked_s):
                self._add("blocked", event.who, event.at_s - blocked_s, event.at_s)
            case e.LimitReached(why=why):
                self._ended_why = why
            case e.RunFinished(result=result):
                self._now = result.elapsed_s  # also where a clock was set back, and events say later times
                self._take_end()
            case _:
                self._take_model(event)

    def know(self, call_id: str, inner: Attribution) -> None:
        """Take what the time of a run went on that a tool call has made: of that call it says more than its length."""
        span = self._calls.get(call_id)
        if span is not None and inner.why:
            span.said = f"its run: {inner.why.rstrip('.')}"

    def attribution(self) -> Attribution:
        """Return what the time went on so far."""
        pieces: dict[tuple[PartKind, str], list[tuple[float, _Span]]] = {}
        for span, took_s in _exclusive([*self._spans, *self._open.values()], self._now):
            pieces.setdefault((span.kind, span.name), []).append((took_s, span))
        sums = {key: sum(took_s for took_s, _ in its) for key, its in pieces.items()}
        rest_s = self._now - sum(sums.values())
        if rest_s > _NOTHING_S:
            sums["overhead", ""] = rest_s
        parts = sorted(
            (Part(kind, name, took_s) for (kind, name), took_s in sums.items()), key=lambda part: -part.seconds
        )
        longest = pieces.get((parts[0].kind, parts[0].name), []) if parts else []
        told = [_sentence(self._now, parts, longest, self._ended_why), *self._waited]
        if self._pending:
            told.append(f"It waits for a decision on {_listed(self._pending)}.")
        return Attribution(self._now, parts, " ".join(filter(None, told)))

    def _take_beginning(self, event: e.RunStarted, before_s: float) -> None:
        self._in_session = event.session_id is not None
        asked, self._pending = _listed(self._pending), []
        if event.resumed:
            self._add("decision" if asked else "away", asked, before_s, event.at_s)
        if event.waited_s >= _TOLD_WAIT_S:
            reason = f"for a decision on {asked}" if asked else "for its turn"
            self._waited.append(f"Besides, it waited {seconds(event.waited_s)} {reason}, which is none of its time.")

    def _take_tool(self, event: e.ToolFinished) -> None:
        span = self._end(("tool", event.call_id))
        failed = f"{event.tool} failed: {_brief(event.content)}".rstrip(": ") if event.is_error else ""
        if span is not None:
            span.said = span.said or failed
        self._again_why, self._all_failed = failed or self._again_why, self._all_failed and event.is_error
        self._active_s = self._now

    def _take_memory(self, event: e.MemoryLoaded | e.MemoryStored | e.MemoryCompacted) -> None:
        did = {e.MemoryLoaded: "loading", e.MemoryStored: "storing", e.MemoryCompacted: "summing up"}[type(event)]
        self._add("memory", did, event.at_s - event.elapsed_s, event.at_s)
        self._loaded = self._loaded or isinstance(event, e.MemoryLoaded)
        self._stored = isinstance(event, e.MemoryStored)
        self._active_s = self._now

    def _take_end(self) -> None:
        """What a memory that failed took is told by nothing but the time that is left over."""
        if self._in_session and not self._stepped and not self._loaded:
            self._add("memory", "loading", 0.0, self._now, outdone=True)
        elif self._in_session and self._stepped and not self._stored:
            self._add("memory", "storing", self._active_s, self._now, outdone=True)

    def _take_model(self, event: AgentEvent) -> None:
        match event:
            case e.AttemptStarted(provider=provider, model=model, number=number):
                self._tries[provider, model] = number
                self._begin((provider, model, number), "first_token", model)
            case e.AttemptFinished(attempt=attempt):
                self._take_attempt(attempt)
            case e.RetryScheduled(provider=provider, model=model, wait_s=wait_s, why=why, told=told):
                number = self._tries.get((provider, model), 0) + 1
                said = f"try {number} of {model} had to wait {seconds(wait_s)} because {_brief(why)}"
                kind: PartKind = "retry_after" if told else "backoff"
                self._waits.append(self._add(kind, model, self._now, self._now + wait_s, said))
            case e.LimitWaited(model=model, waited_s=waited_s, limit=limit):
                said = f"{model} was asked {seconds(waited_s)} later for our own limit of {limit}" if limit else ""
                self._add("rate_limit", model, self._now - waited_s, self._now, said)
            case e.StreamRestarted(reason=reason):
                self._again_why, self._all_failed = _brief(reason), True
            case e.ModelFinished():
                self._again_why, self._all_failed = "", True
                for wait in self._waits:  # of a model that lost, or was not asked again
                    wait.end_s = min(wait.end_s, self._now)
                self._waits.clear()
                self._active_s = self._now

    def _take_attempt(self, attempt: Attempt) -> None:
        self._open.pop((attempt.provider, attempt.model, attempt.number), None)
        self._active_s = self._now
        start_s, end_s = attempt.started_s, attempt.ended_s
        if attempt.outcome not in ("ok", "cancelled"):
            said = f"try {attempt.number} of {attempt.model} failed: {_brief(attempt.why or attempt.outcome)}"
            self._add("failed_attempt", attempt.model, start_s, end_s, said)
            return
        lost = attempt.outcome == "cancelled"
        first_s = end_s if attempt.first_token_s is None else attempt.first_token_s
        because = self._again_why if self._all_failed else ""
        said = f"asked again because {because}" if because else ""
        used = "" if attempt.usage is None or not attempt.usage.total_tokens else usage_words(attempt.usage)
        self._add("first_token", attempt.model, start_s, first_s, said, outdone=lost).used = used
        self._add("generation", attempt.model, first_s, end_s, said, outdone=lost).used = used

    def _begin(self, key: object, kind: PartKind, name: str) -> _Span:
        self._open[key] = _Span(kind, name, self._now, math.inf)
        return self._open[key]

    def _end(self, key: object) -> _Span | None:
        span = self._open.pop(key, None)
        if span is not None:
            span.end_s = self._now
            self._spans.append(span)
        return span

    def _add(
        self, kind: PartKind, name: str, start_s: float, end_s: float, said: str = "", *, outdone: bool = False
    ) -> _Span:
        self._spans.append(_Span(kind, name, start_s, end_s, said, outdone))
        return self._spans[-1]


def _exclusive(spans: Sequence[_Span], until_s: float) -> list[tuple[_Span, float]]:
    """Give each span the seconds that it has, where every moment until then belongs to one of them or to none."""
    clipped = sorted(
        (max(span.start_s, 0.0), min(span.end_s, until_s), index)
        for index, span in enumerate(spans)
        if max(span.start_s, 0.0) < min(span.end_s, until_s)
    )
    moments = sorted({moment for start_s, end_s, _ in clipped for moment in (start_s, end_s)})
    active: list[tuple[tuple[int, float], int, float]] = []
    had: dict[int, float] = {}
    following = 0
    for start_s, end_s in pairwise(moments):
        while following < len(clipped) and clipped[following][0] <= start_s:
            _, its_end_s, index = clipped[following]
            heapq.heappush(active, (spans[index].order, index, its_end_s))
            following += 1
        while active and active[0][2] <= start_s:
            heapq.heappop(active)
        if active:
            had[active[0][1]] = had.get(active[0][1], 0.0) + end_s - start_s
    return [(spans[index], took_s) for index, took_s in had.items()]


def _sentence(elapsed_s: float, parts: Sequence[Part], longest: Sequence[tuple[float, _Span]], ended_why: str) -> str:
    if not parts:
        return ""
    first, *others = parts
    went = f"{seconds(first.seconds)} of {seconds(elapsed_s)} went on {first.words}{_how_often(longest)}"
    if others and others[0].seconds >= _WORTH_SAYING * elapsed_s:
        went += f", {seconds(others[0].seconds)} on {others[0].words}"
    told = "; ".join(filter(None, (went, _reason(longest))))
    return f"{told}. It was ended early: {_brief(ended_why)}." if ended_why else f"{told}."


def _how_often(pieces: Sequence[tuple[float, _Span]]) -> str:
    """Say how many pieces a part has, and how much the longest of them used."""
    if not pieces:
        return ""
    took_s, span = max(pieces, key=itemgetter(0))
    told = [_many(pieces), f"the longest {seconds(took_s)}"] if len(pieces) > 1 else []
    told = [", ".join(told), f"tokens {span.used}" if span.used else ""]
    words = ": ".join(filter(None, told))
    return f" ({words})" if words else ""


def _reason(pieces: Sequence[tuple[float, _Span]]) -> str:
    """Say why the longest piece was there that says so, and how many of them do, where they are worth a word."""
    giving = [(took_s, span) for took_s, span in pieces if span.said]
    if sum(took_s for took_s, _ in giving) < _WORTH_SAYING * sum(took_s for took_s, _ in pieces) or not giving:
        return ""
    said = max(giving, key=itemgetter(0))[1].said
    return (
        said if len(pieces) == 1 or giving[0][1].kind not in _PIECES else f"{said} ({len(giving)} of {_many(pieces)})"
    )


def _many(pieces: Sequence[tuple[float, _Span]]) -> str:
    return counted(len(pieces), _PIECES.get(pieces[0][1].kind, "time"))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _brief(why: str) -> str:
    line = " ".join(why.split()).rstrip(".")  # the sentence around it has its own
    return line if len(line) <= _LONGEST_WHY else f"{line[:_LONGEST_WHY]}…"
