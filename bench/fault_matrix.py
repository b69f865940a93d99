"""
The fault matrix: every fault of the catalogue, in every format, streamed and not, over real sockets.

One definition for the tests (which check each row), for `python -m bench.faults` (which prints them) and for
`docs/faults.md` (which holds them). Each row says what came back, how often each model was asked, and which rule
decided.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Self
from urllib.parse import urlsplit

from shared_libs.atomic import LLMError, LLMResponse, Resilience
from shared_libs.atomic.events import BreakerChanged, Event, FellBack, RetryScheduled
from shared_libs.atomic.llms import AnthropicLLM, OllamaLLM, OpenAILLM
from shared_libs.atomic.scope import Scope, use_scope
from shared_libs.atomic.types import ToolCall
from shared_libs.testing import (
    CleanCut,
    ConnectionRefused,
    ContentFilter,
    ContextTooLong,
    Cut,
    Drip,
    DuplicateChunks,
    EmptyAnswer,
    Fault,
    FaultServer,
    FieldRefused,
    Flapping,
    Garbage,
    Healthy,
    HtmlPage,
    HugeChunk,
    MalformedBody,
    MalformedChunk,
    ModelMissing,
    NameNotResolved,
    NoEndMarker,
    PrefillRejected,
    RateLimited,
    Refused,
    ResetBeforeHeaders,
    SeenRequest,
    ServerError,
    Silence,
    SlowFirstToken,
    Stall,
    TlsFailure,
    Unauthorized,
    UntrustedCertificate,
    WrongShape,
)
from shared_libs.testing.faults.catalogue import Exchange
from shared_libs.testing.faults.formats import FORMATS as WIRE_FORMATS
from shared_libs.testing.faults.server import Script

QUESTION = "Say these twelve words again, one by one, and not one more."
FORMATS = {
    "openai": OpenAILLM,
    "openai-responses": partial(OpenAILLM, api="responses"),
    "anthropic": AnthropicLLM,
    "ollama": OllamaLLM,
}
FALLBACK_FORMAT = {
    "openai": "anthropic",
    "openai-responses": "anthropic",
    "anthropic": "ollama",
    "ollama": "openai",
}
POLICY = Resilience(breaker={"failures": 100})
"""The defaults (five tries; 30 s an attempt, 10 s to the first token, 10 s between two), but for the breaker."""

AT_ONCE = Resilience(retry={"base_s": 0}, breaker={"failures": 100})
"""The same without a backoff, for the real clock."""

TIMEOUT_S = 100.0
WAIT_S = 2.0
"""A wait that is told; one of ours is drawn, and never exactly this."""
TRIES = POLICY.retry.attempts

STREAMED = ("streamed", "alone_streamed")
HEALTHY = "nothing failed"
TOLD = "retry, after the wait the provider asked for"
RETRY = "retry, after a backoff"
USED_UP = "the tries are used up"
NO_FIT = "the wait asked for does not fit the time left"
SILENT = "a silent model is not asked again while another is left"
LASTING = "a failure that another try cannot mend"
ELSEWHERE = "too long for this model, not for every model"
LEARNT = "asked otherwise, at once"
REPORTED = "reported, not routed around"


@dataclass(frozen=True)
class Want:
    """What is to come back; `fallback` is None where there is none to ask."""

    primary: int
    fallback: int
    rule: str
    result: str = "answer"


@dataclass(frozen=True)
class Case:
    """
    A fault and what is to come of it, by mode: with a fallback, and alone.

    `apart` names the formats in which a mode differs. On a `real_clock` run those that wait for a thread, which a
    virtual one would overtake.
    """

    name: str
    script: Script
    streamed: Want
    whole: Want
    alone_streamed: Want
    alone_whole: Want
    fallback: Script = field(default_factory=Healthy)
    text: str = QUESTION
    apart: dict[tuple[str, str], Want] = field(default_factory=dict)
    real_clock: bool = False

    @property
    def slug(self) -> str:
        return self.name.replace(" ", "-").replace(",", "")

    def want(self, format: str, *, stream: bool, alone: bool) -> Want:
        mode = "streamed" if stream else "whole"
        own = getattr(self, f"alone_{mode}" if alone else mode)
        return self.apart.get((format, f"alone_{mode}" if alone else mode), own)


def once(name: str, fault: Fault, rule: str = RETRY, **more) -> Case:
    """A fault that passes: the second try of the same model answers."""
    want = Want(2, 0, rule)
    return Case(name, [fault], want, want, want, want, **more)


def healthy(name: str, fault: Fault, **more) -> Case:
    """What is survived without any rule."""
    want = Want(1, 0, HEALTHY)
    return Case(name, fault, want, want, want, want, **more)


def always(name: str, fault: Fault, error: str, **more) -> Case:
    """A fault that stays: the fallback answers once the tries are used up."""
    want, alone = Want(TRIES, 1, USED_UP), Want(TRIES, 0, USED_UP, error)
    return Case(name, fault, want, want, alone, alone, **more)


def at_once(name: str, fault: Fault, error: str, rule: str = LASTING, **more) -> Case:
    """A fault that no other try mends: the fallback is asked at once."""
    want, alone = Want(1, 1, rule), Want(1, 0, rule, error)
    return Case(name, fault, want, want, alone, alone, **more)


def silent(name: str, fault: Fault, **more) -> Case:
    """A model that falls silent: the fallback is asked at the first timeout; alone it is asked until time is over."""
    want = Want(1, 1, SILENT)
    return Case(
        name, fault, want, want, Want(TRIES, 0, USED_UP, "LLMTimeout"), Want(4, 0, USED_UP, "LLMTimeout"), **more
    )


ALONE_CUT = {(name, "alone_whole"): Want(TRIES, 0, USED_UP, "LLMConnectionError") for name in FORMATS}
ENDED = {(name, mode): Want(1, 0, HEALTHY) for name in ("openai", "anthropic") for mode in STREAMED}
"""Formats whose last word stands before the end marker; that of the others is the end marker."""

CASES = [
    once("429 with Retry-After", RateLimited(retry_after_s=WAIT_S), TOLD),
    at_once("429 whose Retry-After does not fit", RateLimited(retry_after_s=600), "RateLimited", NO_FIT),
    always("429 persistent", RateLimited(), "RateLimited"),
    once("500 then fine", ServerError()),
    always("503 persistent", ServerError(503), "ProviderUnavailable"),
    once("reset before headers", ResetBeforeHeaders()),
    silent("total silence", Silence()),
    Case(
        "slow first token",
        SlowFirstToken(delay_s=12),
        streamed=Want(1, 1, SILENT),
        whole=Want(1, 0, HEALTHY),
        alone_streamed=Want(TRIES, 0, USED_UP, "LLMTimeout"),
        alone_whole=Want(1, 0, HEALTHY),
    ),
    once("cut mid-answer", Cut()),
    once("cut mid-answer by a reset", Cut(reset=True)),
    always("cut mid-answer, every time", Cut(), "StreamInterrupted", apart=ALONE_CUT),
    once("cut mid-answer, and properly closed", CleanCut()),
    silent("stall mid-answer", Stall()),
    once("malformed chunk", MalformedChunk()),
    once("missing end marker", NoEndMarker(), apart=ENDED),
    at_once("context length", ContextTooLong(), "ContextOverflow", ELSEWHERE),
    Case("content filter", ContentFilter(), *[Want(1, 0, REPORTED, "ContentFiltered")] * 4),
    always("fallback that rejects prefill", Cut(), "StreamInterrupted", apart=ALONE_CUT, fallback=PrefillRejected()),
    at_once("a quota used up, in words", Refused("money"), "RateLimited"),
    once("429 whose wait is in words", Refused("wait"), TOLD),
    at_once("429 larger than a minute allows", Refused("too_large"), "ContextOverflow", ELSEWHERE),
    at_once("400 about the key", Refused("key"), "AuthenticationFailed"),
    at_once("400 about this model", Refused("no_tools"), "BadRequest"),
    once("a tool call the server could not read", Refused("call_not_made")),
    healthy(
        "a field it does not take",
        FieldRefused("stream_options"),
        apart={("openai", mode): Want(2, 0, LEARNT) for mode in STREAMED},
    ),
    once("malformed 200 body", MalformedBody()),
    once("200 of another shape", WrongShape()),
    once("HTML error page", HtmlPage()),
    once("HTML page with status 200", HtmlPage(200)),
    at_once("401", Unauthorized(401), "AuthenticationFailed"),
    at_once("403", Unauthorized(403), "AuthenticationFailed"),
    at_once("404 model", ModelMissing(), "ModelNotFound"),
    once("empty stream", EmptyAnswer()),
    once("duplicate chunks", DuplicateChunks()),
    healthy("huge chunk", HugeChunk(1_000_000), text="x" * 1_000_000),
    Case(
        "slow drip of one byte a second",
        Drip(every_s=1),
        *[Want(1, 1, SILENT)] * 2,
        *[Want(4, 0, USED_UP, "LLMTimeout")] * 2,  # each byte is a sign of life: an attempt takes all its time
    ),
    once("garbage instead of HTTP", Garbage()),
    always("DNS failure", NameNotResolved(), "LLMConnectionError", real_clock=True),
    always("connection refused", ConnectionRefused(), "LLMConnectionError"),
    always("TLS error", TlsFailure(), "LLMConnectionError"),
    at_once("untrusted certificate", UntrustedCertificate(), "LLMConnectionError"),
]


@dataclass(frozen=True)
class Row:
    """What came back. The numbers of attempts are the ledger's; `wire` has those that the other side saw."""

    case: Case
    format: str
    stream: bool
    alone: bool
    outcome: LLMResponse | LLMError
    events: list[Event]
    heard: str
    wire: tuple[int, int]

    @property
    def result(self) -> str:
        return type(self.outcome).__name__ if isinstance(self.outcome, LLMError) else "answer"

    @property
    def asked(self) -> tuple[int, int]:
        first = sum(row.model.startswith("primary") for row in self.outcome.attempts)
        return first, len(self.outcome.attempts) - first

    @property
    def rule(self) -> str:
        return rule_of(self.outcome, self.events)

    @property
    def want(self) -> Want:
        return self.case.want(self.format, stream=self.stream, alone=self.alone)


