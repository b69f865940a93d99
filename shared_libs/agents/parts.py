"""What an agent is made of: each part is checked when it is given, so that no run fails for it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import EventSink
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.memory.base import BaseMemory
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.function_tool import tool
from shared_libs.atomic.tools.toolset import Toolset


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
    Take an agent's model.

    Raises:
        MisuseError: it is none.

    """
    # by shape: a stand-in with the same methods is as good
    if not callable(getattr(llm, "async_chat", None)) or not hasattr(llm, "native_tools"):
        raise MisuseError(
            f"llm is a model such as OpenAILLM({str(llm)!r}), not {llm!r:.100}"
            if isinstance(llm, str)
            else f"llm is a model such as OpenAILLM('gpt-5.4-mini'), not a {type(llm).__name__}"
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
