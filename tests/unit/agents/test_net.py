"""Whatever happens inside a run ends in its result, and in `RunFinished`; nothing runs on that nobody has booked."""

from __future__ import annotations

import asyncio
import contextlib

import anyio
import pytest

from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import (
    BaseLLMWrapper,
    BaseMemory,
    BaseTool,
    InProcessMemory,
    LLMResponse,
    Message,
    ToolError,
    ToolResult,
    tool,
)
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import RunFinished
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.atomic.types import ImagePart, LLMChunk, TextPart, Usage
from shared_libs.tools.agent import AgentTool
from tests.support import is_valid_history, run_virtual


class Panic(BaseException):
    """What a Rust extension raises when it panics."""


class Mute(ToolError):
    """A tool's word that fails."""

    def __str__(self):
        raise RuntimeError("no text")


INSIDE = {
    "a result of a dict": lambda: ToolResult(content={"a": 1}),
    "a result of nothing": lambda: ToolResult(content=None),
    "an error of a dict": lambda: ToolResult(content={"a": 1}, is_error=True),
    "a tool error without a text": Mute(),
    "a panic": Panic("panicked"),
    "an exit": SystemExit(3),
    "a generator's exit": GeneratorExit(),
    "a group": BaseExceptionGroup("many", [Panic("deep")]),
    "its own cancellation": asyncio.CancelledError(),
}


def acting(what):
    @tool
    async def act() -> object:
        await asyncio.sleep(0)
        if isinstance(what, BaseException):
            raise what
        return what()

    return act


async def finished(agent, **options):
    events = [event async for event in agent.async_stream("go", **options)]
    assert isinstance(events[-1], RunFinished)
    return events[-1].result


@pytest.mark.promise("run-returns")
@pytest.mark.parametrize("what", INSIDE.values(), ids=INSIDE)
@pytest.mark.parametrize("beside", [False, True])
def test_whatever_a_tool_does_ends_in_an_observation(what, beside):
    calls = [("act", {})] + ([("act", {})] if beside else [])
    agent = ReActAgent(llm=ScriptedLLM([Turn(calls=calls), "done"]), tools=[acting(what)])
    result = run_virtual(finished(agent))
    assert (result.status, result.answer) == ("answered", "done")
    assert all(isinstance(row.content, str) and row.content for row in result.steps[0].observations)


class Wrong(BaseLLMWrapper):
    """An adapter that gives what a test wants."""

    provider = "wrong"

    def __init__(self, give):
        super().__init__("m")
        self.give = give

    async def _chat(self, messages, tools, **options):
        return self.give()


@pytest.mark.promise("run-returns", "adapter-checked")
@pytest.mark.parametrize(
    "give", [lambda: LLMResponse(text=None), lambda: LLMResponse(text="x", usage=None), lambda: None, lambda: 1 / 0]
)
def test_whatever_an_adapter_gives_ends_in_the_result(give):
    result = run_virtual(finished(ReActAgent(llm=Wrong(give), limits=Limits(timeout_s=30))))
    assert (result.status, result.stop_reason) == ("failed", "error")
    assert "adapter" in result.error


class Broken(BaseMemory):
    """A memory that fails as a test wants."""

    def __init__(self, error):
        self.error = error

    async def _load(self, session_id, limit):
        raise self.error

    async def _store(self, session_id, messages):
        raise self.error


@pytest.mark.promise("run-returns")
@pytest.mark.parametrize(
    "error", [Panic("panicked"), SystemExit(2), ValueError("no"), ExceptionGroup("g", [OSError()])]
)
def test_whatever_a_memory_raises_ends_in_the_result(error):
    agent = ReActAgent(llm=ScriptedLLM(["x"]), memory=Broken(error))
    result = run_virtual(finished(agent, session_id="s"))
    assert (result.status, result.stop_reason) == ("failed", "error")
    assert "memory" in result.error


class BrokenSet(Toolset):
    """A toolset that fails as a test wants."""

    name = "broken"

    async def _list(self):
        raise Panic("panicked")