def rule_of(outcome: LLMResponse | LLMError, events: list[Event]) -> str:
    """The rule that decided, as the ledger and the events show it."""
    failed = [row for row in outcome.attempts if row.outcome != "ok"]
    if not failed:
        return HEALTHY
    if isinstance(outcome, LLMError) and not outcome.another_may_answer:
        return REPORTED
    gone_on = [event for event in events if isinstance(event, FellBack)]
    retries = [event for event in events if isinstance(event, RetryScheduled)]
    if isinstance(outcome, LLMResponse) and not gone_on:
        return {WAIT_S: TOLD, 0.0: LEARNT}.get(retries[0].wait_s, RETRY)
    last = failed[-1]
    if last.outcome == "timeout" and not retries:
        return SILENT
    if last.outcome == "context_overflow":
        return ELSEWHERE
    if last.outcome == "rate_limited" and not retries and "usage limit" not in last.why:
        return NO_FIT
    return LASTING if not retries else USED_UP


def all_rows() -> Iterator[tuple[Case, str, bool, bool]]:
    """Every case in every format, streamed and not, with a fallback and alone."""
    for case in CASES:
        for name in FORMATS:
            for stream in (True, False):
                for alone in (False, True):
                    yield case, name, stream, alone


class Knocks:
    """Counts what a process asks its system for, because what never reaches a server cannot be counted there."""

    open: ClassVar[list[Knocks]] = []

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, int]] = Counter()

    def __enter__(self) -> Self:
        if not hasattr(Knocks, "hook"):
            Knocks.hook = _listen
            sys.addaudithook(_listen)
        self.open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.open.remove(self)

    def add(self, host: str, port: int) -> None:
        self._seen[host, port] += 1

    def at(self, url: str) -> int:
        """How often the address of this URL was looked up, or knocked at."""
        parts = urlsplit(url)
        return self._seen[parts.hostname, parts.port or 80]


