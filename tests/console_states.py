"""Runs that show each thing the console can show, as the events of which they are made."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from shared_libs.atomic import events as e
from shared_libs.atomic.results import Action, AgentResult, StillRunning
from shared_libs.atomic.types import Attempt, LLMResponse, Message, Stage, ToolCall, ToolSpec, Usage

BEGAN = "2026-11-27T08:00:00+00:00"
QUESTION = "Which delays at EWR were due to the weather?"


def numbered(run_id: str, *told: tuple[float, e.AgentEvent]) -> list[e.AgentEvent]:
    """Give events their run, their numbers and the seconds at which they came."""
    for seq, (at_s, event) in enumerate(told, 1):
        event.run_id, event.seq, event.at_s = run_id, seq, at_s
    return [event for _, event in told]


def started(agent: str = "flights", question: str = QUESTION, timeout_s: float = 30.0, **more) -> e.RunStarted:
    return e.RunStarted(
        agent=agent,
        question=question,
        started_at=BEGAN,
        timeout_s=timeout_s,
        model="gpt-5.4-mini",
        protocol="native",
        **more,
    )


def attempt(model: str, number: int, started_s: float, ended_s: float, outcome: str = "ok", **more) -> Attempt:
    provider = "anthropic" if "claude" in model else "openai"
    return Attempt(
        provider=provider, model=model, number=number, outcome=outcome, started_s=started_s, ended_s=ended_s, **more
    )


def tried(tried: Attempt) -> list[tuple[float, e.AgentEvent]]:
    begun = e.AttemptStarted(provider=tried.provider, model=tried.model, number=tried.number)
    return [(tried.started_s, begun), (tried.ended_s, e.AttemptFinished(attempt=tried))]


def seen(tool: str, call_id: str, content: str, elapsed_s: float, *, is_error: bool = False) -> e.ToolFinished:
    return e.ToolFinished(step=1, tool=tool, call_id=call_id, content=content, is_error=is_error, elapsed_s=elapsed_s)


def ended(run_id: str, **more) -> AgentResult:
    return AgentResult(**{"run_id": run_id, "status": "answered", "stop_reason": "final_answer"} | more)


def everything() -> list[e.AgentEvent]:
    """Fallback, backoff, Retry-After, our own limit, a hedge, tools side by side, a sub-agent, a call left running."""
    mini, claude = "gpt-5.4-mini", "claude-sonnet-5"
    refused = attempt(mini, 1, 0.6, 0.8, "rate_limited", status_code=429, why="slow down")
    failed = attempt(mini, 2, 3.8, 5.2, "unavailable", status_code=503, why="overloaded")
    won = attempt(claude, 1, 5.2, 7.4, first_token_s=6.1, usage=Usage(900, 60))
    lost = attempt(mini, 1, 13.0, 16.0, "cancelled")
    last = attempt(claude, 1, 14.5, 17.5, first_token_s=15.4, usage=Usage(1400, 120))
    calls = tuple(
        ToolCall(id=f"c{n}", name=name, arguments={"q": n}) for n, name in enumerate(("sql", "weather", "ask"), 1)
    )
    result = AgentResult(
        run_id="everything", status="partial", stop_reason="deadline", elapsed_s=18.2, cost_usd=0.0123,
        usage=Usage(2300, 180), answer="Of 214 delays 61 were due to the weather, as far as I could see.",
        still_running=(StillRunning(tool="weather", call_id="c2", since_s=9.9),),
        attempts=(refused, failed, won, lost, last),
    )  # fmt: skip
    return numbered(
        "everything",
        (0.0, started(timeout_s=20.0, session_id="s-17")),
        (0.2, e.MemoryLoaded(session_id="s-17", messages=6, elapsed_s=0.2)),
        (0.2, e.StepStarted(step=1)),
        (0.6, e.LimitWaited(provider="openai", model=mini, waited_s=0.4)),
        *tried(refused),
        (0.8, e.RetryScheduled(provider="openai", model=mini, wait_s=3.0, why="HTTP 429: slow down", told=True)),
        *tried(failed),
        (5.2, e.BreakerChanged(provider="openai", model=mini, state="open")),
        (5.2, e.FellBack(provider="openai", model=mini, next_provider="anthropic", next_model=claude, why="HTTP 503")),
        *tried(won),
        (7.4, e.ModelFinished(step=1, response=LLMResponse(text="I look at both.", tool_calls=calls, model=claude))),
        (7.4, e.Thought(step=1, text="The schedule and the weather have to be put together.")),
        *((7.5, e.ToolStarted(step=1, tool=call.name, input=call.arguments, call_id=call.id)) for call in calls),
        (9.1, seen("sql", "c1", '{"rows": [[214]]}', 1.6)),
        (11.9, seen("ask", "c3", "61 of them", 4.4)),
        (12.5, e.Abandoned(what="tool", name="weather", call_id="c2")),
        (12.5, seen("weather", "c2", "no answer in 5 s", 5.0, is_error=True)),
        (12.8, e.LimitReached(stop_reason="deadline", why="7 s are left of 20 s")),
        (12.9, e.StepStarted(step=2, final=True)),
        *tried(lost)[:1],
        *tried(last)[:1],
        *tried(lost)[1:],
        *tried(last)[1:],
        (17.5, e.ModelFinished(step=2, response=LLMResponse(text=result.answer or "", model=claude))),
        (18.1, e.MemoryStored(session_id="s-17", messages=4, elapsed_s=0.4)),
        (18.2, e.RunFinished(result=result)),
    )  # fmt: skip


def asked() -> list[e.AgentEvent]:
    """What the models of `everything` were asked."""
    began = [event for event in everything() if isinstance(event, e.AttemptStarted)]
    look = ToolSpec("sql", "Ask the database.", {"type": "object", "properties": {"query": {"type": "string"}}})
    system = Message("system", "You answer with figures from the database. Check the schema first.")
    call = ToolCall(id="c1", name="sql", arguments={"q": 1})
    said = Message("assistant", "I look at both.", tool_calls=(call,))
    seen = Message("tool", '{"rows": [[214]]}', tool_call_id="c1", name="sql")
    told = [
        {"messages": [system, Message("user", QUESTION)], "tools": [look], "options": {"temperature": 0}},
        *({"base": began[index - 1].seq, "kept": 2} for index in (1, 2)),
        *({"base": began[2].seq, "kept": 2, "messages": [said, seen], "tools": []} for _ in (3, 4)),
    ]
    return [
        e.ModelAsked(run_id="everything", seq=one.seq, at_s=one.at_s, provider=one.provider, model=one.model, **more)
        for one, more in zip(began, told, strict=True)
    ]


def everything_asked() -> list[e.AgentEvent]:
    """`everything`, and what its models were asked, which has no place among the numbers of its events."""
    first, *rest = everything()
    return [first, *asked(), *rest]


def sub_agent() -> list[e.AgentEvent]:
    """What the call `ask` of `everything` has asked."""
    done = attempt("gpt-5.4-mini", 1, 0.1, 3.9, first_token_s=0.9)
    result = AgentResult(
        run_id="asked", status="answered", stop_reason="final_answer", answer="61 of them", elapsed_s=4.2
    )
    return numbered(
        "asked",
        (0.0, started("meteorologist", "How many?", parent_run_id="everything", parent_call_id="c3")),
        (0.1, e.StepStarted(step=1)),
        *tried(done),
        (3.9, e.ModelFinished(step=1, response=LLMResponse(text="61 of them"))),
        (4.2, e.RunFinished(result=result)),
    )


def live() -> list[e.AgentEvent]:
    """A run under way."""
    call = e.ToolStarted(step=1, tool="sql", input={"query": "SELECT count(*) FROM flights"}, call_id="c1")
    told = numbered(
        "live",
        (0.0, started(timeout_s=36_000.0)),
        (0.1, e.StepStarted(step=1)),
        (1.0, e.Thought(step=1, text="I count.")),
        (1.0, call),
    )
    told[0].started_at = datetime.now(UTC).isoformat()  # its time is not over
    return told


def paused() -> list[e.AgentEvent]:
    """A run that waits for a person."""
    action = Action(tool="refund", input={"order": 7, "amount": 250}, call_id="c1")
    result = AgentResult(
        run_id="paused", status="paused", stop_reason="approval", answer=None, elapsed_s=1.5, pending=(action,)
    )
    return numbered(
        "paused",
        (0.0, started("shop", "Refund order 7.")),
        (0.1, e.StepStarted(step=1)),
        (1.4, e.ApprovalRequested(step=1, tool="refund", input=dict(action.input), call_id="c1")),
        (1.5, e.RunFinished(result=result)),
    )


def failed() -> list[e.AgentEvent]:
    """A run that failed."""
    refused = attempt("gpt-5.4-mini", 1, 0.1, 0.4, "authentication", status_code=401, why="wrong key")
    error = "openai/gpt-5.4-mini: HTTP 401: wrong key"
    result = AgentResult(run_id="failed", status="failed", stop_reason="error", answer=None, error=error, elapsed_s=0.4)
    return numbered(
        "failed", (0.0, started()), (0.1, e.StepStarted(step=1)), *tried(refused), (0.4, e.RunFinished(result=result))
    )


def cited() -> list[e.AgentEvent]:
    """A run whose answer cites a passage that it was shown, and one that it was not."""
    text = "Everyone has 25 days of leave a year."
    passage = {"cite": "0123abcd", "title": "Leave", "source": "leave.md", "start": 0, "end": len(text), "text": text}
    content = json.dumps({"passages": [passage]})
    stages = (
        Stage(name="embed", state="ok", elapsed_s=0.06, began_s=0.01),
        Stage(name="lexical", state="ok", elapsed_s=0.02, began_s=0.01),
        Stage(name="dense", state="ok", elapsed_s=0.11, began_s=0.07),
        Stage(
            name="graph", state="late", elapsed_s=0.15, began_s=0.03, reason="graph store did not expand within 0.15 s"
        ),
    )
    answered = e.RetrievalFinished(
        operation="retrieve", collection="handbook", started=4, elapsed_s=0.2, found=1, stages=stages
    )
    result = ended("cited", answer="25 days [0123abcd], and a bonus [deadbeef].", elapsed_s=2.0)
    return numbered(
        "cited",
        (0.0, started("clerk", "How many days of leave?")),
        (0.1, e.StepStarted(step=1)),
        (0.2, e.ToolStarted(step=1, tool="retrieval", input={"query": "leave"}, call_id="c1")),
        (0.2, e.RetrievalStarted(operation="retrieve", collection="handbook", query="leave", k=6)),
        (0.4, answered),
        (0.4, seen("retrieval", "c1", content, 0.2)),
        (2.0, e.RunFinished(result=result)),
    )


STATES = (everything_asked, sub_agent, live, paused, failed, cited)