@pytest.mark.promise("run-returns")
def test_whatever_a_toolset_raises_ends_in_the_result():
    result = run_virtual(finished(ReActAgent(llm=ScriptedLLM(["x"]), tools=[BrokenSet()])))
    assert result.status in ("answered", "failed")
    assert "panicked" in result.error


@pytest.mark.promise("run-returns")
@pytest.mark.parametrize(
    "error", [Panic("p"), SystemExit(3), asyncio.CancelledError(), GeneratorExit(), ValueError("v")], ids=repr
)
def test_whatever_an_observer_raises_the_run_and_the_other_observers_go_on(error):
    heard = []

    def broken(event):
        raise error

    result = run_virtual(ReActAgent(llm=ScriptedLLM(["done"]), observers=[broken, heard.append]).async_run("go"))
    assert result.answer == "done"
    assert [type(event) for event in heard].count(RunFinished) == 1


@pytest.mark.promise("time-orphans")
def test_a_run_that_is_cancelled_leaves_no_call_of_a_turn_behind():
    wrote = []

    @tool
    async def write(n: int) -> str:
        for _ in range(5):
            await asyncio.sleep(1)
            wrote.append(n)
        return "ok"

    agent = ReActAgent(llm=ScriptedLLM([Turn(calls=[("write", {"n": 1}), ("write", {"n": 2})])]), tools=[write])

    async def main():
        task = asyncio.create_task(agent.async_run("go"))
        await asyncio.sleep(1.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(10)

    run_virtual(main())
    assert sorted(wrote) == [1, 2]


@pytest.mark.promise("cancel-wins", "time-orphans")
@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("scope", ["timeout", "move_on_after", "fail_after"])
def test_a_request_that_is_broken_off_leaves_nothing_alive_and_blames_nobody_who_obeys(scope, calls):
    closed, told = [], []

    @tool
    async def look() -> str:
        try:
            await asyncio.sleep(1000)
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            closed.append(True)
        return "x"

    agent = ReActAgent(llm=ScriptedLLM([Turn(calls=[("look", {})] * calls)]), tools=[look], observers=[told.append])

    async def main():
        if scope == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await agent.async_run("go")
        elif scope == "move_on_after":
            with anyio.move_on_after(0.05):
                await agent.async_run("go")
        else:
            with pytest.raises(TimeoutError), anyio.fail_after(0.05):
                await agent.async_run("go")
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert run_virtual(main()) == set()
    assert closed == [True] * calls
    assert told[-1].result.status == "cancelled"
    assert told[-1].result.still_running == ()


@pytest.mark.promise("cancel-wins", "time-orphans")
@pytest.mark.parametrize("scope", [asyncio.timeout, anyio.move_on_after])
@pytest.mark.parametrize("what", ["a reply", "a stream of a model"])
def test_a_reply_or_a_stream_that_is_broken_off_leaves_nothing_alive(what, scope):
    closed = []

    class Streams(BaseLLMWrapper):
        async def _stream(self, messages, tools, **options):
            try:
                yield LLMChunk("text", "I ")
                await asyncio.sleep(1000)
            finally:
                for _ in range(3):
                    await asyncio.sleep(0)
                closed.append(True)

    async def reads(model):
        if what == "a reply":
            reply = await ReActAgent(llm=model).chat("go")
            try:
                await reply
            finally:
                await reply.aclose()
        async with contextlib.aclosing(model.async_stream("go")) as chunks:
            async for _ in chunks:
                pass

    async def main():
        with contextlib.suppress(TimeoutError):
            async with contextlib.AsyncExitStack() as stack:
                bound = scope(0.05)
                await stack.enter_async_context(bound) if scope is asyncio.timeout else stack.enter_context(bound)
                await reads(Streams("m"))
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert (run_virtual(main()), closed) == (set(), [True])


@pytest.mark.promise("cancel-wins")
def test_a_cancellation_in_the_turn_in_which_the_run_ends_is_not_lost():
    """On 3.11 `wait_for` returned the result and swallowed it: a worker that was cancelled went on."""

    async def main():
        outcomes = set()
        for turns in range(12):
            task = asyncio.create_task(ReActAgent(llm=ScriptedLLM(["done"])).async_run("go"))
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.done():
                break
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            outcomes.add(type(outcome))
        return outcomes

    assert run_virtual(main()) == {asyncio.CancelledError}


@pytest.mark.promise("cancel-wins")
@pytest.mark.parametrize("calls", [0, 1, 2])
def test_what_a_cancellation_says_arrives(calls):
    """Who cancels may say why, and anyio knows its own cancellations by what they say."""

    @tool
    async def look() -> str:
        await asyncio.sleep(1000)
        return "x"

    slow = Turn(delay_s=1000) if not calls else Turn(calls=[("look", {})] * calls)

    async def main():
        task = asyncio.create_task(ReActAgent(llm=ScriptedLLM([slow]), tools=[look]).async_run("go"))
        await asyncio.sleep(1)
        task.cancel("the pod is going")
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        return cancelled.value.args

    assert run_virtual(main()) == ("the pod is going",)


@pytest.mark.promise("budget-shared")
def test_parallel_sub_agents_pass_a_limit_of_tokens_by_less_than_what_is_under_way():
    def answer():
        return Turn(text="x", usage=Usage(900, 100), delay_s=1)

    inner = ReActAgent(llm=ScriptedLLM([lambda _: answer()] * 200), name="inner")
    outer = ReActAgent(
        llm=ScriptedLLM(
            [
                Turn(calls=[("inner", {"question": f"{n}"}) for n in range(50)], usage=Usage(900, 100)),
                Turn(text="done", usage=Usage(0, 0, total_tokens=0)),
            ]
        ),
        tools=[AgentTool(inner, description="asks")],
        limits=Limits(max_tokens=3000, max_tool_calls=100),
    )
    result = run_virtual(outer.async_run("go"))
    assert result.usage.total_tokens <= 4000
    assert result.stop_reason == "budget"


MISUSE = {
    "a model without its provider": (lambda: ReActAgent(llm="gpt-5.4-mini"), "openai/gpt-5.4-mini"),
    "no model": (lambda: ReActAgent(llm=None), "llm is a model"),
    "limits of a wrong key": (lambda: ReActAgent(llm=ScriptedLLM([]), limits={"timeout": 5}), "timeout_s"),
    "limits as a number": (lambda: ReActAgent(llm=ScriptedLLM([]), limits=5), "allowed is a Limits or a dict"),
    "a tool, not in a list": (lambda: ReActAgent(llm=ScriptedLLM([]), tools=acting(None)), r"write tools=\[…\]"),
    "a memory by its address": (lambda: ReActAgent(llm=ScriptedLLM([]), memory="sqlite://"), "memory is a store"),
    "a memory's class": (lambda: ReActAgent(llm=ScriptedLLM([]), memory=InProcessMemory), "memory is a store"),
    "an observer, not in a list": (lambda: ReActAgent(llm=ScriptedLLM([]), observers=print), r"observers=\[…\]"),
    "an observer that is none": (lambda: ReActAgent(llm=ScriptedLLM([]), observers=[5]), "plain function"),
    "an observer to await": (lambda: ReActAgent(llm=ScriptedLLM([]), observers=[asyncio.sleep]), "plain function"),
    "instructions as a number": (lambda: ReActAgent(llm=ScriptedLLM([]), instructions=5), "instructions is a text"),
    "no name": (lambda: ReActAgent(llm=ScriptedLLM([]), name=""), "name is a text"),
    "no tool": (lambda: ReActAgent(llm=ScriptedLLM([]), tools=[5]), "int is no tool"),
    "nothing for a tool": (lambda: ReActAgent(llm=ScriptedLLM([]), tools=[None]), "None is no tool"),
    "the class of a model": (lambda: ReActAgent(llm=ScriptedLLM), "not the class ScriptedLLM"),
}


@pytest.mark.parametrize(("make", "told"), MISUSE.values(), ids=MISUSE)
def test_misuse_is_refused_when_the_agent_is_built(make, told):
    with pytest.raises(MisuseError, match=told):
        make()


ASKED = {
    "a session without a memory": ({"session_id": "s"}, "no memory"),
    "a session of no text": ({"session_id": 5}, "session_id is a text"),
    "an empty session": ({"session_id": ""}, "session_id is a text"),
    "an empty run id": ({"run_id": ""}, "run_id is a text"),
    "a run id of no text": ({"run_id": 5}, "run_id is a text"),
    "a timeout as text": ({"timeout": "5"}, "positive number"),
    "a timeout that is true": ({"timeout": True}, "positive number"),
}


@pytest.mark.parametrize(("options", "told"), ASKED.values(), ids=ASKED)
def test_misuse_of_a_run_is_refused_at_once(options, told):
    async def main():
        with pytest.raises(MisuseError, match=told):
            await ReActAgent(llm=ScriptedLLM(["x"])).async_run("go", **options)

    run_virtual(main())


def test_limits_may_be_a_dict():
    assert ReActAgent(llm=ScriptedLLM([]), limits={"timeout_s": 5}).limits == Limits(timeout_s=5)


class Declared(BaseTool):
    """A tool."""

    name, description = "declared", "d"

    async def execute(self) -> str:
        return "x"


QUESTIONS = {
    "a text": ("hi", "hi", [Message("user", "hi")]),
    "a message": (Message("user", "hi"), "hi", [Message("user", "hi")]),
    "a dict": ({"role": "user", "content": "hi"}, "hi", [Message("user", "hi")]),
    "parts": (
        [
            {"type": "text", "text": "what is this"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        ],
        "what is this [image]",
        [Message("user", (TextPart("what is this"), ImagePart("data:image/png;base64,AA")))],
    ),
    "parts as they come": (
        ["what is this", ImagePart("https://example.org/a.png")],
        "what is this [image]",
        [Message("user", (TextPart("what is this"), ImagePart("https://example.org/a.png")))],
    ),
    "a conversation": (
        [Message("user", "I am Ann"), Message("assistant", "hi Ann"), Message("user", "who am I")],
        "who am I",
        [Message("user", "I am Ann"), Message("assistant", "hi Ann"), Message("user", "who am I")],
    ),
}


@pytest.mark.parametrize(("given", "told", "sent"), QUESTIONS.values(), ids=QUESTIONS)
def test_a_question_is_a_text_parts_or_a_conversation(given, told, sent):
    events = []
    llm = ScriptedLLM(["x"])
    agent = ReActAgent(llm=llm, observers=[events.append])
    result = run_virtual(agent.async_run(given))
    assert result.answer == "x"
    assert events[0].question == told
    assert llm.requests[0][1:] == sent
    assert is_valid_history(llm.requests[0][1:])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "empty"),
        ("  ", "empty"),
        (5, "not a int"),
        (b"x", "not a bytes"),
        ([Message("assistant", "x")], "role is 'assistant'"),
        ([{"role": "nobody", "content": "x"}], "message 0 is not valid"),
    ],
)
def test_what_is_no_question_is_refused(given, told):
    async def main():
        with pytest.raises(MisuseError, match=told):
            await ReActAgent(llm=ScriptedLLM(["x"])).async_run(given)

    run_virtual(main())


@pytest.mark.promise("given-up-unpaid")
def test_a_call_that_was_given_up_asks_no_model():
    inner = ReActAgent(llm=ScriptedLLM(["never"]), name="inner")
    begun, over = asyncio.Event(), asyncio.Event()
    said = []

    @tool(timeout_s=100)
    async def stubborn() -> str:
        """Hear of no cancellation, and ask a model long after it."""
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        await asyncio.sleep(10)
        said.append(await inner.async_run("q"))
        over.set()
        return "late"

    agent = ReActAgent(llm=ScriptedLLM([Turn(calls=[("stubborn", {})]), "never"]), tools=[stubborn])

    async def main():
        asked = asyncio.ensure_future(agent.async_run("q"))
        await begun.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await over.wait()

    run_virtual(main())
    assert inner.llm.requests == []
    assert "given up" in said[0].error