def _listen(event: str, arguments: tuple) -> None:
    for knocks in Knocks.open:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            knocks.add(*arguments[1][:2])
        if event == "socket.getaddrinfo":
            knocks.add(*arguments[:2])


async def run_row(case: Case, format: str, *, stream: bool, alone: bool) -> Row:
    """Ask once, and book what both sides saw."""
    mark = f"{case.name}-{format}-{stream}-{alone}"
    primary, fallback = f"primary {mark}", f"fallback {mark}"
    events: list[Event] = []
    chunks = []
    knocks = Knocks()
    async with FaultServer({primary: case.script, fallback: case.fallback}) as server:
        others = []
        if not alone:
            theirs = FALLBACK_FORMAT[format]
            others = [FORMATS[theirs](fallback, api_key="k", base_url=server.url(theirs))]
        base_url = server.url(format, primary)
        policy = AT_ONCE if case.real_clock else POLICY
        llm = FORMATS[format](primary, api_key="k", base_url=base_url, resilience=policy, fallbacks=others)
        with use_scope(Scope(emit=events.append)), knocks:
            async with llm:
                try:
                    sink = chunks.append if stream else None
                    outcome = await llm.async_chat(QUESTION, on_chunk=sink, timeout=TIMEOUT_S)
                except LLMError as error:
                    outcome = error
        seen = len(server.seen(primary)) or server.handshakes or knocks.at(base_url)
        return Row(case, format, stream, alone, outcome, events, heard(chunks), (seen, len(server.seen(fallback))))


