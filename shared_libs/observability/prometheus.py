"""
Figures of runs for Prometheus, made from their events.

Names and labels are the table of docs/observability.md. Labels come from closed sets: agents, models, providers, tools
that ran, and the outcomes this library knows; what is beyond `max_names` of a label is counted as "other", so no
caller, model or server can make series without end. Runs are found from a figure by its exemplar (`run_id`), which the
OpenMetrics format shows; no identity, session or question is ever a label.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from shared_libs.atomic import events
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.loading import importing
from shared_libs.atomic.types import Attempt
from shared_libs.atomic.whole import whole_text
from shared_libs.observability.tallies import Tallies, Tally

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
"""Buckets for anything that a model, a tool or a run takes."""

SLACK = (0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 300)
"""Buckets for the seconds left at the end of a run."""

LATE_S = 0.05
"""A run that ends so much behind its deadline has missed it: the promise of docs/deadlines.md."""

LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

LAG_EVERY_S = 0.1
"""How often the lag of the loop is looked at."""

MAX_RUNS = 10_000
"""How many runs under way are known at once; the oldest is forgotten, and counts on as an agent "other"."""

_BREAKER = {"closed": 0, "half_open": 1, "open": 2}


class PrometheusMetrics:
    """
    An observer of agents that counts what happens in their runs.

    Give one to all agents of a process: `load_agent(…, observers=[metrics])`.

    Args:
        registry: where the figures are registered; without one they have a registry of their own.
        max_names: how many values a label may have before what is new is counted as "other".

    Raises:
        MisuseError: the package prometheus-client is not installed, or another `PrometheusMetrics` is registered there.

    """

    def __init__(self, registry: CollectorRegistry | None = None, *, max_names: int = 200) -> None:
        with importing("prometheus_client", "PrometheusMetrics"):
            from prometheus_client import CollectorRegistry
        self.registry = CollectorRegistry() if registry is None else registry
        self._names = _Names(max_names)
        self._runs: dict[str, tuple[str, float]] = {}
        self._counts: dict[type[AgentEvent], Callable[[Any], None]] = {
            events.RunStarted: self._run_started,
            events.RunFinished: self._run_finished,
            events.AttemptFinished: self._attempt_finished,
            events.ModelFinished: self._model_finished,
            events.ToolFinished: self._tool_finished,
            events.FellBack: self._fell_back,
            events.BreakerChanged: self._breaker_changed,
            events.LimitReached: self._limit_reached,
            events.StreamRestarted: self._stream_restarted,
            events.LoopBlocked: self._loop_blocked,
            events.Abandoned: self._was_abandoned,
            events.RetrievalFinished: self._retrieval_finished,
            events.MemoryLoaded: lambda event: self._memory.observe(("load",), event.elapsed_s),
            events.MemoryStored: lambda event: self._memory.observe(("store",), event.elapsed_s),
            events.MemoryCompacted: lambda event: self._memory.observe(("compact",), event.elapsed_s),
        }
        figures = Tallies()
        self._make(figures)
        try:
            self.registry.register(figures)
        except ValueError as error:
            raise MisuseError(f"one PrometheusMetrics to a registry; share it between agents ({error})") from None

    def _make(self, figures: Tallies) -> None:
        def counter(name: str, text: str, *labels: str) -> Tally:
            return figures.make("counter", f"factory_{name}", text, labels)

        def gauge(name: str, text: str, *labels: str) -> Tally:
            return figures.make("gauge", f"factory_{name}", text, labels)

        def seconds(name: str, text: str, *labels: str, buckets: Sequence[float] = SECONDS) -> Tally:
            return figures.make("histogram", f"factory_{name}_seconds", text, labels, buckets)

        model = ("provider", "model")
        self._ended = counter("runs", "Runs that ended", "agent", "status", "stop_reason")
        self._in_progress = gauge("runs_in_progress", "Runs under way", "agent")
        self._run_seconds = seconds("run", "Wall clock of a run", "agent", "status")
        self._slack = seconds("deadline_slack", "Time left at a run's end", "agent", buckets=SLACK)
        self._missed = counter("deadline_missed", "Runs that came back more than 50 ms behind it", "agent")
        self._limits = counter("limits_reached", "Runs that had to say their last word", "agent", "stop_reason")
        self._attempts = counter("model_attempts", "Requests to models", *model, "outcome")
        self._attempt_seconds = seconds("model_attempt", "Wall clock of a request to a model", *model)
        self._first_token = seconds("model_first_token", "Time to the first piece of an answer", *model)
        self._waited = counter("model_wait_seconds", "Waits before tries: backoff, Retry-After, limits", *model)
        self._fallbacks = counter("fallbacks", "Chains that went on to the next model", *model)
        self._breaker = gauge("breaker_state", "0 closed, 1 half open, 2 open", *model)
        self._restarts = counter("stream_restarts", "Streams whose text was void and came again", "agent")
        self._tokens = counter("tokens", "Tokens that answers used", *model, "type")
        self._cost = counter("cost_usd", "What answers cost, where prices are known", "agent", *model)
        self._tools = counter("tool_calls", "Tool calls that ended", "tool", "outcome")
        self._tool_seconds = seconds("tool", "Wall clock of a tool call", "tool")
        self._memory = seconds("memory", "Wall clock of a memory call", "operation")
        self._retrieval = seconds("retrieval", "Wall clock of a question to a collection", "operation", "outcome")
        self._stages = counter("retrieval_stages", "Steps of retrievals", "stage", "state")
        self._stage_seconds = seconds("retrieval_stage", "Wall clock of a step of a retrieval", "stage")
        self._abandoned = counter("abandoned", "Calls that ignored their cancellation", "what")
        self._blocked = counter("loop_blocked", "Times that something held the event loop", "tool")
        self._blocked_seconds = counter("loop_blocked_seconds", "How long the event loop was held")
        self._rescues = counter("loop_rescues", "Times that what held the event loop was interrupted", "tool")
        self._lag = seconds("loop_lag", "How late the event loop is", buckets=LAG)

    def __call__(self, event: AgentEvent) -> None:
        """Count an event; events that say nothing countable cost a look-up."""
        count = self._counts.get(type(event))
        if count is not None:
            count(event)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """
        The figures for a scraper.

        Args:
            accept: the `Accept` header; OpenMetrics, with exemplars, for who asks for it, else the text format.

        Returns:
            The body and its content type.

        """
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def keep_in_progress(self, run_ids: Collection[str]) -> None:
        """Say which runs are under way here, their sub-agents' with them; any other goes on in another process."""
        for run_id in [one for one in self._runs if one.partition("/")[0] not in run_ids]:
            agent, _ = self._runs.pop(run_id)
            self._in_progress.add((agent,), -1)

    @asynccontextmanager
    async def watching_the_loop(self, tell: Callable[[float], object] | None = None) -> AsyncIterator[None]:
        """Look how late the running event loop is ten times a second, and `tell` it, as long as the context is open."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LAG_EVERY_S
        handle: asyncio.TimerHandle

        def look() -> None:
            nonlocal due, handle
            late_s = max(0.0, loop.time() - due)
            self._lag.observe((), late_s)
            if tell is not None:
                tell(late_s)
            due = loop.time() + LAG_EVERY_S
            handle = loop.call_at(due, look)

        handle = loop.call_at(due, look)
        try:
            yield
        finally:
            handle.cancel()

    def _agent(self, run_id: str) -> str:
        return self._runs.get(run_id, ("other", 0.0))[0]

    def _model(self, provider: str, model: str) -> tuple[str, str]:
        return self._names("provider", provider), self._names("model", model)

    def _run_started(self, event: events.RunStarted) -> None:
        agent = self._names("agent", event.agent)
        if event.run_id not in self._runs:
            self._in_progress.add((agent,))
        self._runs[event.run_id] = (agent, event.at_s + event.timeout_s)
        if len(self._runs) > MAX_RUNS:
            lost, _ = self._runs.pop(next(iter(self._runs)))
            self._in_progress.add((lost,), -1)

    def _run_finished(self, event: events.RunFinished) -> None:
        result, run_id = event.result, event.run_id
        known = self._runs.pop(run_id, None)
        agent, deadline_s = known or ("other", 0.0)
        self._ended.add((agent, result.status, result.stop_reason), 1, run_id)
        self._run_seconds.observe((agent, result.status), result.elapsed_s, run_id)
        if known is not None:
            self._in_progress.add((agent,), -1)
            self._slack.observe((agent,), max(0.0, deadline_s - event.at_s), run_id)
            if event.at_s - deadline_s > LATE_S:
                self._missed.add((agent,), 1, run_id)

    def _attempt_finished(self, event: events.AttemptFinished) -> None:
        attempt: Attempt = event.attempt
        model, run_id = self._model(attempt.provider, attempt.model), event.run_id
        self._attempts.add((*model, self._names("outcome", attempt.outcome)), 1, run_id)
        self._attempt_seconds.observe(model, attempt.ended_s - attempt.started_s, run_id)
        if attempt.first_token_s is not None:
            self._first_token.observe(model, attempt.first_token_s - attempt.started_s, run_id)
        if attempt.waited_s > 0:
            self._waited.add(model, attempt.waited_s)

    def _model_finished(self, event: events.ModelFinished) -> None:
        response = event.response
        model = self._model(response.provider, response.requested_model or response.model)
        usage = response.usage
        for kind, tokens in (
            ("input", usage.input_tokens),
            ("cached_input", usage.cached_input_tokens),
            ("output", usage.output_tokens),
        ):
            if tokens:
                self._tokens.add((*model, kind), tokens)
        if response.cost_usd:
            self._cost.add((self._agent(event.run_id), *model), response.cost_usd)

    def _tool_finished(self, event: events.ToolFinished) -> None:
        # a call that never ran may bear any name a model invented: it makes no series of its own
        tool = self._names("tool", event.tool, known_only=event.elapsed_s == 0)
        self._tools.add((tool, "error" if event.is_error else "ok"), 1, event.run_id)
        self._tool_seconds.observe((tool,), event.elapsed_s, event.run_id)

    def _retrieval_finished(self, event: events.RetrievalFinished) -> None:
        outcome = "cancelled" if event.error == "cancelled" else "error" if event.error else "ok"
        self._retrieval.observe((self._names("operation", event.operation), outcome), event.elapsed_s, event.run_id)
        for stage in event.stages:
            name = self._names("stage", stage.name)
            self._stages.add((name, stage.state))
            if stage.state != "skipped":
                self._stage_seconds.observe((name,), stage.elapsed_s)

    def _loop_blocked(self, event: events.LoopBlocked) -> None:
        tool = self._names("tool", event.tool, known_only=not event.call_id)
        self._blocked.add((tool,))
        self._blocked_seconds.add((), event.blocked_s)
        if event.interrupted:
            self._rescues.add((tool,))

    def _fell_back(self, event: events.FellBack) -> None:
        self._fallbacks.add(self._model(event.provider, event.model))

    def _breaker_changed(self, event: events.BreakerChanged) -> None:
        self._breaker.set(self._model(event.provider, event.model), _BREAKER.get(event.state, 2))

    def _limit_reached(self, event: events.LimitReached) -> None:
        self._limits.add((self._agent(event.run_id), event.stop_reason))

    def _stream_restarted(self, event: events.StreamRestarted) -> None:
        self._restarts.add((self._agent(event.run_id),))

    def _was_abandoned(self, event: events.Abandoned) -> None:
        self._abandoned.add((self._names("what", event.what),))


class _Names:
    """The values each label may have: the first so many, then "other"."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, set[str]] = {}

    def __call__(self, label: str, value: str, *, known_only: bool = False) -> str:
        known = self._known.get(label) or self._known.setdefault(label, set())
        if value in known:
            return value
        value = whole_text(value)  # a series with half a character would end every scrape
        if value in known:
            return value
        if known_only or not value or len(value) > 200 or len(known) >= self._most:
            return "other"
        known.add(value)
        return value
