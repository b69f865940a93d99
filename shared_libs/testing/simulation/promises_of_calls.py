"""What holds of every call of a model or a tool: the ledger, retries, the breaker, what is said and observed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import nan

from shared_libs.agents.run import RESERVE_SHARE, STORE_S
from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.events import (
    AttemptFinished,
    AttemptStarted,
    BreakerChanged,
    ModelFinished,
    RetryScheduled,
    StepStarted,
    StreamRestarted,
    TextDelta,
    ThinkingDelta,
)
from shared_libs.atomic.memory.history import valid_history
from shared_libs.atomic.supervise import GRACE_S
from shared_libs.atomic.types import Attempt, Message, Usage
from shared_libs.testing.simulation.evidence import LATE_S, Broken, Evidence, RunRecord

_CLOSE_S = 1e-6
_NOT_WITHIN = re.compile(r"^no (?:first token|answer) within ([\d.e+-]+) s$")
_NO_TOKEN_FOR = re.compile(r"^no token for ([\d.e+-]+) s$")
_MAY_BE_ILL = {kind.kind for kind in LLMError.__subclasses__() if kind.default_retryable}
"""How an attempt may end that counts against its model; "circuit_open" never was one."""


def _ledger(evidence: Evidence) -> Iterator[Broken]:
    for record in evidence.by_run.values():
        result = record.result
        if result is None or not record.heard:
            continue
        told = [event.attempt for event in record.events if isinstance(event, AttemptFinished)]
        if tuple(told) != result.attempts:
            yield Broken("ledger", f"{record.id}: {len(told)} attempts told, {len(result.attempts)} in the result")
        booked = Counter(f"{row.provider}/{row.model}" for row in result.attempts)
        # one that was cancelled before its first step never reached the model
        cancelled = Counter(f"{row.provider}/{row.model}" for row in result.attempts if row.outcome == "cancelled")
        asked = Counter(request.model for request in record.asked)
        for name in booked.keys() | asked.keys():
            if not booked[name] - cancelled[name] <= asked[name] <= booked[name]:
                how = f"{record.id}: {name} was asked {asked[name]} times, and the ledger has {booked[name]}"
                yield Broken("ledger", how)


def _spent(evidence: Evidence) -> Iterator[Broken]:
    """What a run spent is what its answers cost; a caller's run, which spends its sub-agents' too, is not looked at."""
    compacts = evidence.agent.memory is not None and evidence.agent.memory.compaction is not None
    for record in evidence.by_run.values():
        result = record.result
        if (
            result is None
            or not record.heard
            or record.id in evidence.callers
            or (compacts and record.seen is not None)
        ):
            continue
        answers = [event.response for event in record.events if isinstance(event, ModelFinished)]
        usage = sum((answer.usage for answer in answers), Usage())
        if usage != result.usage:
            yield Broken("spent", f"{record.id} tells {result.usage} and was answered with {usage}")
        costs = [answer.cost_usd for answer in answers]
        known = bool(costs) and None not in costs
        cost_usd = sum(cost or 0.0 for cost in costs)
        if known != (result.cost_usd is not None) or abs(cost_usd - (result.cost_usd or cost_usd)) > _CLOSE_S:
            yield Broken("spent", f"{record.id} cost {result.cost_usd}, and its answers {costs}")
        said = [(request.model, said.usage) for request, said in evidence.chances.said if request.run_id == record.id]
        for answer in answers:
            if (f"{answer.provider}/{answer.requested_model}", answer.usage) not in said:
                yield Broken("spent", f"{record.id} books {answer.usage}, and {answer.requested_model} told another")
        limit = evidence.agent.limits.max_tokens if record.seen is not None else None
        if limit is not None and sum(answer.usage.total_tokens for answer in answers[:-2]) >= limit:
            yield Broken("budget", f"{record.id} went on after its {limit} tokens: {usage.total_tokens}")


def _retries(evidence: Evidence) -> Iterator[Broken]:
    policies = {f"{model.provider}/{model.model}": policy for model, policy in evidence.agent.llm._routes()}  # noqa: SLF001 - the chain
    for run in evidence.runs:
        record = evidence.by_run.get(run.id)
        if record is None:
            continue
        last: dict[str, int] = {}
        cancelled: Counter[str] = Counter()  # by a contest: a try that was not let end is made up for
        for event in record.events:
            if isinstance(event, StepStarted):
                last.clear()
                cancelled.clear()
            elif isinstance(event, AttemptFinished):
                cancelled[f"{event.attempt.provider}/{event.attempt.model}"] += event.attempt.outcome == "cancelled"
            elif isinstance(event, AttemptStarted):
                name = f"{event.provider}/{event.model}"
                allowed = policies[name].retry.attempts + cancelled[name]
                if event.number > allowed:
                    yield Broken("retry-once", f"{run.id}: try {event.number} of {name}, which may have {allowed}")
                # a try that the breaker refused is counted, and no request
                if event.number != 1 and event.number <= last.get(name, 0):
                    yield Broken("retry-once", f"{run.id}: try {event.number} of {name} after try {last.get(name)}")
                last[name] = event.number
            elif isinstance(event, RetryScheduled):
                name = f"{event.provider}/{event.model}"
                if event.at_s + event.wait_s > run.timeout_s:
                    yield Broken("retry-fit", f"{run.id} waits {event.wait_s:g} s at {event.at_s:g} s, past its limit")
                policy = policies[name]
                told = [
                    fault.retry_after_s for fault in evidence.chances.plan.faults if fault.retry_after_s is not None
                ]
                refused_s = policy.breaker.reset_s if event.why.startswith("not asked") else 0.0
                recorded = event.told and not told  # by a cassette, which says what a real provider did
                if not recorded and event.wait_s > max(policy.retry.max_s, refused_s, *told) + _CLOSE_S:
                    yield Broken("retry-wait", f"{run.id} waits {event.wait_s:g} s; {policy.retry.max_s:g} is the most")


def _retry_after(evidence: Evidence) -> Iterator[Broken]:
    """A provider that asks to wait is not asked again before, by the same call."""
    waits = {
        (played.name, played.number): played.fault.retry_after_s
        for played in evidence.chances.plan.played
        if played.port == "model" and played.fault.fault == "rate_limited" and played.fault.retry_after_s
    }
    for record in evidence.by_run.values():
        for name in {request.model for request in record.asked}:
            asked = [request for request in record.asked if request.model == name]
            begun = [
                event
                for event in record.events
                if isinstance(event, AttemptStarted) and f"{event.provider}/{event.model}" == name
            ]
            if len(asked) != len(begun):
                continue
            for before, request, event in zip(asked, asked[1:], begun[1:], strict=False):
                wait_s = waits.get((name, before.number), 0.0) or 0.0
                if event.number > 1 and request.at_s - before.at_s < wait_s - _CLOSE_S:
                    gap_s = request.at_s - before.at_s
                    yield Broken("retry-after", f"{record.id} asked {name} again after {gap_s:g} of {wait_s:g} s")


def _moments(evidence: Evidence) -> Iterator[Broken]:
    """An attempt that ran out of time ends at the moment that its own reason names."""
    for record in evidence.by_run.values():
        spoke_s = nan
        for event in record.events:
            if isinstance(event, TextDelta | ThinkingDelta):
                spoke_s = event.at_s
            if not isinstance(event, AttemptFinished) or event.attempt.outcome != "timeout" or not record.heard:
                continue
            attempt, began_s = event.attempt, event.attempt.started_s
            if named := _NO_TOKEN_FOR.search(attempt.why):
                began_s = max(spoke_s if spoke_s >= attempt.started_s else nan, attempt.first_token_s or nan)
            elif not (named := _NOT_WITHIN.search(attempt.why)):
                continue
            if attempt.ended_s - began_s > float(named[1]) * 1.01 + LATE_S:
                how = f"{record.id}: “{attempt.why}”, {attempt.ended_s - began_s:g} s after its beginning"
                yield Broken("attempt-moment", how)


def _content_filter(evidence: Evidence) -> Iterator[Broken]:
    """What a filter refuses is not taken elsewhere within the same call."""
    if evidence.agent.memory is not None and evidence.agent.memory.compaction is not None:
        return  # a refused summary is no refused question
    for record in evidence.by_run.values():
        refused_s: float | None = None
        for event in record.events:
            if isinstance(event, StepStarted):
                refused_s = None
            elif isinstance(event, AttemptFinished):
                attempt = event.attempt
                # those that race begin together, and the refusal of one ends the others
                if refused_s is not None and attempt.outcome != "cancelled" and attempt.started_s >= refused_s:
                    how = f"{record.id} asked {attempt.provider}/{attempt.model} what a filter had refused"
                    yield Broken("content-filter", how)
                if attempt.outcome == "content_filter":
                    refused_s = event.at_s


def _timeouts(evidence: Evidence) -> Iterator[Broken]:
    """No attempt lasts longer than its policy allows, and a silent model is left for one that may speak."""
    routes = evidence.agent.llm._routes()  # noqa: SLF001 - the chain
    policies = {f"{model.provider}/{model.model}": policy for model, policy in routes}
    held_s = max((run.held_s for run in evidence.runs), default=0.0)
    for run in evidence.runs:
        silent = ""
        for event in evidence.by_run[run.id].events if run.id in evidence.by_run else ():
            if isinstance(event, StepStarted):
                silent = ""
            elif isinstance(event, AttemptStarted) and event.number > 1:
                if silent == f"{event.provider}/{event.model}":
                    yield Broken("retry-silent", f"{run.id} asked {silent} again, which was silent, before the others")
            elif isinstance(event, AttemptFinished):
                attempt = event.attempt
                name, took_s = f"{attempt.provider}/{attempt.model}", attempt.ended_s - attempt.started_s
                if (policy := policies.get(name)) is None:  # what sums up a long history may be another model
                    continue
                first_s, last = policy.first_token_timeout_s, name == f"{routes[-1][0].provider}/{routes[-1][0].model}"
                too_long = attempt.why.startswith("no first token within") and took_s > first_s + LATE_S + held_s
                if too_long or took_s > policy.attempt_timeout_s + LATE_S + held_s:
                    yield Broken("attempt-moment", f"{run.id}: {name} had {took_s:g} s, and its policy gives it less")
                silent = name if attempt.outcome == "timeout" and not last and policy.strategy == "sequential" else ""


def _contests(evidence: Evidence) -> Iterator[Broken]:
    """Of several models at once the second begins when the first has been silent for so long; in a race, at once."""
    routes = evidence.agent.llm._routes()  # noqa: SLF001 - the chain
    policy = routes[0][1]
    wait_s = 0.0 if policy.strategy == "race" else policy.hedge_after_s
    if policy.strategy == "sequential" or len(routes) == 1 or wait_s is None:
        return
    first, second = (f"{model.provider}/{model.model}" for model, _ in routes[:2])
    refused = any(isinstance(event, BreakerChanged) for event in evidence.events)  # by a breaker nobody is asked
    for run in evidence.runs:
        events = evidence.by_run[run.id].events if run.id in evidence.by_run and not refused else []
        starts = [index for index, event in enumerate(events) if isinstance(event, StepStarted)]
        for begin, end in pairwise([*starts, len(events) - 1]):
            turn = events[begin:end]
            began = [event for event in turn if isinstance(event, AttemptStarted)]
            if not began or f"{began[0].provider}/{began[0].model}" != first:
                continue
            due_s = began[0].at_s + wait_s
            ended = [event.attempt for event in turn if isinstance(event, AttemptFinished)]
            heard = [moment for row in ended for moment in (row.first_token_s, row.ended_s) if moment is not None]
            late_s = due_s + LATE_S + run.held_s
            met = any(f"{event.provider}/{event.model}" == second and event.at_s <= late_s for event in began)
            if not met and min([events[end].at_s, *heard]) > late_s:
                yield Broken("hedge-late", f"{run.id} waited for {first} alone, past {wait_s:g} s of silence")


def _opened(evidence: Evidence) -> Iterator[Broken]:
    """A breaker opens for as many failures as its policy says: of the model, and neither of a request nor a caller."""
    policies = {f"{model.provider}/{model.model}": policy for model, policy in evidence.agent.llm._routes()}  # noqa: SLF001 - the chain
    refused = [fault for fault in evidence.chances.plan.faults if fault.fault == "rate_limited"]
    told = refused and None not in [fault.retry_after_s for fault in refused]  # when it may be asked again: it is well
    counted = _MAY_BE_ILL - {"circuit_open"} - ({"rate_limited"} if told else set())
    failed: Counter[str] = Counter()
    states: dict[str, str] = {}
    for event in evidence.events:
        if isinstance(event, AttemptFinished):
            attempt = event.attempt
            name, record = f"{attempt.provider}/{attempt.model}", evidence.by_run[event.run_id]
            failed[name] += attempt.outcome in counted and not _was_cut_short(record, attempt, evidence)
        elif isinstance(event, BreakerChanged):
            name = f"{event.provider}/{event.model}"
            if event.state == "open" and states.get(name, "closed") == "closed":
                needed = policies[name].breaker.failures if name in policies else 0
                if failed[name] < needed:
                    how = f"the breaker of {name} opened after {failed[name]} failures of it, and {needed} are needed"
                    yield Broken("breaker", how)
            states[name] = event.state
            failed[name] = 0


def _was_cut_short(record: RunRecord, attempt: Attempt, evidence: Evidence) -> bool:
    """Whether an attempt ended since its run had no more time: at the end of the exploration, or of the last word."""
    if attempt.outcome != "timeout" or record.seen is None:
        return False
    run, reserve_s = record.seen, evidence.agent.limits.reserve_s
    spoken_s = run.timeout_s - GRACE_S - (min(STORE_S, run.timeout_s / 10) if run.session_id is not None else 0)
    explored_s = spoken_s - min(reserve_s, run.timeout_s * RESERVE_SHARE)
    return any(abs(attempt.ended_s - end_s) < _CLOSE_S for end_s in (explored_s, spoken_s))


def _breaker(evidence: Evidence) -> Iterator[Broken]:
    """A model that failed too often is left alone, and probed by one request."""
    policies = {f"{model.provider}/{model.model}": policy for model, policy in evidence.agent.llm._routes()}  # noqa: SLF001 - the chain
    began = {run.id: run.began_s for run in evidence.runs}
    states: dict[str, tuple[str, float]] = {}
    probes: Counter[str] = Counter()
    outcomes: dict[str, str] = {}
    for event in evidence.events:
        if isinstance(event, AttemptFinished):
            outcomes[f"{event.attempt.provider}/{event.attempt.model}"] = event.attempt.outcome
        if not isinstance(event, AttemptStarted | BreakerChanged):
            continue
        # the moment a sub-agent began is not known, and no time is told from it
        name, at_s = f"{event.provider}/{event.model}", began.get(event.run_id, nan) + event.at_s
        state, since_s = states.get(name, ("closed", nan))
        if isinstance(event, BreakerChanged):
            reset_s = policies[name].breaker.reset_s if name in policies else 0.0
            if event.state == "half_open" and state == "open" and at_s < since_s + reset_s - _CLOSE_S:
                yield Broken("breaker", f"{name} was probed after {at_s - since_s:g} of {reset_s:g} s")
            # a probe from which nothing was learnt gives its place back, and the time runs on
            again = event.state == "open" and state != "closed" and outcomes.get(name) in ("cancelled", "timeout")
            states[name] = (event.state, since_s if again or event.state == "half_open" else at_s)
            probes[name] = probes[name] if event.state == state else 0
        elif state == "open":
            yield Broken("breaker", f"{event.run_id} asked {name} at {event.at_s:g} s, and its breaker was open")
        elif state == "half_open":
            probes[name] += 1
            if probes[name] > 1:
                yield Broken("breaker", f"{name} got {probes[name]} probes at once")


def _fair_weather(evidence: Evidence) -> Iterator[Broken]:
    """When nothing goes wrong any more and every breaker has had its time, the first model is asked and answers."""
    routes = evidence.agent.llm._routes()  # noqa: SLF001 - the chain
    clear_s, reset_s = evidence.clear_after_s, max(policy.breaker.reset_s for _, policy in routes)
    for run in evidence.runs:
        record = evidence.by_run.get(run.id)
        others_end_s = max((other.ended_s or 0.0 for other in evidence.runs if other is not run), default=0.0)
        if clear_s is None or record is None or run.began_s < max(clear_s, others_end_s) + reset_s or not run.result:
            continue
        for attempt in run.result.attempts:
            if attempt.outcome not in ("ok", "cancelled") and run.result.stop_reason != "deadline":
                how = f"{attempt.provider}/{attempt.model} still fails {run.id}: {attempt.outcome}, {attempt.why}"
                yield Broken("recovery", how)
        first = routes[0][0]
        well = any(row.model == first.model and row.outcome == "ok" for row in run.result.attempts)
        if well and first.health.breaker.state != "closed":
            yield Broken("recovery", f"the breaker of {first.model} is {first.health.breaker.state} after {run.id}")
        if run.result.attempts and not any(row.model == first.model for row in run.result.attempts):
            yield Broken("recovery", f"{run.id} was answered without {first.model}, which is well again")
        if run.result.status == "failed":
            yield Broken("recovery", f"{run.id} failed with nothing going wrong: {run.result.error}")


def _whole_answers(evidence: Evidence) -> Iterator[Broken]:
    """An answer is what a model said, to its end, to this run; and so are the words that were streamed."""
    read = evidence.agent.protocol.read
    for record in evidence.by_run.values():
        result = record.result
        if not record.heard:
            continue
        said = [answer for request, answer in evidence.chances.said if request.run_id == record.id]
        for event in record.events:
            if isinstance(event, ModelFinished) and event.response.text not in [answer.text for answer in said]:
                yield Broken("whole-answer", f"{record.id} took {event.response.text[:80]!r}, which nobody said to it")
        if result is None or record.seen is None or result.status != "answered":
            continue
        if result.answer not in [read(answer, ()).answer for answer in said]:
            yield Broken(
                "whole-answer", f"{record.id} answers {(result.answer or '')[:80]!r}, which no model said to it"
            )
        if evidence.agent.protocol.name == "native" and _streamed(record) != result.answer:
            how = f"{record.id} streamed {_streamed(record)[:80]!r}, and answers {(result.answer or '')[:80]!r}"
            yield Broken("whole-answer", how)


def _streamed(record: RunRecord) -> str:
    """What a listener has of the last turn."""
    text = ""
    for event in record.events:
        if isinstance(event, StepStarted | StreamRestarted):
            text = ""
        elif isinstance(event, TextDelta):
            text += event.text
    return text


def _requests(evidence: Evidence) -> Iterator[Broken]:
    """Every conversation that is sent is one that a provider takes, and is about the question of its run."""
    questions = {run.id: run.question for run in evidence.runs}
    sessions = {run.id: run.session_id or run.id for run in evidence.runs}
    for request in evidence.chances.asked:
        spoken = [message for message in request.messages if message.role != "system"]
        if valid_history(spoken) != spoken:
            yield Broken(
                "history-valid", f"{request.run_id} sent a call without its result, or a result without a call"
            )
        if problem := _misplaced(request.messages):
            yield Broken("history-valid", f"{request.run_id} sent {problem}")
        question = questions.get(request.run_id)
        mine = sessions.get(request.run_id)
        others = [other for run_id, other in questions.items() if sessions[run_id] != mine and other != question]
        asked = [message.text for message in spoken if message.role == "user"]
        if question is None or evidence.agent.protocol.name != "native":
            continue
        if question not in asked or any(other in asked for other in others):
            yield Broken("no-cross", f"{request.run_id} sent a conversation that is not its own: {asked}")


def _misplaced(messages: Sequence[Message]) -> str:
    for before, message in pairwise(messages):
        if before.role == message.role == "assistant":
            return "two answers running"
        if message.role == "system":
            return "a system message behind others"
    ids = [call.id for message in messages for call in message.tool_calls]
    return "a call id twice" if len(set(ids)) < len(ids) else ""


CHECKS = (
    _ledger,
    _spent,
    _retries,
    _retry_after,
    _moments,
    _timeouts,
    _contests,
    _content_filter,
    _opened,
    _breaker,
    _fair_weather,
    _whole_answers,
    _requests,
)