def heard(chunks: list) -> str:
    """What a listener has in the end."""
    text = ""
    for chunk in chunks:
        text = "" if chunk.kind == "restarted" else text + chunk.text
    return text


@dataclass(frozen=True)
class Series:
    """What came back from many calls, and what both sides saw of them."""

    answers: list[LLMResponse]
    moved: list[tuple[int, str]]
    """When the primary's breaker moved, in whole seconds, and to what."""
    requests: list[SeenRequest]

    @property
    def told(self) -> str:
        """The same in one line."""
        texts = sum(answer.text == QUESTION for answer in self.answers)
        first = sum(seen.model.startswith("primary") for seen in self.requests)
        states = Counter(state for _, state in self.moved)
        return (
            f"{texts} of {len(self.answers)} calls answered; {first} + {len(self.requests) - first} attempts; the "
            f"circuit opened {states['open']} times, {states['half_open']} probes, closed {states['closed']} times"
        )


async def run_flapping(name: str, *, stream: bool) -> Series:
    """Three calls at once every second for 100 s; the primary is down for 8 s and up for 4 s, in turn for a minute."""
    primary, fallback = f"primary flapping {name} {stream}", f"fallback flapping {name} {stream}"
    policy = Resilience(retry={"attempts": 1}, breaker={"failures": 3, "reset_s": 5})
    loop = asyncio.get_running_loop()
    moved: list[tuple[int, str]] = []
    answers: list[LLMResponse] = []

    def book(event: Event) -> None:
        if isinstance(event, BreakerChanged):
            moved.append((round(loop.time()), event.state))

    async with FaultServer({primary: Flapping(down_s=8, up_s=4, for_s=60), fallback: Healthy()}) as server:
        theirs = FALLBACK_FORMAT[name]
        other = FORMATS[theirs](fallback, api_key="k", base_url=server.url(theirs))
        llm = FORMATS[name](primary, api_key="k", base_url=server.url(name), resilience=policy, fallbacks=[other])
        with use_scope(Scope(emit=book)):
            async with llm:
                for _ in range(100):
                    sink = (lambda _: None) if stream else None
                    answers += await asyncio.gather(*[llm.async_chat(QUESTION, on_chunk=sink) for _ in range(3)])
                    await asyncio.sleep(1)
        return Series(answers, moved, server.requests)


CALLS = (ToolCall("call_a", "look", {"q": "é", "deep": [1, None]}), ToolCall("call_b", "look", {"q": "🌳"}))


@dataclass
class Cuts:
    """What became of an answer that was cut at every byte of its body."""

    offsets: int = 0
    whole_at_once: int = 0
    """Cut so late that nothing was lost."""
    rescued: int = 0
    truncated: int = 0
    """Passed off as an answer without being all of it: must be 0."""

    def __str__(self) -> str:
        return (
            f"{self.offsets:5} offsets: {self.rescued} rescued, {self.whole_at_once} behind the last word, "
            f"{self.truncated} truncated successes"
        )


async def run_cuts(name: str, *, stream: bool) -> Cuts:
    """Cut an answer of text and two parallel tool calls at every byte, once; the next try is healthy."""
    answer = Healthy("Grün 🌳 gut.", CALLS)
    request = {"messages": [{"role": "user", "content": QUESTION}], "stream_options": {"include_usage": True}}
    model = f"cuts {name} {stream}"
    body = answer.play(Exchange(WIRE_FORMATS[name], f"{model} 0000", request, stream)).body
    counted = Cuts(offsets=len(body))
    # a model of its own for each: what one is known to have failed must not tell on the next
    cut = {f"{model} {at:04}": [Cut(at, reset=at % 2 == 1, answer=answer), answer] for at in range(len(body))}
    policy = Resilience(retry={"attempts": 2, "base_s": 0})
    async with FaultServer(cut) as server:
        for each in cut:
            chunks: list = []
            async with FORMATS[name](each, api_key="k", base_url=server.url(name), resilience=policy) as llm:
                response = await llm.async_chat(QUESTION, on_chunk=chunks.append if stream else None)
            complete = (response.text, response.tool_calls) == (answer.text, CALLS)
            complete = complete and (not stream or heard(chunks) == answer.text)
            counted.truncated += not complete
            counted.rescued += complete and len(server.seen(each)) == len(response.attempts) == 2
            counted.whole_at_once += complete and len(server.seen(each)) == len(response.attempts) == 1
    return counted
