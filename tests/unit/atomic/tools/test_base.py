"""The tool port: whatever a tool is and does, a call ends in a result the model can read."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pydantic
import pytest

from shared_libs.atomic import BaseTool, Deadline, MisuseError, ToolError, ToolResult, current_deadline, current_scope
from shared_libs.atomic import tool as as_tool
from shared_libs.atomic.scope import use_deadline
from shared_libs.atomic.supervise import GRACE_S
from shared_libs.atomic.threads import Threads
from shared_libs.atomic.tools.placement import Placement
from tests.support import run, run_virtual

INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}}


class Model(pydantic.BaseModel):
    when: datetime
    n: int


@dataclass
class Point:
    x: int


def call(function, arguments=None, **declarations):
    made = function if isinstance(function, BaseTool) else as_tool(name="t", **declarations)(function)
    return run(made.async_run(arguments or {}))


def returning(value):
    async def t():
        return value

    return t


def raising(error):
    async def t():
        raise error

    return t


def test_a_function_is_a_tool_and_still_a_function():
    @as_tool
    def double(n: int) -> int:
        """
        Double it.

        Twice.
        """
        return 2 * n

    assert (double.name, double.description) == ("double", "Double it.\n\nTwice.")
    assert double(4) == 8
    assert call(double, {"n": 4}).content == "8"
    assert double.spec.parameters["required"] == ["n"]


def test_a_decorated_tool_takes_declarations():
    @as_tool(name="other", description="Says.", timeout_s=3, sequential=True, idempotent=True)
    def function() -> None: ...

    assert (function.name, function.description, function.timeout_s) == ("other", "Says.", 3)
    assert (function.sequential, function.idempotent, function.needs_approval) == (True, True, False)
    with pytest.raises(MisuseError, match=r"does not know 'timeout'. Allowed: .*timeout_s"):
        as_tool(timeout=3)(lambda: 1)


def test_a_class_is_a_tool():
    class Greeter(BaseTool):
        name = "greet"
        description = "Greets."

        def __init__(self, greeting):
            self.greeting = greeting

        async def execute(self, who: str) -> str:
            return f"{self.greeting} {who}"

    assert call(Greeter("Hello"), {"who": "you"}) == ToolResult("Hello you", elapsed_s=pytest.approx(0, abs=5))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it \n is", "as it \n is"),
        ("", ""),
        ({"a": [1, 2.5, None, True]}, '{"a":[1,2.5,null,true]}'),
        ([], "[]"),
        (None, "null"),
        (3, "3"),
        (10**30, str(10**30)),
        (b"ab", "ab"),
        (datetime(2013, 1, 1, tzinfo=UTC), '"2013-01-01T00:00:00Z"'),
        (Decimal("1.10"), '"1.10"'),
        (Point(1), '{"x":1}'),
        (Model(when=datetime(2013, 1, 1, tzinfo=UTC), n=1), '{"when":"2013-01-01T00:00:00Z","n":1}'),
        ([Model(when=datetime(2013, 1, 1, tzinfo=UTC), n=1)], '[{"when":"2013-01-01T00:00:00Z","n":1}]'),
        (np.float32(0.5), "0.5"),
        (np.arange(3), "[0,1,2]"),
        ({"a": np.array([[1.5]])}, '{"a":[[1.5]]}'),
        (math.nan, "null"),
        ({"é": "北"}, '{"é":"北"}'),
        ({(1, 2): 3}, '{"(1, 2)":3}'),
        (Model, str(Model)),
        ("caf\udce9", "caf?"),
        (ToolResult("mine"), "mine"),
    ],
    ids=repr,
)
def test_every_kind_of_result_is_text(value, text):
    result = call(returning(value))
    assert (result.content, result.is_error) == (text, False)
    result.content.encode()


def test_a_result_that_contains_itself_is_text():
    value = []
    value.append(value)
    assert call(returning(value)).content == "[[...]]"


def test_a_tool_may_return_its_own_failure():
    result = call(returning(ToolResult("mine", is_error=True)))
    assert (result.content, result.is_error) == ("mine", True)


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no words")


class Worse(BaseException):
    def __str__(self):
        raise ValueError("no words")


@pytest.mark.promise("run-returns")
@pytest.mark.parametrize("isolation", ["loop", "thread"])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolError("No such table. Valid: a, b."), "No such table. Valid: a, b."),
        (ValueError("bad"), "ValueError: bad"),
        (MisuseError("of something inside"), "MisuseError: of something inside"),
        (TimeoutError("mine"), "TimeoutError: mine"),
        (ExceptionGroup("many", [ValueError("a"), KeyError("b")]), "ValueError: a; KeyError: 'b'"),
        (SystemExit(2), "SystemExit: 2"),
        (Unspeakable(), "Unspeakable"),
        (Worse(), "Worse"),
        (BaseExceptionGroup("g", [ValueError("inner"), SystemExit(2)]), "ValueError: inner; SystemExit: 2"),
        (asyncio.CancelledError(), None),
        (StopIteration(), None),
        (KeyError("\udce9"), "KeyError: '\\udce9'"),
        (OSError("\udce9"), "OSError: ?"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_tool_raises_is_an_observation(error, text, isolation):
    def t():
        raise error

    result = call(t, isolation=isolation)
    assert result.is_error
    assert text is None or result.content == text
    again = call(raising(error)) if not isinstance(error, StopIteration) else result
    assert again.is_error


def test_a_wrong_call_says_what_is_valid():
    @as_tool
    def double(n: int) -> int:
        return 2 * n

    result = call(double, {"m": 1})
    assert result.is_error
    assert result.content == "Invalid arguments for double: n: missing; m: unknown argument; allowed are: n"
    assert call(double, [1]).content == "Invalid arguments for double: expected a JSON object, got list"


@pytest.mark.parametrize(("length", "cut"), [(10, False), (11, True)])
def test_a_long_result_is_cut_with_a_note(length, cut):
    content = call(returning("x" * length), max_observation_chars=10).content
    assert content == "x" * 10 + ("\n[cut: 1 of 11 characters are not shown]" if cut else "")


def test_a_long_complaint_is_cut_too():
    class Given(BaseTool):
        name = "given"
        parameters = INTEGER

        def execute(self, n):
            return n

    assert len(call(Given(), {"n": "x" * 100_000}).content) < 33_000
    assert len(call(raising(ValueError("x" * 100_000))).content) < 33_000
    assert len(call(raising(ToolError("x" * 100_000))).content) < 33_000


@pytest.mark.promise("time-total")
@pytest.mark.parametrize(("own", "left", "at", "why"), [(2, 9, 2, "within its 2 s"), (9, 2, 2, "before the time of")])
def test_the_earlier_of_its_own_time_and_the_runs_ends_a_call(own, left, at, why):
    async def t():
        await asyncio.sleep(math.inf)

    async def main():
        with use_deadline(Deadline.after(left)):
            return await as_tool(timeout_s=own)(t).async_run({}), asyncio.get_running_loop().time()

    result, now = run_virtual(main())
    assert (result.is_error, result.still_running, result.elapsed_s, now) == (True, False, at, at)
    assert f"t did not finish {why}" in result.content


def test_with_no_time_left_nothing_is_started():
    started = []

    async def t():
        started.append(True)

    async def main():
        await asyncio.sleep(5)
        with use_deadline(Deadline(1.0)):
            return await as_tool(t).async_run({})

    assert run_virtual(main()).content == "t was not started: the time of the run is over"
    assert started == []


@pytest.mark.promise("time-total", "time-orphans")
def test_a_call_that_ignores_its_end_is_left_behind():
    async def t():
        while True:
            try:
                return await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def main():
        result = await as_tool(timeout_s=1)(t).async_run({})
        return result, asyncio.get_running_loop().time()

    result, now = run_virtual(main())
    assert result.still_running
    assert now == pytest.approx(1 + GRACE_S)


@pytest.mark.promise("time-threads")
def test_calls_beyond_the_threads_of_a_tool_end_in_time_without_having_begun():
    release, began = threading.Event(), []

    @as_tool(timeout_s=0.1)
    def stuck() -> None:
        began.append(True)
        release.wait(20)

    stuck._placement = Placement("thread", threads=Threads("stuck", 2))

    async def main():
        return await asyncio.gather(*(stuck.async_run({}) for _ in range(5)))

    results = run(main())
    release.set()
    assert len(began) == 2
    assert sorted(result.still_running for result in results) == [False, False, False, True, True]


@pytest.mark.promise("cancel-wins")
def test_a_cancelled_caller_is_cancelled():
    async def t():
        await asyncio.sleep(math.inf)

    async def main():
        task = asyncio.create_task(as_tool(t).async_run({}))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())


@pytest.mark.parametrize("is_async", [True, False])
def test_a_tool_sees_its_call_and_its_time(is_async):
    def look() -> dict:
        scope = current_scope()
        return {"call": scope.call_id, "finite": current_deadline().at != math.inf}

    async def look_async() -> dict:
        return look()

    made = as_tool(look_async if is_async else look)
    assert json.loads(run(made.async_run({}, call_id="c7")).content) == {"call": "c7", "finite": True}
    assert current_scope().call_id == ""


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ({"isolation": "fork"}, "allowed are 'loop', 'thread', 'process'"),
        ({"name": ""}, "has no name"),
    ],
)
def test_a_wrong_declaration_is_misuse(declared, why):
    async def t(): ...

    made = as_tool(**declared)(t)
    with pytest.raises(MisuseError, match=why):
        _ = made.spec
    with pytest.raises(MisuseError, match=why):
        run(made.async_run({}))


def test_a_tool_without_execute_is_misuse():
    class Idle(BaseTool):
        name = "idle"

    with pytest.raises(MisuseError, match="tool idle has no execute; write one in Idle"):
        _ = Idle().spec


def test_async_run_is_final():
    with pytest.raises(MisuseError, match="final"):

        class Own(BaseTool):
            async def async_run(self, arguments): ...


@pytest.mark.promise("loop-per-client")
def test_a_closed_tool_opens_again_in_another_loop():
    @as_tool
    def one() -> int:
        return 1

    for _ in range(3):
        assert call(one).content == "1"
        run(one.aclose())


def test_a_tool_may_be_a_frozen_dataclass():
    @dataclass(frozen=True)
    class Greets(BaseTool):
        greeting: str
        name: str = "greets"
        description: str = "Greet somebody."

        async def execute(self, whom: str) -> str:
            return f"{self.greeting} {whom}"

    assert run(Greets("Hello").async_run({"whom": "you"})).content == "Hello you"
