"""What has to come of a scenario, against what came: each difference in a line or two, the first one first."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.json_schema import SchemaCheck, unfenced
from shared_libs.atomic.results import Action, AgentResult
from shared_libs.testing.scenarios.spec import (
    AnswerSpec,
    ExpectSpec,
    NumberSpec,
    RangeSpec,
    TextSpec,
    ToolsSpec,
    WantedCallSpec,
)

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?|-?\.\d+")
_TOLERANCE = 1e-6
_MAX_CHARS = 200


def differences(expect: ExpectSpec, result: AgentResult, events: Sequence[AgentEvent]) -> list[str]:
    """Say what is not as expected; nothing when all of it is."""
    return list(_found(expect, result, events))


def _found(expect: ExpectSpec, result: AgentResult, events: Sequence[AgentEvent]) -> Iterator[str]:
    for name in ("status", "stop_reason"):
        if (wanted := getattr(expect, name)) not in (None, got := getattr(result, name)):
            why = f" ({result.error})" if result.error else ""
            yield f"{name}: expected {wanted}, got {got}{why}"
    if expect.answer is not None:
        yield from _text("answer", expect.answer, result.answer)
        yield from _structured(expect.answer, result.answer)
    if "output" in expect.model_fields_set and not _fits(expect.output, result.output_data):
        why = f" ({result.error})" if result.error else ""
        yield f"output: expected {_shown(expect.output)}, got {_shown(result.output_data)}{why}"
    if expect.error is not None:
        yield from _text("error", expect.error, result.error)
    actions = [action for step in result.steps for action in step.actions]
    if expect.tools is not None:
        yield from _tools(expect.tools, actions)
    if expect.attempts is not None:
        yield from _attempts(expect.attempts, result)
    usage = result.usage
    yield from _range("elapsed_s", expect.elapsed_s, result.elapsed_s)
    if "cost_usd" in expect.model_fields_set:
        yield from _cost(expect.cost_usd, result.cost_usd)
    yield from _range("tokens", expect.tokens, usage.total_tokens or usage.input_tokens + usage.output_tokens)
    yield from _range("steps", expect.steps, len(result.steps))
    if expect.still_running is not None:
        left = sorted(running.tool for running in result.still_running)
        if left != sorted(expect.still_running):
            yield f"still_running: expected {sorted(expect.still_running)}, got {left}"
    if expect.events or expect.never:
        happened = [msgspec.to_builtins(event) for event in events]
        yield from _events(expect.events, happened)
        yield from _never(expect.never, happened, actions, result)


def _text(what: str, expect: TextSpec, got: str | None) -> Iterator[str]:
    if "equals" in expect.model_fields_set and expect.equals != got:
        yield f"{what}: expected {_shown(expect.equals)},\n{' ' * len(what)}       got {_shown(got)}"
    for part in expect.contains:
        if got is None or part not in got:
            yield f"{what}: expected to contain {_shown(part)}, got {_shown(got)}"
    if expect.matches is not None and (got is None or not re.search(expect.matches, got)):
        yield f"{what}: expected to match {_shown(expect.matches)}, got {_shown(got)}"


def _structured(expect: AnswerSpec, got: str | None) -> Iterator[str]:
    if expect.schema_ is not None:
        try:
            why = SchemaCheck(expect.schema_, "answer.schema").problems(json.loads(unfenced(got or "")))
        except ValueError as error:
            why = f"it is no JSON: {error}"
        if why:
            yield f"answer: expected to fit its schema, got {_shown(got)}: {why}"
    if expect.number is not None and not _has_number(expect.number, got or ""):
        within = f" ± {expect.number.tolerance:g}" if expect.number.tolerance else ""
        yield f"answer: expected the number {expect.number.value:g}{within}, got {_shown(got)}"


def _has_number(expect: NumberSpec, text: str) -> bool:
    numbers = (float(found.replace(",", "")) for found in _NUMBER.findall(text))
    return any(math.isclose(number, expect.value, rel_tol=1e-9, abs_tol=expect.tolerance) for number in numbers)


def _tools(expect: ToolsSpec, actions: Sequence[Action]) -> Iterator[str]:
    if expect.exact is not None:
        for index in range(max(len(expect.exact), len(actions))):
            wanted = expect.exact[index] if index < len(expect.exact) else None
            got = actions[index] if index < len(actions) else None
            if wanted is None or got is None or not _is(wanted, got):
                yield f"tools: call {index + 1}: expected {_call(wanted)}, got {_call(got)}"
                break
    if expect.subset is not None:
        rest = list(actions)
        for wanted in expect.subset:
            at = next((index for index, action in enumerate(rest) if _is(wanted, action)), None)
            if at is None:
                yield f"tools: expected {_call(wanted)} in this order, got {_calls(actions)}"
                break
            del rest[: at + 1]
    if expect.any_order is not None:
        rest = list(actions)
        # those with arguments first, so that one without takes no call that another one needs
        for wanted in sorted(expect.any_order, key=lambda call: call.input is None):
            found = next((action for action in rest if _is(wanted, action)), None)
            if found is None:
                yield f"tools: expected {_call(wanted)}, got {_calls(actions)}"
                return
            rest.remove(found)
        if rest:
            yield f"tools: did not expect {_calls(rest)}"


def _attempts(expect: Mapping[str, RangeSpec], result: AgentResult) -> Iterator[str]:
    counts: dict[str, int] = {}
    for attempt in result.attempts:
        name = f"{attempt.provider}/{attempt.model}"
        counts[name] = counts.get(name, 0) + 1
    named: set[str] = set()
    for wanted, bounds in expect.items():
        fitting = {name for name in counts if wanted in (name, name.partition("/")[2])}
        named |= fitting
        yield from _range(f"attempts of {wanted}", bounds, sum(counts[name] for name in fitting))
    for name in counts.keys() - named:
        yield f"attempts: expected none of {name}, got {counts[name]}"


def _cost(expect: RangeSpec | None, got: float | None) -> Iterator[str]:
    if expect is None:
        if got is not None:
            yield f"cost_usd: expected that it is not known, got {got:g}"
    elif got is None:
        yield f"cost_usd: expected {_bounds(expect)}, got null: a price or the tokens are not known"
    else:
        yield from _range("cost_usd", expect, got)


def _events(expect: Sequence[Mapping[str, Any]], happened: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    at = 0
    for index, wanted in enumerate(expect, 1):
        found = next((place for place in range(at, len(happened)) if _fits(wanted, happened[place])), None)
        if found is None:
            alike = [event for event in happened if event["type"] == wanted.get("type")]
            seen = " → ".join(dict.fromkeys(event["type"] for event in happened[at:])) or "nothing more"
            nearest = f"of this type there is {_shown(_without_frame(alike[0]))}" if alike else f"then came {seen}"
            yield f"events: expected {_shown(wanted)} (the {_ordinal(index)} of the list); {nearest}"
            return
        at = found + 1


def _never(
    expect: Sequence[Mapping[str, Any]],
    happened: Sequence[Mapping[str, Any]],
    actions: Sequence[Action],
    result: AgentResult,
) -> Iterator[str]:
    for unwanted in expect:
        if "answer_contains" in unwanted:
            if (part := str(unwanted["answer_contains"])) in (result.answer or ""):
                yield f"never: the answer contains {_shown(part)}: {_shown(result.answer)}"
        elif "type" not in unwanted and "tool" in unwanted:
            call = WantedCallSpec.model_validate(dict(unwanted))
            if found := next((action for action in actions if _is(call, action)), None):
                yield f"never: {_call(found)} was called"
        elif event := next((event for event in happened if _fits(unwanted, event)), None):
            yield f"never: {_shown(unwanted)} happened at {event['at_s']:.3g} s: {_shown(_without_frame(event))}"


def _fits(wanted: Any, got: Any) -> bool:
    """Whether a value is the wanted one, as far as that is told."""
    if isinstance(wanted, Mapping):
        if isinstance(got, Mapping):
            return all(key in got and _fits(value, got[key]) for key, value in wanted.items())
        if wanted.keys() and wanted.keys() <= {"contains", "matches"} and isinstance(got, str):
            return bool(wanted.get("contains", "") in got and re.search(wanted.get("matches", ""), got))
        if wanted.keys() and wanted.keys() <= {"at_least", "at_most"} and isinstance(got, int | float):
            return bool(wanted.get("at_least", -math.inf) <= got <= wanted.get("at_most", math.inf))
        return False
    if isinstance(wanted, list):
        same = isinstance(got, list | tuple) and len(got) == len(wanted)
        return same and all(_fits(one, other) for one, other in zip(wanted, got, strict=True))
    if isinstance(wanted, float) and isinstance(got, int | float):
        return math.isclose(wanted, got, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(wanted == got) and isinstance(wanted, bool) == isinstance(got, bool)


def _range(what: str, bounds: RangeSpec | None, got: float) -> Iterator[str]:
    if bounds is None:
        return
    low = -math.inf if bounds.at_least is None else bounds.at_least
    high = math.inf if bounds.at_most is None else bounds.at_most
    if not low - _TOLERANCE <= got <= high + _TOLERANCE:
        yield f"{what}: expected {_bounds(bounds)}, got {got:g}"


def _bounds(bounds: RangeSpec) -> str:
    if bounds.at_least == bounds.at_most:
        return f"{bounds.at_least:g}" if bounds.at_least is not None else "any"
    parts = [("at least", bounds.at_least), ("at most", bounds.at_most)]
    return " and ".join(f"{word} {value:g}" for word, value in parts if value is not None)


def _is(wanted: WantedCallSpec, got: Action) -> bool:
    return wanted.tool == got.tool and (wanted.input is None or wanted.input == got.input)


def _call(call: WantedCallSpec | Action | None) -> str:
    if call is None:
        return "no call"
    return call.tool if call.input is None else f"{call.tool}({_shown(call.input)})"


def _calls(actions: Sequence[Action]) -> str:
    return ", ".join(map(_call, actions)) or "no call"


def _without_frame(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in ("run_id", "seq", "at_s")}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]} …"


def _ordinal(number: int) -> str:
    return f"{number}{({1: 'st', 2: 'nd', 3: 'rd'} if number % 100 not in (11, 12, 13) else {}).get(number % 10, 'th')}"
