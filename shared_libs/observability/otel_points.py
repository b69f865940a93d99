"""
The figures of OpenTelemetry, off the event loop: a point of a histogram costs 9 µs there.

What is to be recorded waits until somebody collects, or until there is much of it.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from shared_libs.atomic.types import Attempt, Usage
from shared_libs.observability.otel_words import SCOPE, SECONDS, TOKENS, named

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

MOST_POINTS = 1_000
"""So many wait at most; more are recorded by a thread."""

AT_A_TIME = 16
"""So many a thread records before it lets the event loop go on."""


class Points:
    """Points of histograms that nobody has collected yet."""

    def __init__(self, meter: Meter) -> None:
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._recording = threading.Lock()
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time to the first piece of an answer.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._usage = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens used.", explicit_bucket_boundaries_advisory=TOKENS
        )
        meter.create_observable_gauge(
            "factory.telemetry.waiting", [self._collected], description="Nothing: asked for, it records what waits."
        )

    def later(self, record: Callable[..., None], *about: Any) -> None:
        """Take what is to be recorded by one of the functions below; the context it ends with has its exemplar."""
        self._waiting.append((record, about))
        if len(self._waiting) == MOST_POINTS:
            try:  # `Thread.start` waits until it runs, which is milliseconds where the machine is busy
                _thread.start_new_thread(self.settle, ())
            except RuntimeError:  # a program that ends makes no threads
                self.settle()

    def lasted(self, seconds: float, about: dict[str, Any], context: Context) -> None:
        """Record how long something took."""
        self._duration.record(seconds, about, context)

    def attempt(self, operation: str, attempt: Attempt, failed: str, context: Context) -> None:
        """Record a request: how long it took, and how long its first piece."""
        about = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": named(attempt.provider),
            "gen_ai.request.model": named(attempt.model),
        } | ({"error.type": failed} if failed else {})
        self._duration.record(attempt.ended_s - attempt.started_s, about, context)
        if attempt.first_token_s is not None:
            self._first.record(attempt.first_token_s - attempt.started_s, about, context)

    def tokens(self, provider: str, asked: str, model: str, usage: Usage, context: Context) -> None:
        """Record the tokens of an answer."""
        about = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": named(provider),
            "gen_ai.request.model": named(asked),
        } | ({"gen_ai.response.model": named(model)} if model else {})
        for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count:
                self._usage.record(count, about | {"gen_ai.token.type": kind}, context)

    def tool(self, provider: str, seconds: float, is_error: bool, context: Context) -> None:
        """Record a call of a tool."""
        about = {"gen_ai.operation.name": "execute_tool", "gen_ai.provider.name": provider or SCOPE}
        self._duration.record(seconds, about | ({"error.type": "tool_error"} if is_error else {}), context)

    def settle(self) -> None:
        """Record what waits."""
        with self._recording:
            done = 0
            while self._waiting:
                record, about = self._waiting.popleft()
                record(*about)
                done += 1
                if done % AT_A_TIME == 0:
                    time.sleep(0)

    def _collected(self, _: CallbackOptions) -> Iterable[Observation]:
        """Called by whoever collects, before it reads the histograms."""
        self.settle()
        return ()
