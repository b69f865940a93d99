"""
The agent: one loop of Thought, Action and Observation under one deadline.

`_drive` is the loop. `async_run`, `async_stream` and `chat` are folds of it: they differ in who listens to the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Unpack, overload

import msgspec
from typing_extensions import TypeVar

from shared_libs.agents import parts, prompts, shape
from shared_libs.agents.acting import act
from shared_libs.agents.gathering import gather
from shared_libs.agents.limits import Limits
from shared_libs.agents.pause import Decisions, PausedRun, State
from shared_libs.agents.protocol import ProtocolName, Turn, TurnProtocol, choose_protocol
from shared_libs.agents.question import Asked, Question, read_question
from shared_libs.agents.reply import Reply, events_of
from shared_libs.agents.run import OtherOptions, Run, RunOptions
from shared_libs.agents.session import compact, recall, remember
from shared_libs.agents.step import (
    Ending,
    begin,
    reached,
    take_answer,
    take_calls,
    take_observations,
    take_problem,
)
from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.errors import LLMError, MemoryStoreError, MisuseError, RunInterrupted, ToolError, in_words
from shared_libs.atomic.events import (
    AgentEvent,
    EventSink,
    LimitReached,
    ModelFinished,
    StepStarted,
    Thought,
)
from shared_libs.atomic.in_place import within
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.structured import OutputSchema, Wanted
from shared_libs.atomic.memory.base import BaseMemory
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.scope import use_scope
from shared_libs.atomic.supervise import BodyCancelled
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.atomic.types import LLMResponse, Message

T = TypeVar("T", default=Any)
R = TypeVar("R")
"""What the answers of an agent, and of one run of it, are read as."""


class ReActAgent(parts.Parts, Generic[T]):
    """
    An agent: a model, tools, instructions, memory and limits. Immutable, and shared by any number of runs at once.

    Args:
        llm: the model, with its fallbacks; or its name, "provider/model".
        tools: what it may do; their names differ. A plain function is made a tool; a `Toolset` is asked by every run.
        instructions: the owner's words to the model.
        memory: where sessions are kept; a run without a session id keeps nothing.
        limits: the bounds of a run; may be given as a dict.
        name: the agent's name, in events and logs.
        protocol: "native" tool calling, "text" ReAct, or "auto": what the model can.
        observers: get every event of every run, at once; they must not block.
        output_schema: the shape of every answer (`AgentResult.output`): a pydantic model, a dataclass, a TypedDict, or
            a JSON Schema as a dict.
        deps: what tools get that declare it (`Deps`); a run's own take its place.

    """

    def __init__(  # noqa: PLR0913 - the model, the tools and eight keywords
        self,
        llm: BaseLLMWrapper | str,
        tools: Iterable[BaseTool | Toolset | Callable[..., Any]] = (),
        *,
        instructions: str = "",
        memory: BaseMemory | None = None,
        limits: Limits | Mapping[str, Any] | None = None,
        name: str = "agent",
        protocol: ProtocolName = "auto",
        observers: Sequence[EventSink] = (),
        output_schema: Wanted[T] | None = None,
        deps: Any = None,
    ) -> None:
        if protocol not in ("auto", "native", "text"):
            raise MisuseError(f"protocol {protocol!r}: allowed are 'auto', 'native' and 'text'")
        parts.check_texts(name=name or "", instructions=instructions or None)
        self.llm = parts.checked_model(llm)
        self.tools = parts.checked_tools(name, tools)
        self.instructions = instructions or prompts.INSTRUCTIONS
        self.memory = parts.checked_memory(memory)
        self.limits = Limits.of(limits)
        self.name = name
        self.protocol: TurnProtocol = choose_protocol(protocol, self.llm)
        self.observers = parts.checked_observers(observers)
        self.shape = None if output_schema is None else OutputSchema.of(output_schema)
        self.deps = deps
        # a wrong declaration shows here, not in a run
        self._by_name = parts.by_name(name, [tool for tool in self.tools if isinstance(tool, BaseTool)])
        self._toolsets = [tool for tool in self.tools if isinstance(tool, Toolset)]

    @overload
    async def async_run(
        self, question: Question, *, output_schema: type[R], **options: Unpack[OtherOptions]
    ) -> AgentResult[R]: ...
    @overload
    async def async_run(
        self, question: Question, *, output_schema: Mapping[str, Any] | None = None, **options: Unpack[OtherOptions]
    ) -> AgentResult[T]: ...
    async def async_run(
        self,
        question: Question,
        *,
        timeout: float | None = None,
        session_id: str | None = None,
        run_id: str | None = None,
        output_schema: Wanted[Any] | None = None,
        deps: Any = None,
    ) -> AgentResult[Any]:
        """
        Answer a question.

        Whatever happens inside the run ends in the result: its `status` is "answered", "partial" or "failed".

        Args:
            question: what to answer: a text, content parts (text and images), or messages of which the last one asks.
            timeout: seconds of wall clock for everything; by default `limits.timeout_s`.
            session_id: the conversation to continue.
            run_id: a name for the run; one is made by default.
            output_schema: the shape of the answer; by default the agent's.
            deps: what tools get that declare it; by default the agent's.

        Raises:
            MisuseError: the question is empty, the timeout is not a positive number, or another argument is wrong.
            asyncio.CancelledError: the caller was cancelled.

        """
        asked = read_question(question)
        run = self._new_run(
            timeout=timeout, session_id=session_id, run_id=run_id, output_schema=output_schema, deps=deps
        )
        return await self._run(run, asked, stream=False)

    async def async_resume(
        self,
        state: State,
        decisions: Decisions,
        *,
        timeout: float | None = None,
        output_schema: Wanted[T] | None = None,
        deps: Any = None,
    ) -> AgentResult[T]:
        """
        Go on with a paused run, in this process or another one. What has been done is not done again.

        Calls without a decision stay pending: then the run pauses again when the others are done.

        Args:
            state: `AgentResult.state` of the paused run, or its JSON.
            decisions: by call id: True, False, or a `Decision` (its JSON, too) with a reason or other arguments.
            timeout: seconds of wall clock for the rest; by default what the run had left when it paused.
            output_schema: the shape of the answer; by default that of the run, as plain data where it was its own.
            deps: what tools get that declare it; they are no part of the state.

        Raises:
            MisuseError: the state or a decision is not valid, or the timeout is not a positive number.
            asyncio.CancelledError: the caller was cancelled.

        """
        paused = PausedRun.read(state)
        paused.decide(decisions)
        run = self._new_run(
            timeout=paused.left_s if timeout is None else timeout,
            session_id=paused.session_id,
            run_id=paused.run_id,
            output_schema=paused.output_schema if output_schema is None else output_schema,
            deps=deps,
        )
        run.go_on_from(paused)
        return await self._run(run, read_question(paused.state.question), stream=False)

    def async_stream(
        self, question: Question, *, stream: bool = True, **options: Unpack[RunOptions]
    ) -> AsyncGenerator[AgentEvent, None]:
        """
        Answer a question, and yield what happens as it happens; the last event is `RunFinished`.

        The same run as `async_run`, with the same arguments and errors. With `stream=False` the model's answers come
        whole. Closing the iterator early cancels the run. A slow listener slows nothing down.
        """
        return events_of(partial(self._heard, question, stream, options))

    def _heard(
        self, question: Question, stream: bool, options: RunOptions, listener: EventSink
    ) -> Coroutine[Any, Any, AgentResult]:
        return self._run(asked=read_question(question), run=self._new_run(listener, **options), stream=stream)

    async def chat(self, question: Question, **options: Unpack[RunOptions]) -> Reply:
        """As `async_run`, but as a reply: iterate it for the words as they come, or await it for the whole text."""
        return Reply(self.async_stream(question, **options), live=not self.tools or self.protocol.name == "text")

    async def _run(self, run: Run, asked: Asked, *, stream: bool) -> AgentResult:
        """
        Put the loop under its deadline, and whatever happens inside into a result.

        The loop ends in time by itself; the edge is there should it not. It is one bound around the loop, as `wait_for`
        is, without a task of its own: on 3.11 that one loses a cancellation that comes as the loop ends.
        """
        edge = within(run.loop, Expiry(run.edge_at, "the time is up"))
        try:
            with edge:
                return await self._drive(run, asked, stream=stream)
        except (asyncio.CancelledError, BodyCancelled) as cancel:
            run.finish(Ending("cancelled", "cancelled", run.best_answer, "cancelled from outside"))
            raise asyncio.CancelledError(*cancel.args) from None
        except (RunInterrupted, KeyboardInterrupt, GeneratorExit):
            run.leave()
            raise
        except BaseException as error:  # noqa: BLE001 - a run returns, whatever foreign code does in it
            if edge.rang:
                return run.finish(Ending("partial", "deadline", run.best_answer, "the time is up"))
            known = isinstance(error, LLMError | MemoryStoreError | ToolError)
            return run.finish(Ending("failed", "error", why=str(error) if known else in_words(error)))

    async def _drive(self, run: Run, asked: Asked, *, stream: bool) -> AgentResult:
        llm = self.llm
        run.start(asked.text, model=llm.model, protocol=self.protocol.name, rehearsal=llm.rehearsal)
        run.tools = await gather(run, self._by_name, self._toolsets)
        run.specs = [tool.spec for tool in run.tools.values()]
        if not run.state.exchange:
            run.state = begin(asked, *await recall(run, self.memory))
        try:
            ending = await self._explore(run, stream=stream)
            if ending.last_word:
                ending = await self._last_word(run, ending)
            if run.shape is not None and not llm.rehearsal:
                ending = await shape.repaired(run, ending, run.shape, self._say)
        except LLMError:
            await remember(run, self.memory)
            raise
        if ending.status != "paused":
            await remember(run, self.memory)
        return run.finish(ending)

    async def _explore(self, run: Run, *, stream: bool) -> Ending:
        """Think, act and observe, until there is an answer, a limit, or a question to a person."""
        state = run.state
        while True:
            if state.open_turn is not None:
                step = len(state.steps) + 1
                with use_scope(run.scope(run.explore, step)):
                    pending = await act(run, step, state.open_turn)
                if pending:
                    return Ending("paused", "approval", why="tool calls wait for a decision", pending=pending)
                take_observations(state, state.open_turn)
            step = len(state.steps) + 1
            if run.journal is not None and run.journal.wants_pause:
                return Ending("paused", "handed_over", why="another process is to go on with it")
            time_is_up = run.time_is_up and not run.knows(f"model.{step}")
            ending = reached(state, self.limits, run.budget, time_is_up=time_is_up)
            if ending is not None:
                return ending
            run.budget.take_step()
            run.emit(StepStarted(step=step))
            with use_scope(run.scope(run.explore, step)):
                await compact(run, self.memory)
                try:
                    response, turn = await self._ask(run, step, stream=stream)
                except LLMError:
                    if run.time_is_up:
                        continue
                    raise
                if turn.thought:
                    run.emit(Thought(step=step, text=turn.thought))
                if turn.answer is not None:
                    return take_answer(state, turn, response)
                if turn.problem is not None:
                    take_problem(state, turn, response)
                    continue
                take_calls(state, turn, response)

    async def _last_word(self, run: Run, ending: Ending) -> Ending:
        """Let the model answer from what it has, without tools; cut off, its words so far still count."""
        run.emit(LimitReached(stop_reason=ending.stop_reason, why=ending.why))
        words = prompts.LAST_WORD if run.shape is None else prompts.LAST_WORD_OF_SHAPE
        said = await self._say(run, words.format(why=ending.why))
        if answer := said or run.best_answer:
            run.state.exchange.append(Message("assistant", answer))
        return msgspec.structs.replace(ending, answer=answer, last_word=bool(said))

    async def _say(self, run: Run, instruction: str) -> str | None:
        """Ask the model once more, without tools; None where nobody answers."""
        step = len(run.state.steps) + 1 + run.last_words
        run.last_words += 1
        run.emit(StepStarted(step=step, final=True))
        try:
            with use_scope(run.scope(run.speak, step)):
                return (await self._ask(run, step, stream=True, last_word=instruction))[1].answer
        except LLMError as error:
            run.trouble = str(error)
            return None

    async def _ask(
        self, run: Run, step: int, *, stream: bool, last_word: str | None = None
    ) -> tuple[LLMResponse, Turn]:
        """Ask the model: the one place a run passes the LLM port; return the answer, and the turn it is."""
        instructions, options = shape.asked(run.shape, self.instructions, self.protocol, run.specs)
        messages, tools = self.protocol.write(instructions, run.state.conversation, run.specs, last_word)
        run.listen(self.protocol.answer_start)
        name = f"model.{step}" if last_word is None else f"model.{step}.last"
        stream = stream or run.is_followed
        hears = run.hears(stream=stream)
        with run.budget.reserved():
            ask = partial(self.llm.async_chat, messages, tools, on_chunk=hears, stream=stream, **options)
            response = await (ask() if run.journal is None else run.asked_once(name, ask))
        run.budget.charge(response.usage, response.cost_usd)
        turn = self.protocol.read(response, run.specs)
        if run.shape is not None:
            turn = shape.as_answer(turn, response.text, run.shape)
        run.settle(turn.answer)
        run.emit(ModelFinished(step=step, response=response))
        return response, turn
