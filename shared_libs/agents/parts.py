"""What an agent is made of: each part is checked when it is given, so that no run fails for it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, Self, Unpack

from shared_libs.agents.limits import Limits
from shared_libs.agents.run import Run, RunOptions
from shared_libs.atomic.amounts import is_amount
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import EventSink, listens
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.names import model_named
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.memory.base import BaseMemory
from shared_libs.atomic.opening import closed, opened
from shared_libs.atomic.scope import current_deadline, current_scope
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.function_tool import tool
from shared_libs.atomic.tools.toolset import Toolset


class Parts:
    """What an agent is made of, opened and closed together, and what a run takes of it."""

    name: str
    llm: BaseLLMWrapper
    tools: tuple[BaseTool | Toolset, ...]
    memory: BaseMemory | None
    limits: Limits
    observers: tuple[EventSink, ...]
    shape: OutputSchema | None
    deps: Any
    _by_name: dict[str, BaseTool]

    def __repr__(self) -> str:
        told = [f"{self.name!r}, llm={self.llm!r}", f"tools=[{', '.join(one.name for one in self.tools)}]"]
        told += [] if self.memory is None else [f"memory={self.memory!r}"]
        told += [] if self.shape is None else [f"output_schema={self.shape.name}"]
        return f"{type(self).__name__}({', '.join(told)})"

    async def aopen(self) -> None:
        """
        Get model, memory and tools ready before a run's clock starts; safe to repeat.

        Raises:
            FactoryError: what is wrong with one of them, such as that it was not ready within `OPEN_S`.

        """
        await opened(f"{self.llm.model} of agent {self.name}", self.llm.aopen())
        if self.memory is not None:
            await self.memory.async_open()
        for one in self.tools:
            await opened(f"{one.name} of agent {self.name}", one.aopen())

    async def aclose(self) -> None:
        """
        Close the model, the tools and the memory; using the agent afterwards opens them again.

        What is not closed within `CLOSE_S` is left behind, and the log says so.
        """
        kept = [part for part in (self.memory, *self.tools) if part is not None]
        await closed((self.llm.model, self.llm.aclose()), *((part.name, part.aclose()) for part in kept))

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.aclose)
            await self.aopen()
            stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _new_run(self, *sinks: EventSink, **options: Unpack[RunOptions]) -> Run:
        """
        Begin a run, its clock first.

        Raises:
            MisuseError: an option is not valid.

        """
        timeout, session_id = options.get("timeout"), options.get("session_id")
        seconds = self.limits.timeout_s if timeout is None else timeout
        if not is_amount(seconds):
            raise MisuseError(f"timeout is a positive number of seconds, not {timeout!r}")
        run_id, wanted, deps = options.get("run_id"), options.get("output_schema"), options.get("deps")
        check_texts(run_id=run_id, session_id=session_id)
        if session_id is not None and self.memory is None:
            raise MisuseError(f"agent {self.name} has no memory to keep session {session_id!r} in: pass memory=…")
        deps = next((one for one in (deps, self.deps, current_scope().deps) if one is not None), None)
        for one in self._by_name.values():
            one.check_deps(deps)
        shape = self.shape if wanted is None else wanted
        left_s, stores = min(seconds, current_deadline().remaining()), session_id is not None
        listeners = [sink for sink in (*self.observers, *sinks) if listens(sink)]
        run = Run(self.name, left_s, self.limits, listeners, run_id=run_id, session_id=session_id, stores=stores)
        run.shape, run.own_shape = None if shape is None else OutputSchema.of(shape), wanted is not None
        run.deps, run.listener = deps, sinks[0] if sinks else None
        return run


def check_texts(**given: Any) -> None:
    """
    Refuse what is no text; None is left out.

    Raises:
        MisuseError: one is something else, or empty.

    """
    for what, text in given.items():
        if text is not None and not (isinstance(text, str) and text):
            raise MisuseError(f"{what} is a text that is not empty, not {text!r:.100}")


def checked_model(llm: Any) -> BaseLLMWrapper:
    """
    Take an agent's model, or make the one of a name.

    Raises:
        MisuseError: it is none.

    """
    if isinstance(llm, str):
        named: BaseLLMWrapper = model_named(llm)
        return named
    # by shape: a stand-in with the same methods is as good
    if inspect.isclass(llm):
        raise MisuseError(f"llm is a model such as OpenAILLM('gpt-5.4-mini'), not the class {llm.__name__}")
    if not callable(getattr(llm, "async_chat", None)) or not hasattr(llm, "native_tools"):
        raise MisuseError(
            f"llm is a model such as OpenAILLM('gpt-5.4-mini'), or its name 'openai/gpt-5.4-mini', not {llm!r:.100}"
        )
    model: BaseLLMWrapper = llm
    return model


def checked_memory(memory: Any) -> BaseMemory | None:
    """
    Take an agent's memory.

    Raises:
        MisuseError: it is none.

    """
    # by shape, as the model
    if memory is not None and (inspect.isclass(memory) or not callable(getattr(memory, "async_recall", None))):
        raise MisuseError(f"memory is a store such as InProcessMemory(), not {memory!r:.100}")
    store: BaseMemory | None = memory
    return store


def checked_observers(observers: Any) -> tuple[EventSink, ...]:
    """
    Take an agent's observers.

    Raises:
        MisuseError: they are no list of functions that take an event.

    """
    if isinstance(observers, str) or not isinstance(observers, Iterable):
        raise MisuseError(f"observers is a list of functions, not a {type(observers).__name__}; write observers=[…]")
    sinks = tuple(observers)
    for sink in sinks:
        if not callable(sink) or inspect.iscoroutinefunction(sink):
            raise MisuseError(f"an observer is a plain function that takes an event, not {sink!r:.100}")
    return sinks


def checked_tools(agent: str, tools: Any) -> tuple[BaseTool | Toolset, ...]:
    """
    Take an agent's tools; a plain function among them is made one.

    Raises:
        MisuseError: they are no list, or one of them is no tool; tells why.

    """
    if isinstance(tools, BaseTool | Toolset | str) or not isinstance(tools, Iterable):
        raise MisuseError(f"agent {agent}: tools is a list of tools, not a {type(tools).__name__}; write tools=[…]")
    return tuple(_checked_tool(agent, given) for given in tools)


def _checked_tool(agent: str, given: Any) -> BaseTool | Toolset:
    if isinstance(given, BaseTool | Toolset):
        return given
    what = getattr(given, "__name__", None) or type(given).__name__
    if inspect.isclass(given) and issubclass(given, BaseTool | Toolset):
        raise MisuseError(f"agent {agent}: {what} is the class of a tool; write {what}(…)")
    if given is None:
        raise MisuseError(f"agent {agent}: None is no tool; allowed are functions, a BaseTool and a Toolset")
    try:
        return tool(given)
    except MisuseError as error:
        raise MisuseError(
            f"agent {agent}: {what} is no tool: {error}; allowed are functions, a BaseTool and a Toolset"
        ) from None


def by_name(agent: str, tools: Iterable[BaseTool]) -> dict[str, BaseTool]:
    """
    Return the tools by their names.

    Raises:
        MisuseError: two have one name, or one is declared wrongly.

    """
    named: dict[str, BaseTool] = {}
    for one in tools:
        if one.spec.name in named:
            raise MisuseError(f"agent {agent}: two tools are called {one.name}; give one of them another name")
        named[one.name] = one
    return named
